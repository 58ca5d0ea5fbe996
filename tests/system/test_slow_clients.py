"""Ten thousand connections that stall, and one client that must not notice."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import ScriptedServer, respond_with, run_balancer, wait_until
from tests.system.test_twistd import GET, get

MANY = 10_000


@pytest.fixture
def descriptors() -> Iterator[int]:
    """How many connections this process can hold, as many as are allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield min(MANY, hard - 200)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_stalled_connections(tmp_path: Path, descriptors: int) -> None:
    parts = (
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 1000,
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n",
    )
    with ScriptedServer(respond_with("one")) as one:
        options = ("--upstream", one.address, "--header-timeout", "4")
        with run_balancer(tmp_path, *options) as running:
            get(running.port)
            before = running.resident_bytes()
            stalled: list[socket.socket] = []
            try:
                for number in range(descriptors):
                    client = running.connect()
                    client.sendall(parts[number % len(parts)])
                    stalled.append(client)
                    if number % 500 == 0:
                        begun = time.monotonic()
                        assert get(running.port).endswith(b"one")
                        assert time.monotonic() - begun < 2
                each = (running.resident_bytes() - before) / descriptors
                assert each < 8192, each
                # Each is ended in its time, with its status if it said anything.
                for number, client in enumerate(stalled):
                    answer = b""
                    with contextlib.suppress(ConnectionError):
                        answer = client.recv(100)
                    expected = b"HTTP/1.1 408 " if number % len(parts) else b""
                    assert answer.startswith(expected), (number, answer)
                    assert answer or not expected
            finally:
                for client in stalled:
                    client.close()
            wait_until(lambda: running.fd_count() < 40)
            assert get(running.port, GET).endswith(b"one")
