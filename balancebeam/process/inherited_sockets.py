"""
Listening sockets that somebody else has opened: the service manager
(sd_listen_fds(3)), or the process that this one succeeds.
"""

from __future__ import annotations

import json
import os
import socket
import stat
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from twisted.logger import Logger

from balancebeam.core.addresses import TcpAddress
from balancebeam.server.listeners import InheritedSocket

log = Logger()

# The first descriptor that the service manager hands over.
SD_LISTEN_FDS_START = 3

# Where a predecessor says which descriptors it hands over, by address, and who it is.
SOCKETS_VARIABLE = "BALANCEBEAM_SOCKETS"
PARENT_VARIABLE = "BALANCEBEAM_PREDECESSOR"


def find_inherited_sockets(
    environment: MutableMapping[str, str] | None = None,
) -> Mapping[str, InheritedSocket]:
    """
    The sockets that listen, by the texts of their addresses.

    The environment does not tell of them afterwards, so that no other process
    takes them for its own.
    """
    if environment is None:
        environment = os.environ
        environment.update(_initial_environment())
    found = _from_old_process(environment)
    found.update(_from_systemd(environment))
    return found


def _initial_environment() -> dict[str, str]:
    """
    What the service manager said when the program began. Twisted's endpoints
    have taken it out of the environment when they were imported.
    """
    try:
        given = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(one).partition("=") for one in given.split(b"\0"))
    return {name: value for name, _, value in pairs if name in ("LISTEN_PID", "LISTEN_FDS")}


def _from_old_process(environment: MutableMapping[str, str]) -> dict[str, InheritedSocket]:
    text = environment.pop(SOCKETS_VARIABLE, "")
    if not text or environment.get(PARENT_VARIABLE) != str(os.getppid()):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        log.warn("{name} is nonsense, and means nothing", name=SOCKETS_VARIABLE)
        return {}
    return {
        address: InheritedSocket(*one)
        for address, one in found.items()
        if listening_address(one[0]) is not None
    }


def _from_systemd(environment: MutableMapping[str, str]) -> dict[str, InheritedSocket]:
    process, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return {}
    found = {}
    for descriptor in range(SD_LISTEN_FDS_START, SD_LISTEN_FDS_START + int(count)):
        address = listening_address(descriptor)
        if address is None:
            log.warn("descriptor {number} is no socket that listens", number=descriptor)
        else:
            os.set_inheritable(descriptor, False)
            found[address] = InheritedSocket(descriptor, keep_path=True)
    return found


def listening_address(descriptor: int) -> str | None:
    """Where the socket `descriptor` listens, as addresses are written; `None` if it does not."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return None
        with socket.socket(fileno=os.dup(descriptor)) as listening:
            if not listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return None
            name = listening.getsockname()
            if listening.family == socket.AF_UNIX:
                return f"unix:{os.fsdecode(name)}"
            if listening.family in (socket.AF_INET, socket.AF_INET6):
                return str(TcpAddress(name[0], name[1]))
            return None
    except OSError:
        return None
