"""Timeouts and rate limits, measured by clients on real sockets."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.helpers.http_client import GET, get
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    respond_with,
    run_balancer,
)

# Seconds that a busy test machine may add.
SLACK = 0.75

# Clients, each of which starts at another time within a sweep.
CLIENTS = 9


def answer_never(connection: socket.socket, number: int) -> None:
    """Read requests, and send nothing."""
    while read_head(connection):
        pass


@pytest.mark.parametrize("limit", [0.3, 1.0, 2.5])
def test_timeouts_are_not_early(tmp_path: Path, limit: float) -> None:
    """The header, idle and response timeouts are not early, and late by a quarter at most."""
    options = [f"--{name}-timeout={limit}" for name in ("upstream", "header")]
    cases = {b"GET / HTTP/1.1\r\n": b"HTTP/1.1 408 ", GET: b"HTTP/1.1 504 "}
    with ScriptedServer(answer_never) as server:
        with run_balancer(tmp_path, "-u", server.address, *options) as running:

            def measure(number: int, request: bytes) -> tuple[float, bytes]:
                time.sleep(number * 0.031)
                begun = time.monotonic()
                with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as client:
                    client.sendall(request)
                    status = client.recv(13)
                    return time.monotonic() - begun, status

            with ThreadPoolExecutor(CLIENTS) as executor:
                for request, expected in cases.items():
                    results = executor.map(measure, range(CLIENTS), [request] * CLIENTS)
                    for seconds, status in results:
                        assert status == expected
                        assert limit <= seconds <= limit * 1.25 + SLACK


def test_idle_timeout_is_not_early(tmp_path: Path) -> None:
    """A keep-alive connection stays open for the idle timeout after its last response."""
    limit = 0.8
    with ScriptedServer(respond_with("one")) as server:
        options = ("-u", server.address, f"--idle-timeout={limit}")
        with run_balancer(tmp_path, *options) as running:

            def measure(number: int) -> float:
                time.sleep(number * 0.031)
                with socket.create_connection(("127.0.0.1", running.port), TIMEOUT) as client:
                    begun = time.monotonic()
                    client.sendall(GET)
                    assert read_all(client).endswith(b"one")
                    return time.monotonic() - begun

            with ThreadPoolExecutor(CLIENTS) as executor:
                for seconds in executor.map(measure, range(CLIENTS)):
                    assert limit <= seconds <= limit * 1.25 + SLACK


@pytest.mark.parametrize("requests", [1, 12])
def test_client_that_waits_is_admitted(tmp_path: Path, requests: int) -> None:
    """A client that waits a window after its last admitted request is never rejected."""
    with ScriptedServer(respond_with("one")) as server:
        file = tmp_path / "balancer.toml"
        file.write_text(
            f'[[frontend]]\nbind = ["127.0.0.1:{free_port()}"]\npool = "app"\n'
            f"limit = [{{requests = {requests}, per = 1}}]\n"
            f'[[pool]]\nname = "app"\nupstreams = ["{server.address}"]\n'
        )
        with run_balancer(tmp_path, "-c", str(file)) as running:
            for _ in range(3):
                answer = get(running.port)
                assert answer.startswith(b"HTTP/1.1 200 ")
                while answer.startswith(b"HTTP/1.1 200 "):
                    used_up_at = time.monotonic()
                    answer = get(running.port)
                assert answer.startswith(b"HTTP/1.1 429 ")
                assert b"\r\nRetry-After: 1\r\n" in answer
                time.sleep(used_up_at + 1 - time.monotonic())
