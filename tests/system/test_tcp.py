"""TCP through the program, on real sockets."""

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
    """Sends back what comes, and ends when that does."""
    while data := connection.recv(65536):
        connection.sendall(data)


def exchange(port: int, payload: bytes) -> bytes:
    """Send `payload` and the end of the stream; all that comes back."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        sender = threading.Thread(target=_send, args=(client, payload))
        sender.start()
        answer = read_all(client)
        sender.join(TIMEOUT)
        return answer


def _send(client: socket.socket, payload: bytes) -> None:
    client.sendall(payload)
    client.shutdown(socket.SHUT_WR)


def test_bytes_come_back_as_they_were(tmp_path: Path) -> None:
    with ScriptedServer(echo) as one, ScriptedServer(echo) as two:
        options = ("--mode", "tcp", "-u", one.address, "-u", two.address)
        with run_balancer(tmp_path, *options) as running:
            failures: list[int] = []

            def run(number: int) -> None:
                payload = random.Random(number).randbytes(400_000 + number)
                answer = exchange(running.port, payload)
                if hashlib.sha256(answer).digest() != hashlib.sha256(payload).digest():
                    failures.append(number)

            threads = [threading.Thread(target=run, args=(number,)) for number in range(50)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            assert failures == []
            assert min(one.connections, two.connections) >= 25


def test_connections_cut_anywhere_leave_nothing_behind(tmp_path: Path) -> None:
    chance = random.Random(7)

    def cutting(connection: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError):
            for _ in range(chance.randrange(4)):
                connection.sendall(connection.recv(20_000))
        if chance.random() < 0.5:
            _reset(connection)

    with ScriptedServer(cutting) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            with contextlib.suppress(OSError):
                exchange(running.port, b"warm")
            before = _settled(running)
            for _ in range(1000):
                try:
                    client = running.connect()
                except ConnectionResetError:
                    # The server was quicker.
                    continue
                with contextlib.suppress(OSError):
                    for _ in range(chance.randrange(4)):
                        # Now and then enough to be spliced.
                        size = 2_000_000 if chance.random() < 0.02 else 30_000
                        client.sendall(bytes(chance.randrange(size)))
                    if chance.random() < 0.5:
                        client.settimeout(0.01)
                        client.recv(1000)
                if chance.random() < 0.5:
                    _reset(client)
                client.close()
            wait_until(lambda: running.fd_count() <= before)


def test_long_flows_in_both_directions(tmp_path: Path) -> None:
    def slow_echo(connection: socket.socket, number: int) -> None:
        # Full buffers everywhere: this one reads when it can no longer write.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 200_000)
        while data := connection.recv(100_000):
            connection.sendall(data)

    payload = random.Random(1).randbytes(1_000_003) * 4
    with ScriptedServer(slow_echo) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            answers: list[bytes] = []
            threads = [
                threading.Thread(
                    target=lambda: answers.append(exchange(running.port, payload)), daemon=True
                )
                for _ in range(4)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(TIMEOUT)
            assert [answer == payload for answer in answers] == [True] * 4


@pytest.mark.skipif(not hasattr(os, "splice"), reason="this Python has no splice")
def test_a_flow_that_was_long_needs_a_pipe_only_for_as_long(tmp_path: Path) -> None:
    with ScriptedServer(echo) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            with running.connect() as client:
                assert _ask(client, b"?") == b"?"
                before = _settled(running)
                for _ in range(4):
                    payload = os.urandom(1_000_000)
                    assert _ask(client, payload) == payload
                assert running.fd_count() == before + 4
                for number in range(50):
                    assert _ask(client, b"%d" % number) == b"%d" % number
                wait_until(lambda: running.fd_count() == before)
                assert _ask(client, payload) == payload


def _ask(client: socket.socket, payload: bytes) -> bytes:
    """Send `payload`, and as much of an answer."""
    sender = threading.Thread(target=client.sendall, args=(payload,))
    sender.start()
    answer = b""
    while len(answer) < len(payload):
        answer += client.recv(100_000)
    sender.join(TIMEOUT)
    return answer


def _reset(connection: socket.socket) -> None:
    """End it with a reset."""
    linger = struct.pack("ii", 1, 0)
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        connection.close()


def _settled(running: BalancerProcess) -> int:
    """How many descriptors it has once it rests."""
    counts: list[int] = []

    def same() -> bool:
        counts.append(running.fd_count())
        return len(counts) > 5 and len(set(counts[-5:])) == 1

    wait_until(same)
    return counts[-1]


def test_the_file_of_s3(tmp_path: Path) -> None:
    port = free_port()
    with ScriptedServer(echo) as one:
        path = tmp_path / "mini-balancer.local.toml"
        path.write_text(
            f'[frontend]\nbind_on = "127.0.0.1:{port}"\n\n'
            f'[[frontend.backend]]\nforward_to = "{one.address}"\n'
        )
        with run_balancer(tmp_path, "-c", str(path)) as running:
            # The command line's --bind replaces the file's.
            assert exchange(running.port, b"hello") == b"hello"
            wait_until(
                lambda: "5 bytes from client, 5 bytes from server" in running.output.read_text()
            )
            assert f"-> {one.address}: client closed" in running.output.read_text()


def test_resets_go_through_as_resets(tmp_path: Path) -> None:
    seen: list[str] = []

    def listen(connection: socket.socket, number: int) -> None:
        try:
            while connection.recv(1000):
                pass
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    with ScriptedServer(listen) as server:
        with run_balancer(tmp_path, "--mode", "tcp", "-u", server.address) as running:
            wait_until(lambda: seen == ["end"])
            client = running.connect()
            client.sendall(b"x")
            wait_until(lambda: server.connections == 2)
            _reset(client)
            wait_until(lambda: len(seen) == 2)
            assert seen[1] == "reset"


def test_nobody_there(tmp_path: Path) -> None:
    upstream = f"127.0.0.1:{free_port()}"
    with run_balancer(tmp_path, "--mode", "tcp", "-u", upstream, "-t", "0.2") as running:
        with running.connect() as client:
            assert read_all(client) == b""
        wait_until(lambda: "is down" in running.output.read_text())
        with running.connect() as client:
            assert read_all(client) == b""
