"""
A successor: this program, started anew, which listens with the same sockets
before this process lets its clients go. No connection is refused meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.process.inherited_sockets import (
    PARENT_VARIABLE,
    SD_LISTEN_FDS_START,
    SOCKETS_VARIABLE,
)
from balancebeam.server.listeners import InheritedSocket

log = Logger()


def original_command() -> Sequence[str]:
    """What this process was started by."""
    arguments = getattr(sys, "orig_argv", None)
    if arguments is None:
        # Before Python 3.10. Whatever was called, these are twistd's.
        run = "from twisted.scripts.twistd import run; run()"
        return [sys.executable, "-c", run, *sys.argv[1:]]
    return [sys.executable, *arguments[1:]]


class NewProcess(ProcessProtocol):
    """
    The process that is to follow. It ends this one when it is ready; `on_exit` is
    called if it ends before.
    """

    def __init__(self, on_exit: Callable[[], object]) -> None:
        self._on_exit = on_exit

    def processExited(self, reason: Failure) -> None:
        """It has gone before this process did."""
        log.error("the successor ended: {reason}", reason=reason.getErrorMessage())
        self._on_exit()


class PidFile:
    """
    The file with this process's number, which `twistd` is told of by its
    `options`. It makes way for a successor's, as nginx's does.
    """

    def __init__(self, options: MutableMapping[str, Any]) -> None:
        self._options = options
        self._path: str = options.get("pidfile") or ""

    def move_aside(self) -> None:
        """Be called something else, which `twistd` removes in the end. Raises `OSError`."""
        if self._path:
            aside = f"{self._path}.old"
            os.replace(self._path, aside)
            self._options["pidfile"] = aside

    def restore(self) -> None:
        """Be called as before: there is no successor. Raises `OSError`."""
        if self._path and self._options["pidfile"] != self._path:
            os.replace(self._options["pidfile"], self._path)
            self._options["pidfile"] = self._path


def spawn_new_process(
    sockets: Mapping[str, InheritedSocket], reactor: Any, on_exit: Callable[[], object]
) -> IProcessTransport:
    """
    Start the program anew, with the listening sockets `sockets` by address.
    `on_exit` is called should it end. Raises `OSError`.
    """
    environment: MutableMapping[str, str] = dict(os.environ)
    numbers = {address: SD_LISTEN_FDS_START + place for place, address in enumerate(sockets)}
    environment[SOCKETS_VARIABLE] = json.dumps(
        {address: (numbers[address], one.keep_path) for address, one in sockets.items()}
    )
    environment[PARENT_VARIABLE] = str(os.getpid())
    descriptors = {0: 0, 1: 1, 2: 2}
    descriptors.update({numbers[address]: one.fd for address, one in sockets.items()})
    arguments = original_command()
    process: IProcessTransport = reactor.spawnProcess(
        NewProcess(on_exit), arguments[0], arguments, environment, childFDs=descriptors
    )
    return process


def stop_old_process(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell the process that this one succeeds, if there is one, to let its clients go."""
    text = environment.pop(PARENT_VARIABLE, "")
    if text and text == str(os.getppid()):
        log.info("succeeding process {number}", number=text)
        os.kill(int(text), signal.SIGTERM)
