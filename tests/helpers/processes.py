"""Balancer processes and threaded servers for tests on real sockets."""

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

# Seconds that a test waits for anything: far longer than any step takes on a loaded machine.
TIMEOUT = 20.0

# The programs of the virtual environment that runs the tests.
TWISTD = str(Path(sys.executable).with_name("twistd"))
BALANCEBEAM = str(Path(sys.executable).with_name("balancebeam"))


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def accepts_connections(port: int) -> bool:
    """Return whether a TCP connection to `port` of 127.0.0.1 is accepted."""
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    return False


def wait_until(condition: Callable[[], Any], timeout: float = TIMEOUT) -> Any:
    """
    Poll `condition` every 20 ms until it returns a true value; return that value.

    Raises:
        TimeoutError: it did not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(condition)
        threading.Event().wait(0.02)


class BalancerProcess:
    """
    A balancer in a process of its own, started by `twistd -n balancebeam`.

    Attributes:
        port: TCP port of 127.0.0.1 that it listens on.
        output: file with its stdout and stderr.
        process: the process.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        """Start it in `folder` with these command-line options, and wait until it is ready."""
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
        """Whether the port accepts connections; fails if the process has exited."""
        assert self.process.poll() is None, self.output.read_text()
        return accepts_connections(self.port)

    def _handles_signals(self) -> bool:
        """Whether its signal handlers are installed; the one of SIGUSR2 is the last."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        caught = int(status.partition("SigCgt:")[2].split()[0], 16)
        return bool(caught >> (signal.SIGUSR2 - 1) & 1)

    def connect(self) -> socket.socket:
        """Open a client connection."""
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT)

    def fd_count(self) -> int:
        """Return the number of open file descriptors."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def resident_bytes(self) -> int:
        """Return the resident set size in bytes."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> int:
        """Terminate it by SIGTERM, or SIGKILL after `TIMEOUT`; return its exit status."""
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
    """Run a balancer; assert that it exits with status 0 and has logged no error."""
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
    A server whose behaviour is a function.

    `serve(connection, number)` is called in a new thread for each connection, of which the
    first has number 1; the connection is closed when it returns.

    Attributes:
        port: TCP port of 127.0.0.1 that it listens on.
        address: "127.0.0.1:" and the port.
        connections: number of connections accepted so far.
    """

    def __init__(self, serve: Callable[[socket.socket, int], None], port: int = 0) -> None:
        """Listen on `port`, by default on a free one, and start to accept."""
        self._listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.connections = 0
        self._serve = serve
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def _accept(self) -> None:
        """Accept connections until the listener is closed."""
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
        """Serve one connection, and close it; an OSError ends it early."""
        connection.settimeout(TIMEOUT)
        with connection, contextlib.suppress(OSError):
            self._serve(connection, number)

    def close(self) -> None:
        """Close the listener; established connections are left open."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(TIMEOUT)

    def __enter__(self) -> ScriptedServer:
        """Return the server, which already listens."""
        return self

    def __exit__(self, *arguments: object) -> None:
        """Close the listener."""
        self.close()


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """
    Read one message head.

    Returns:
        The head including its empty line, and the bytes received after it.

    Raises:
        ConnectionError: the connection was closed before the end of the head.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError(f"ended after {data!r}")
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def read_all(connection: socket.socket) -> bytes:
    """Read until the peer closes its direction."""
    data = b""
    while True:
        more = connection.recv(65536)
        if not more:
            return data
        data += more


def respond_with(name: str) -> Callable[[socket.socket, int], None]:
    """Return a `serve` function that answers every request with 200 and the body `name`."""
    body = name.encode()
    page = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    def serve(connection: socket.socket, number: int) -> None:
        """Answer every request of a connection."""
        while True:
            read_head(connection)
            connection.sendall(page)

    return serve
