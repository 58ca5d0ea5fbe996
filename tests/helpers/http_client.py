"""Blocking HTTP client for tests on real sockets: one request per connection."""

from __future__ import annotations

import contextlib
import socket

from tests.helpers.processes import TIMEOUT, read_all

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

# The admin listener rejects unknown Host names; it accepts localhost.
GET_CLOSE = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def connect(address: int | str) -> socket.socket:
    """Connect to a TCP port of 127.0.0.1, or to the path of a Unix socket."""
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address), TIMEOUT)
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(TIMEOUT)
    client.connect(address)
    return client


def try_connect(address: int | str) -> socket.socket | None:
    """Connect as `connect` does; return None if that fails."""
    with contextlib.suppress(OSError):
        return connect(address)
    return None


def get(address: int | str, request: bytes = GET_CLOSE) -> bytes:
    """Send one request on a new connection; return all bytes received until it is closed."""
    with connect(address) as client:
        client.sendall(request)
        return read_all(client)


def responds(address: int | str) -> bool:
    """Return whether a GET request is answered with status 200."""
    with contextlib.suppress(OSError):
        return get(address).startswith(b"HTTP/1.1 200 ")
    return False
