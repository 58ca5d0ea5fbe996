"""Slow clients: ten thousand stalled connections must not affect another client."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.http_client import get
from tests.helpers.processes import ScriptedServer, respond_with, run_balancer, wait_until

# The figure of the C10k problem (Dan Kegel, 1999).
MAX_CONNECTIONS = 10_000


@pytest.fixture
def connection_count() -> Iterator[int]:
    """Raise the limit of open files; return how many connections this process can hold."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(MAX_CONNECTIONS, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stalled_connections(tmp_path: Path, connection_count: int) -> None:
    """Stalled connections cost less than 8 KiB each, expire with 408, and delay no other client."""
    incomplete_requests = (
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n",
    )
    with ScriptedServer(respond_with("one")) as server:
        options = ("--upstream", server.address, "--header-timeout", "4")
        with run_balancer(tmp_path, *options) as running:
            get(running.port)
            before = running.resident_bytes()
            stalled: list[socket.socket] = []
            try:
                for number in range(connection_count):
                    client = running.connect()
                    client.sendall(incomplete_requests[number % len(incomplete_requests)])
                    stalled.append(client)
                    if number % 500 == 0:
                        started = time.monotonic()
                        assert get(running.port).endswith(b"one")
                        assert time.monotonic() - started < 2
                bytes_each = (running.resident_bytes() - before) / connection_count
                assert bytes_each < 8192, bytes_each
                # Each one expires, with status 408 unless it has sent nothing.
                for number, client in enumerate(stalled):
                    response = b""
                    with contextlib.suppress(ConnectionError):
                        response = client.recv(100)
                    expected = b"HTTP/1.1 408 " if number % len(incomplete_requests) else b""
                    assert response.startswith(expected), (number, response)
                    assert response or not expected
            finally:
                for client in stalled:
                    client.close()
            wait_until(lambda: running.fd_count() < 40)
            assert get(running.port).endswith(b"one")
