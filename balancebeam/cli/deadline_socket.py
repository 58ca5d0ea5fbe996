"""A socket that neither waits for ever nor takes whatever comes."""

from __future__ import annotations

import socket
import time
from typing import Any

from balancebeam.cli.admin_address import AdminAddress

# Octets of an answer. Ten thousand servers need about a quarter of it.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class ResponseTooLarge(Exception):
    """More than `MAX_RESPONSE_BYTES` octets have come."""


class DeadlineSocket(socket.socket):
    """A connection that is over by `deadline`, as `time.monotonic` has it, or raises `timeout`."""

    deadline = 0.0
    _received_bytes = 0

    def _apply_deadline(self) -> None:
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout
        self.settimeout(remaining)

    def connect(self, address: Any) -> None:
        self._apply_deadline()
        super().connect(address)

    def sendall(self, data: Any, flags: int = 0) -> None:
        self._apply_deadline()
        super().sendall(data, flags)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        self._apply_deadline()
        octets = super().recv_into(buffer, nbytes, flags)
        self._received_bytes += octets
        if self._received_bytes > MAX_RESPONSE_BYTES:
            raise ResponseTooLarge
        return octets


def connect(admin_address: AdminAddress, deadline: float) -> DeadlineSocket:
    """A connection to `admin_address`. Raises `OSError`."""
    if admin_address.path:
        return _connect_to(socket.AF_UNIX, admin_address.path, deadline)
    failed: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(
        admin_address.host, admin_address.port, type=socket.SOCK_STREAM
    ):
        try:
            return _connect_to(family, address, deadline)
        except OSError as error:
            failed = failed or error
    raise failed or OSError("it has no address")


def _connect_to(family: int, address: Any, deadline: float) -> DeadlineSocket:
    made = DeadlineSocket(family, socket.SOCK_STREAM)
    made.deadline = deadline
    try:
        made.connect(address)
    except BaseException:
        made.close()
        raise
    return made
