"""
Socket with a deadline and a limit on received bytes.

`socket.settimeout` limits each call only, so that a peer that sends a byte now and then could
hold a command for any time.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from balancebeam.cli.admin_address import AdminAddress

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

# Bytes of a response, headers included. The status of ten thousand servers needs about a quarter.
MAX_RESPONSE_BYTES = 16 * 1024 * 1024


class ResponseTooLarge(Exception):
    """More than `MAX_RESPONSE_BYTES` bytes were received, or announced by Content-Length."""


class DeadlineSocket(socket.socket):
    """
    Stream socket whose calls raise `socket.timeout` after `deadline`.

    Attributes:
        deadline: time limit of the whole connection, on the clock of `time.monotonic`.
    """

    deadline = 0.0
    _received_bytes = 0

    def _apply_deadline(self) -> None:
        """Set the timeout of the next call to the remaining time."""
        remaining = self.deadline - time.monotonic()
        if remaining <= 0:
            raise socket.timeout
        self.settimeout(remaining)

    def connect(self, address: tuple[Any, ...] | str | ReadableBuffer) -> None:
        """Connect to `address` before the deadline."""
        self._apply_deadline()
        super().connect(address)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of `data` before the deadline."""
        self._apply_deadline()
        super().sendall(data, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive into `buffer` before the deadline. Raises `ResponseTooLarge`."""
        self._apply_deadline()
        size = super().recv_into(buffer, nbytes, flags)
        self._received_bytes += size
        if self._received_bytes > MAX_RESPONSE_BYTES:
            raise ResponseTooLarge
        return size


def connect(admin_address: AdminAddress, deadline: float) -> DeadlineSocket:
    """
    Connect to the admin listener; the addresses of a name are tried in turn.

    Raises:
        OSError: the error of the first address, if none accepts the connection.
    """
    if admin_address.path:
        return _connect_to(socket.AF_UNIX, admin_address.path, deadline)
    first_error: OSError | None = None
    for family, _, _, _, address in socket.getaddrinfo(
        admin_address.host, admin_address.port, type=socket.SOCK_STREAM
    ):
        try:
            return _connect_to(family, address, deadline)
        except OSError as error:
            first_error = first_error or error
    raise first_error or OSError("the name has no address")


def _connect_to(family: int, address: tuple[Any, ...] | str, deadline: float) -> DeadlineSocket:
    connection = DeadlineSocket(family, socket.SOCK_STREAM)
    connection.deadline = deadline
    try:
        connection.connect(address)
    except BaseException:
        connection.close()
        raise
    return connection
