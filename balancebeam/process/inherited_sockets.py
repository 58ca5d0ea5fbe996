"""
Listening sockets inherited from systemd or from the old process of a hot restart.

systemd passes them by the protocol of sd_listen_fds(3), the old process by two
environment variables.
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

#: The first inherited descriptor; 0 to 2 are stdin, stdout and stderr (sd_listen_fds(3)).
SD_LISTEN_FDS_START = 3

#: The environment variable with the inherited descriptors, set by the old process of a
#: hot restart: JSON, `{address: [descriptor, keep_path]}`.
SOCKETS_VARIABLE = "BALANCEBEAM_SOCKETS"

#: The environment variable with the process id of the old process. A process that
#: inherits the variables from an ancestor that is not its parent ignores them.
PARENT_VARIABLE = "BALANCEBEAM_OLD_PROCESS"


def find_inherited_sockets(
    environment: MutableMapping[str, str] | None = None,
) -> Mapping[str, InheritedSocket]:
    """
    Find the inherited listening sockets, by the text of their addresses.

    The variables that describe them are removed from `environment` (by default
    that of this process), so that no child process takes them for its own.
    """
    if environment is None:
        environment = os.environ
        environment.update(_initial_environment())
    sockets = _from_old_process(environment)
    sockets.update(_from_systemd(environment))
    return sockets


def _initial_environment() -> dict[str, str]:
    """
    The variables of sd_listen_fds(3) as the process was started with them.

    Twisted's endpoints remove them from `os.environ` when they are imported.
    """
    try:
        content = Path("/proc/self/environ").read_bytes()
    except OSError:
        return {}
    pairs = (os.fsdecode(variable).partition("=") for variable in content.split(b"\0"))
    return {name: value for name, _, value in pairs if name in ("LISTEN_PID", "LISTEN_FDS")}


def _from_old_process(environment: MutableMapping[str, str]) -> dict[str, InheritedSocket]:
    """The sockets that the old process of a hot restart has passed."""
    text = environment.pop(SOCKETS_VARIABLE, "")
    if not text or environment.get(PARENT_VARIABLE) != str(os.getppid()):
        return {}
    try:
        sockets = json.loads(text)
    except ValueError:
        sockets = None
    if not isinstance(sockets, dict):
        log.warn("ignoring malformed {name}", name=SOCKETS_VARIABLE)
        return {}
    return {
        address: InheritedSocket(descriptor, keep_path)
        for address, (descriptor, keep_path) in sockets.items()
        if listening_address(descriptor) is not None
    }


def _from_systemd(environment: MutableMapping[str, str]) -> dict[str, InheritedSocket]:
    """The sockets that systemd has passed to this process."""
    pid, count = environment.pop("LISTEN_PID", ""), environment.pop("LISTEN_FDS", "")
    environment.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not (count.isascii() and count.isdigit()):
        return {}
    sockets = {}
    for descriptor in range(SD_LISTEN_FDS_START, SD_LISTEN_FDS_START + int(count)):
        address = listening_address(descriptor)
        if address is None:
            log.warn(
                "ignoring inherited descriptor {descriptor}: not a listening socket",
                descriptor=descriptor,
            )
        else:
            os.set_inheritable(descriptor, False)
            # systemd keeps the socket open and owns its file.
            sockets[address] = InheritedSocket(descriptor, keep_path=True)
    return sockets


def listening_address(descriptor: int) -> str | None:
    """
    The address of a listening socket in the notation of `--bind`.

    `None` if `descriptor` is not open, is not a socket, does not listen, or is
    of another family than IPv4, IPv6 and Unix.
    """
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
