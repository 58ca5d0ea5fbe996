"""Limits of file descriptors and of connections, with the program and real sockets."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import threading
from pathlib import Path

from tests.helpers.processes import (
    ScriptedServer,
    read_head,
    respond_with,
    run_balancer,
    wait_until,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def status_of(port: int, results: list[bytes]) -> None:
    """Send one request on a new connection, and record the status line."""
    with socket.create_connection(("127.0.0.1", port), 20) as client:
        client.sendall(GET)
        results.append(read_head(client)[0].split(b"\r\n")[0])


def test_soft_limit_is_raised(tmp_path: Path) -> None:
    """The soft limit of open files is the hard limit after the start."""
    with ScriptedServer(respond_with("a")) as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        try:
            with run_balancer(tmp_path, "-u", server.address) as running:
                assert resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE) == (hard, hard)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_more_clients_than_descriptors(tmp_path: Path) -> None:
    """All clients are answered, one after the other, and no server is ejected."""
    with (
        ScriptedServer(respond_with("a")) as server,
        run_balancer(tmp_path, "-u", server.address) as running,
    ):
        resource.prlimit(running.process.pid, resource.RLIMIT_NOFILE, (64, 64))
        results: list[bytes] = []
        threads = [
            threading.Thread(target=status_of, args=(running.port, results)) for _ in range(100)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert results == [b"HTTP/1.1 200 OK"] * 100
        assert "ejected" not in running.output.read_text()


def test_max_connections(tmp_path: Path) -> None:
    """Clients above `max_connections` wait in the listen queue; a reload raises the limit."""
    with ScriptedServer(respond_with("a")) as server:
        config = tmp_path / "balancer.toml"
        text = '[[frontend]]\nbind = "127.0.0.1:{port}"\npool = "app"\nmax_connections = {limit}\n'
        text += f'[[pool]]\nname = "app"\nupstreams = ["{server.address}"]\n'
        config.write_text(text.format(port=1, limit=2))
        with run_balancer(tmp_path, "-c", str(config)) as running:
            clients = [running.connect() for _ in range(5)]
            for client in clients:
                client.sendall(GET)
                client.settimeout(0.5)

            def answered() -> int:
                count = 0
                for client in clients:
                    with contextlib.suppress(OSError):
                        count += bool(client.recv(65536, socket.MSG_PEEK))
                return count

            assert answered() == 2
            for client in clients[:2]:
                client.close()
            del clients[:2]
            wait_until(lambda: answered() == 2)
            config.write_text(text.format(port=running.port, limit=3))
            os.kill(running.process.pid, 1)
            wait_until(lambda: answered() == 3)
            for client in clients:
                client.close()
