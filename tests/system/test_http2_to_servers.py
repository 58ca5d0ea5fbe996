"""HTTP/2 to servers on real sockets, with the `h2` library as server."""

from __future__ import annotations

import contextlib
import random
import socket
import ssl
from functools import partial
from pathlib import Path

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, WindowUpdated

from tests.helpers.certificates import shared_authority, write
from tests.helpers.processes import TIMEOUT, ScriptedServer, read_all, run_balancer
from tests.helpers.tls_server import server_context

# Many windows of a stream, and more than a socket buffers.
SIZE = 1_000_000


class EchoServer:
    """Returns the content of each request on one connection, once it is complete."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.received: dict[int, bytes] = {}
        self.pending: dict[int, bytes] = {}

    def run(self) -> None:
        """Serve until the balancer closes the connection."""
        self.h2.initiate_connection()
        self.connection.sendall(self.h2.data_to_send())
        while data := self.connection.recv(65536):
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    self.received[event.stream_id] = b""
                elif isinstance(event, DataReceived):
                    self.received[event.stream_id] += event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    stream_id = event.stream_id
                    self.h2.send_headers(stream_id, [(":status", "200")])
                    self.pending[stream_id] = self.received.pop(stream_id)
                if isinstance(event, (StreamEnded, WindowUpdated)):
                    self.send_pending()
            self.connection.sendall(self.h2.data_to_send())

    def send_pending(self) -> None:
        """Send what the windows allow."""
        for stream_id in list(self.pending):
            while stream_id in self.pending:
                content = self.pending[stream_id]
                size = min(self.h2.local_flow_control_window(stream_id), 16384)
                if content and not size:
                    break
                last = size >= len(content)
                self.h2.send_data(stream_id, content[:size], end_stream=last)
                self.pending[stream_id] = content[size:]
                if last:
                    del self.pending[stream_id]


def serve(connection: socket.socket, number: int) -> None:
    """Serve with prior knowledge."""
    EchoServer(connection).run()


def serve_tls(context: ssl.SSLContext, connection: socket.socket, number: int) -> None:
    """Serve over TLS, if ALPN selects h2."""
    with context.wrap_socket(connection, server_side=True) as tls:
        if tls.selected_alpn_protocol() == "h2":
            with contextlib.suppress(ssl.SSLError):
                EchoServer(tls).run()


def echo(port: int, payload: bytes) -> bytes:
    """Send `payload` in a request of HTTP/1.0; return the body of the response."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as client:
        head = b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(payload)
        client.sendall(head + payload)
        head, _, body = read_all(client).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
        return body


def test_prior_knowledge(tmp_path: Path) -> None:
    """A long body arrives intact in both directions; all requests share one connection."""
    payload = random.Random(1).randbytes(SIZE)
    connections: list[int] = []

    def count(connection: socket.socket, number: int) -> None:
        connections.append(number)
        serve(connection, number)

    with ScriptedServer(count) as server:
        option = f"127.0.0.1:{server.port},protocol=h2"
        with run_balancer(tmp_path, "-u", option) as running:
            assert echo(running.port, payload) == payload
            for number in range(20):
                assert echo(running.port, b"%d" % number) == b"%d" % number
    assert len(connections) == 1


def test_tls(tmp_path: Path) -> None:
    """The same over TLS, where ALPN selects h2."""
    payload = random.Random(2).randbytes(SIZE)
    context = server_context(tmp_path / "server.pem", shared_authority().issue("localhost"))
    context.set_alpn_protocols(["h2"])
    ca = write(tmp_path / "ca.pem", shared_authority().root)
    with ScriptedServer(partial(serve_tls, context)) as server:
        option = f"https://localhost:{server.port},protocol=h2"
        with run_balancer(tmp_path, "-u", option, "--upstream-ca", ca) as running:
            assert echo(running.port, payload) == payload
            assert echo(running.port, b"again") == b"again"
