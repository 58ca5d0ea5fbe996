"""A socket that neither waits for ever nor takes whatever comes."""

from __future__ import annotations

import socket
import time
from typing import Any

from balancebeam.cli.admin_address import Place

# Octets of an answer. Ten thousand servers need about a quarter of it.
MOST = 16 * 1024 * 1024


class TooMuch(Exception):
    """More than `MOST` octets have come."""


class BoundedSocket(socket.socket):
    """A connection that is over by `deadline`, as `time.monotonic` has it, or raises `timeout`."""

    deadline = 0.0
    _octets = 0

    def _hurry(self) -> None:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout
        self.settimeout(remaining)

    def connect(self, address: Any) -> None:
        self._hurry()
        super().connect(address)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._hurry()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self._hurry()
        octets = super().recv_into(buffer, nbytes, flags)
        self._octets += octets
        if self._octets > MOST:
            raise TooMuch
        return octets


def connected(place: Place, deadline: float) -> BoundedSocket:
    """A connection to `place`. Raises `OSError`."""
    if place.path:
        return _connected(socket.AF_UNIX, place.path, deadline)
    failed: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(
        place.host, place.port, type=socket.SOCK_STREAM
    ):
        try:
            return _connected(family, address, deadline)
        except OSError as error:
            failed = failed or error
    raise failed or OSError("it has no address")


def _connected(family: int, address: Any, deadline: float) -> BoundedSocket:
    made = BoundedSocket(family, socket.SOCK_STREAM)
    made.deadline = deadline
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made
