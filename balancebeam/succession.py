"""
A successor: this program, started anew, which listens with the same sockets
before this process lets its clients go. No connection is refused meanwhile.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from twisted.internet.error import ProcessDone
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.inheritance import FIRST, PREDECESSOR, SOCKETS

log = Logger()


def command() -> Sequence[str]:
    """What this process was started by."""
    arguments = getattr(sys, "orig_argv", None)
    if arguments is None:
        # Before Python 3.10; PyPy too.
        return [sys.executable, *sys.argv]
    return [sys.executable, *arguments[1:]]


class Successor(ProcessProtocol):
    """The process that is to follow. It ends this one when it is ready."""

    def processExited(self, reason: Failure) -> None:
        """It has gone before this process did."""
        if not reason.check(ProcessDone):
            log.error("the successor ended: {why}", why=reason.getErrorMessage())


def start_successor(sockets: Mapping[str, int], reactor: Any) -> IProcessTransport:
    """
    Start the program anew, with the listening sockets `sockets`: descriptors by
    address.
    """
    environment: MutableMapping[str, str] = dict(os.environ)
    numbers = {address: FIRST + place for place, address in enumerate(sockets)}
    environment[SOCKETS] = json.dumps(numbers)
    environment[PREDECESSOR] = str(os.getpid())
    descriptors = {0: 0, 1: 1, 2: 2}
    descriptors.update({numbers[address]: number for address, number in sockets.items()})
    arguments = command()
    process: IProcessTransport = reactor.spawnProcess(
        Successor(), arguments[0], arguments, environment, childFDs=descriptors
    )
    return process


def end_predecessor(environment: MutableMapping[str, str] = os.environ) -> None:
    """Tell the process that this one succeeds, if there is one, to let its clients go."""
    text = environment.pop(PREDECESSOR, "")
    if text and text == str(os.getppid()):
        log.info("succeeding process {number}", number=text)
        os.kill(int(text), signal.SIGTERM)
