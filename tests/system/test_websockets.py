"""WebSockets through a balancer, with client and server of the `websockets` library."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from tests.helpers.processes import TIMEOUT, run_balancer


@contextlib.contextmanager
def websocket_server(handle: Callable[[ServerConnection], None]) -> Iterator[int]:
    """Run a WebSocket server in a thread; yield its port."""
    server = serve(handle, "127.0.0.1", 0, compression=None, max_size=None)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        thread.join(TIMEOUT)


def echo(connection: ServerConnection) -> None:
    """Return every message."""
    for message in connection:
        connection.send(message)


def test_messages_in_both_directions(tmp_path: Path) -> None:
    """Messages of every length encoding, text, and ping with pong are forwarded."""
    with websocket_server(echo) as port:
        with run_balancer(tmp_path, "--upstream", f"127.0.0.1:{port}") as running:
            with connect(
                f"ws://127.0.0.1:{running.port}/chat", compression=None, max_size=None
            ) as client:
                for size in (0, 1, 125, 126, 65535, 65536, 3 << 20):
                    message = os.urandom(size)
                    client.send(message)
                    assert client.recv(TIMEOUT) == message
                client.send("text")
                assert client.recv(TIMEOUT) == "text"
                client.ping().wait(TIMEOUT)


def test_compression_and_subprotocol(tmp_path: Path) -> None:
    """Extension and subprotocol are negotiated end to end."""
    server = serve(echo, "127.0.0.1", 0, subprotocols=["chat.v1"])  # type: ignore[list-item]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        port = server.socket.getsockname()[1]
        with run_balancer(tmp_path, "--upstream", f"127.0.0.1:{port}") as running:
            with connect(
                f"ws://127.0.0.1:{running.port}/",
                subprotocols=["chat.v1"],  # type: ignore[list-item]
            ) as client:
                assert client.subprotocol == "chat.v1"
                client.send("a" * 100000)
                assert client.recv(TIMEOUT) == "a" * 100000
    finally:
        server.shutdown()
        thread.join(TIMEOUT)


def test_server_sends_first(tmp_path: Path) -> None:
    """A message of the server is forwarded before any of the client, and its close code too."""

    def greet(connection: ServerConnection) -> None:
        """Send a message, then expect one."""
        connection.send("hello")
        assert connection.recv(TIMEOUT) == "bye"

    with websocket_server(greet) as port:
        with run_balancer(tmp_path, "--upstream", f"127.0.0.1:{port}") as running:
            with connect(f"ws://127.0.0.1:{running.port}/") as client:
                assert client.recv(TIMEOUT) == "hello"
                client.send("bye")
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(TIMEOUT)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1000


def test_rejected_upgrade(tmp_path: Path) -> None:
    """A rejected upgrade is answered with the server's error status."""
    with websocket_server(echo) as port:
        with run_balancer(tmp_path, "--upstream", f"127.0.0.1:{port}") as running:
            with pytest.raises(InvalidStatus) as rejected:
                connect(
                    f"ws://127.0.0.1:{running.port}/",
                    additional_headers={"Sec-WebSocket-Version": "99"},
                )
            assert rejected.value.response.status_code in (400, 426)


def test_server_disconnect_closes_client(tmp_path: Path) -> None:
    """The client's connection is closed when the server closes its socket without a close frame."""

    def disconnect(connection: ServerConnection) -> None:
        """Close the socket after the first message."""
        connection.recv(TIMEOUT)
        connection.socket.close()

    with websocket_server(disconnect) as port:
        with run_balancer(tmp_path, "--upstream", f"127.0.0.1:{port}") as running:
            with connect(f"ws://127.0.0.1:{running.port}/") as client:
                client.send("x")
                with pytest.raises(ConnectionClosed):
                    client.recv(TIMEOUT)


def test_concurrent_connections(tmp_path: Path) -> None:
    """Thirty concurrent WebSockets each receive their own messages."""
    with websocket_server(echo) as port:
        with run_balancer(tmp_path, "--upstream", f"127.0.0.1:{port}") as running:
            with contextlib.ExitStack() as stack:
                clients = [
                    stack.enter_context(connect(f"ws://127.0.0.1:{running.port}/{number}"))
                    for number in range(30)
                ]
                for number, client in enumerate(clients):
                    client.send(str(number))
                for number, client in enumerate(clients):
                    assert client.recv(TIMEOUT) == str(number)
