"""
Hot restart: a new process takes over the listening sockets of this one.

The new process is the same command, started again with the sockets as inherited
descriptors. When it is ready it sends SIGTERM to this process, which drains. No
connection is refused meanwhile, because the sockets stay open throughout.
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
    """The command line of this process, with the path of the interpreter first."""
    arguments = getattr(sys, "orig_argv", None)
    if arguments is None:
        # Python 3.9 has no orig_argv. sys.argv has twistd's arguments, whichever
        # script was run.
        run = "from twisted.scripts.twistd import run; run()"
        return [sys.executable, "-c", run, *sys.argv[1:]]
    return [sys.executable, *arguments[1:]]


class NewProcess(ProcessProtocol):
    """
    The new process of a hot restart, as the old process sees it.

    It normally outlives the old process; `on_exit` is called with the reason if it
    exits first.
    """

    def __init__(self, on_exit: Callable[[str], object]) -> None:
        self._on_exit = on_exit

    def processExited(self, reason: Failure) -> None:
        """Report the exit."""
        self._on_exit(reason.getErrorMessage())


def spawn_new_process(
    sockets: Mapping[str, InheritedSocket], reactor: Any, on_exit: Callable[[str], object]
) -> IProcessTransport:
    """
    Start the program again with inherited listening sockets.

    Args:
        sockets: the listening sockets by address.
        reactor: an `IReactorProcess`.
        on_exit: called with the reason if the new process exits while this one is running.

    Raises:
        OSError: the process cannot be started.
    """
    environment: MutableMapping[str, str] = dict(os.environ)
    # The new process has the sockets from the same descriptor on as under systemd.
    numbers = {address: SD_LISTEN_FDS_START + index for index, address in enumerate(sockets)}
    environment[SOCKETS_VARIABLE] = json.dumps(
        {address: (numbers[address], inherited.keep_path) for address, inherited in sockets.items()}
    )
    environment[PARENT_VARIABLE] = str(os.getpid())
    descriptors = {0: 0, 1: 1, 2: 2}
    descriptors.update({numbers[address]: inherited.fd for address, inherited in sockets.items()})
    command = original_command()
    process: IProcessTransport = reactor.spawnProcess(
        NewProcess(on_exit), command[0], command, environment, childFDs=descriptors
    )
    return process


def stop_old_process(environment: MutableMapping[str, str] = os.environ) -> None:
    """Send SIGTERM to the old process, if this process was started by a hot restart."""
    pid = environment.pop(PARENT_VARIABLE, "")
    if pid and pid == str(os.getppid()):
        log.info("hot restart: stopping the old process {pid}", pid=pid)
        os.kill(int(pid), signal.SIGTERM)
