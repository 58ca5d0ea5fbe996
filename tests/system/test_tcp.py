"""TCP balancing by a real process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import socket
import struct
import threading
from pathlib import Path

import pytest

from tests.helpers.processes import (
    TIMEOUT,
    BalancerProcess,
    ScriptedServer,
    free_port,
    read_all,
    run_balancer,
    wait_until,
)


def echo(connection: socket.socket, number: int) -> None:
    """Return every byte, and close the connection after EOF."""
    while data := connection.recv(65536):
        connection.sendall(data)


def exchange(port: int, payload: bytes) -> bytes:
    """Send `payload` and half-close; return all bytes received until EOF."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        sender = threading.Thread(target=_send, args=(client, payload))
        sender.start()
        response = read_all(client)
        sender.join(TIMEOUT)
        return response


def _send(client: socket.socket, payload: bytes) -> None:
    """Send `payload`, then half-close."""
    client.sendall(payload)
    client.shutdown(socket.SHUT_WR)


def test_fifty_connections_at_once(tmp_path: Path) -> None:
    """Fifty concurrent connections are balanced, and their bytes forwarded unchanged."""
    with ScriptedServer(echo) as server_one, ScriptedServer(echo) as server_two:
        options = ("--mode", "tcp", "-u", server_one.address, "-u", server_two.address)
        with run_balancer(tmp_path, *options) as running:
            failures: list[int] = []

            def run(number: int) -> None:
                """Exchange one payload, and record a difference."""
                payload = random.Random(number).randbytes(400_000 + number)
                response = exchange(running.port, payload)
                if hashlib.sha256(response).digest() != hashlib.sha256(payload).digest():
                    failures.append(number)

            threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            assert failures == []
            assert min(server_one.connections, server_two.connections) >= 25


def test_no_descriptor_leak(tmp_path: Path) -> None:
    """Connections that either side closes or resets at any point leak no file descriptor."""
    rng = random.Random(7)

    def serve(connection: socket.socket, number: int) -> None:
        """Echo a few times, then close or reset the connection."""
        with contextlib.suppress(OSError):
            for _ in range(rng.randrange(4)):
                connection.sendall(connection.recv(20_000))
        if rng.random() < 0.5:
            _reset(connection)

    with ScriptedServer(serve) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            with contextlib.suppress(OSError):
                exchange(running.port, b"warm")
            before = _settled_fd_count(running)
            for _ in range(1000):
                try:
                    client = running.connect()
                except ConnectionResetError:
                    # The server's reset was forwarded before `connect` returned.
                    continue
                with contextlib.suppress(OSError):
                    for _ in range(rng.randrange(4)):
                        # Two in a hundred are large enough for splice().
                        size = 2_000_000 if rng.random() < 0.02 else 30_000
                        client.sendall(bytes(rng.randrange(size)))
                    if rng.random() < 0.5:
                        client.settimeout(0.01)
                        client.recv(1000)
                if rng.random() < 0.5:
                    _reset(client)
                client.close()
            wait_until(lambda: running.fd_count() <= before)


def test_long_flows_in_both_directions(tmp_path: Path) -> None:
    """Large payloads that fill the buffers in both directions are forwarded unchanged."""

    def slow_echo(connection: socket.socket, number: int) -> None:
        """Echo, and read only what could be written."""
        # A small receive buffer keeps all buffers full: nothing is read while a write blocks.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        while data := connection.recv(100_000):
            connection.sendall(data)

    payload = random.Random(1).randbytes(1_000_003) * 4
    with ScriptedServer(slow_echo) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            responses: list[bytes] = []
            threads = [
                threading.Thread(
                    target=lambda: responses.append(exchange(running.port, payload)), daemon=True
                )
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            assert [response == payload for response in responses] == [True] * 4


@pytest.mark.skipif(not hasattr(os, "splice"), reason="this Python has no splice")
def test_splice_pipes_are_released(tmp_path: Path) -> None:
    """Both directions of a large transfer use a pipe, which is closed when little data follows."""
    with ScriptedServer(echo) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            with running.connect() as client:
                assert _echo(client, b"?") == b"?"
                before = _settled_fd_count(running)
                for _ in range(4):
                    payload = os.urandom(1_000_000)
                    assert _echo(client, payload) == payload
                assert running.fd_count() == before + 4
                for number in range(50):
                    assert _echo(client, b"%d" % number) == b"%d" % number
                wait_until(lambda: running.fd_count() == before)
                assert _echo(client, payload) == payload


def _echo(client: socket.socket, payload: bytes) -> bytes:
    """Send `payload`; return as many bytes of the response."""
    sender = threading.Thread(target=client.sendall, args=(payload,))
    sender.start()
    response = b""
    while len(response) < len(payload):
        response += client.recv(100_000)
    sender.join(TIMEOUT)
    return response


def _reset(connection: socket.socket) -> None:
    """Close the connection by a reset."""
    linger = struct.pack("ii", 1, 0)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()


def _settled_fd_count(running: BalancerProcess) -> int:
    """Return the number of open file descriptors when it has been stable for five polls."""
    counts: list[int] = []

    def is_stable() -> bool:
        """Poll once more; return whether the last five counts are equal."""
        counts.append(running.fd_count())
        return len(counts) > 5 and len(set(counts[-5:])) == 1

    wait_until(is_stable)
    return counts[-1]


def test_mini_balancer_file(tmp_path: Path) -> None:
    """A mini-balancer file sets up a TCP balancer, which logs each connection."""
    port = free_port()
    with ScriptedServer(echo) as server:
        path = tmp_path / "mini-balancer.local.toml"
        path.write_text(
            f'[frontend]\nbind_on = "127.0.0.1:{port}"\n\n'
            f'[[frontend.backend]]\nforward_to = "{server.address}"\n'
        )
        with run_balancer(tmp_path, "-c", str(path)) as running:
            # --bind overrides the address in the file.
            assert exchange(running.port, b"hello") == b"hello"
            wait_until(
                lambda: "5 bytes from client, 5 bytes from server" in running.output.read_text()
            )
            assert f"-> {server.address}: client closed" in running.output.read_text()


def test_reset_is_forwarded(tmp_path: Path) -> None:
    """A client's reset reaches the server as a reset; a clean close as EOF."""
    endings: list[str] = []

    def serve(connection: socket.socket, number: int) -> None:
        """Read until the end of the connection, and record how it ended."""
        try:
            while connection.recv(1000):
                pass
            endings.append("EOF")
        except ConnectionResetError:
            endings.append("reset")

    with ScriptedServer(serve) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            wait_until(lambda: endings == ["EOF"])
            client = running.connect()
            client.sendall(b"x")
            wait_until(lambda: server.connections == 2)
            _reset(client)
            wait_until(lambda: len(endings) == 2)
            assert endings[1] == "reset"


def test_no_server_available(tmp_path: Path) -> None:
    """A client is disconnected when no server can be connected, or is known to be down."""
    upstream = f"127.0.0.1:{free_port()}"
    with run_balancer(tmp_path, "--mode", "tcp", "-u", upstream, "-t", "0.2") as running:
        with running.connect() as client:
            assert read_all(client) == b""
        wait_until(lambda: "is down" in running.output.read_text())
        with running.connect() as client:
            assert read_all(client) == b""
