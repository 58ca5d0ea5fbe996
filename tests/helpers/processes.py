"""The program as its users start it, and small servers for it, on real sockets."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TIMEOUT = 20.0

TWISTD = str(Path(sys.executable).with_name("twistd"))


def free_port() -> int:
    """A port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """Wait until `condition` is true. Raises `TimeoutError`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        threading.Event().wait(0.02)


class BalancerProcess:
    """A running balancer."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.port = free_port()
        self.output = folder / "output.txt"
        self._file = open(self.output, "wb")  # noqa: SIM115
        bind = ("--bind", f"127.0.0.1:{self.port}")
        self.process = subprocess.Popen(
            [TWISTD, "-n", "--pidfile=", "balancebeam", *bind, *options],
            cwd=folder,
            stdout=self._file,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until(self._listens)
            wait_until(self._handles_signals)
        except TimeoutError:
            self.stop()
            raise

    def _listens(self) -> bool:
        assert self.process.poll() is None, self.output.read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def _handles_signals(self) -> bool:
        """Whether its handlers are in place, of which that of SIGUSR2 comes last."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGUSR2 - 1) & 1)

    def connect(self) -> socket.socket:
        """A new connection of a client."""
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT)

    def fd_count(self) -> int:
        """How many descriptors it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self) -> int:
        """Its resident memory in octets."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """End it; its status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self._file.close()
        return status


@contextlib.contextmanager
def run_balancer(folder: Path, *options: str) -> Iterator[BalancerProcess]:
    """A balancer that must end well, and must have logged no error."""
    running = BalancerProcess(folder, *options)
    try:
        yield running
    finally:
        status = running.stop()
    text = running.output.read_text()
    assert status == 0, text
    assert "Traceback" not in text, text
    assert "#error" not in text, text
    assert "#critical" not in text, text


class ScriptedServer:
    """
    A server with a script: `serve(connection, number)` is called in a thread
    of its own for each connection. Its socket is closed afterwards.
    """

    def __init__(self, serve: Callable[[socket.socket, int], None], port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.connections = 0
        self._serve = serve
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(
                target=self._run, args=(connection, self.connections), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, connection: socket.socket, number: int) -> None:
        connection.settimeout(TIMEOUT)
        with connection, contextlib.suppress(OSError):
            self._serve(connection, number)

    def close(self) -> None:
        """Accept no more."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(TIMEOUT)

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *arguments: object) -> None:
        self.close()


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """A head up to its empty line, and what came behind it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError(f"ended after {data!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def read_all(connection: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return data
        data += more


def respond_with(name: str) -> Callable[[socket.socket, int], None]:
    """Serves a small page with the server's name, as often as it is asked."""
    body = name.encode()
    page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def serve(connection: socket.socket, number: int) -> None:
        while True:
            read_head(connection)
            connection.sendall(page)

    return serve
