"""HTTP/2 with clients, by a real process."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from websockets.sync.server import ServerConnection, serve

from tests.helpers.certificates import shared_authority
from tests.helpers.configured_balancer import config, run_configured_balancer
from tests.helpers.http_client import GET_CLOSE
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    run_balancer,
    wait_until,
)
from tests.helpers.tls_peer import client_context

CURL = shutil.which("curl")
NEEDS_CURL = pytest.mark.skipif(CURL is None, reason="curl is not installed")
CONTENT = os.urandom(300_000)


def respond(connection: socket.socket, number: int) -> None:
    """Respond to uploads with the hash of the body, and to other requests with `CONTENT`."""
    while True:
        head, body = read_head(connection)
        content = CONTENT
        if head.startswith(b"PUT"):
            while len(body) < len(CONTENT):
                body += connection.recv(65536)
            content = hashlib.sha256(body).hexdigest().encode()
        elif head.startswith(b"GET /slow"):
            threading.Event().wait(2.5)
        elif head.startswith(b"GET /small"):
            content = b"small"
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
        )


class Client:
    """A client of the `h2` library on a socket."""

    def __init__(self, connection: socket.socket) -> None:
        """Begin a connection on an open socket."""
        self.socket = connection
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="latin-1"))
        self.content: dict[int, bytes] = {}
        self.status: dict[int, str] = {}
        self.ended: set[int] = set()
        self.goaway = False
        self._buffer = b""
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)
        self.send()

    def send(self) -> None:
        """Send what the library has to send."""
        self.socket.sendall(self.h2.data_to_send())

    def request(self, path: str, *fields: tuple[str, str], method: str = "GET") -> int:
        """Send a request, without a body unless it is a CONNECT; return its stream."""
        stream: int = self.h2.get_next_available_stream_id()
        base = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
        self.h2.send_headers(stream, [*base, *fields], end_stream=method == "GET")
        self.send()
        return stream

    def wait(self, condition: Callable[[], Any]) -> None:
        """Receive until `condition` is true."""
        while not condition():
            data = self.socket.recv(65536)
            assert data, "connection closed"
            self._buffer += data
            while len(self._buffer) >= 9:
                end = 9 + int.from_bytes(self._buffer[:3], "big")
                frame, self._buffer = self._buffer[:end], self._buffer[end:]
                if len(frame) < end:
                    self._buffer = frame
                    break
                if frame[3] == 7:
                    # The library would not accept anything after it.
                    assert frame[13:17] == bytes(4), frame
                    self.goaway = True
                    continue
                for event in self.h2.receive_data(frame):
                    self._handle(event)
                self.send()

    def _handle(self, event: Any) -> None:
        if isinstance(event, ResponseReceived):
            fields: dict[Any, Any] = dict(event.headers)
            self.status[event.stream_id] = fields[":status"]
        elif isinstance(event, DataReceived):
            known = self.content.get(event.stream_id, b"")
            self.content[event.stream_id] = known + event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.add(event.stream_id)
        else:
            assert not isinstance(event, StreamReset), event

    def get(self, path: str) -> bytes:
        """Send a request; return the content of the response."""
        stream = self.request(path)
        self.wait(lambda: stream in self.ended)
        assert self.status[stream] == "200"
        return self.content[stream]


def curl(*arguments: str) -> bytes:
    """Run curl; return its output."""
    assert CURL is not None
    command = [CURL, "--silent", "--show-error", "--max-time", "20", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=30).stdout


def connect(address: int | str) -> socket.socket:
    """Connect to a port of 127.0.0.1, or to a Unix socket."""
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address), TIMEOUT)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(TIMEOUT)
    connection.connect(address)
    return connection


def h2c_config(server: str, *binds: str) -> str:
    """Return a configuration file for HTTP/2 with prior knowledge."""
    pool = '[[pool]]\nname = "app"'
    return config(server, *binds).replace(pool, f"h2c = true\n{pool}")


@NEEDS_CURL
def test_curl_with_prior_knowledge(tmp_path: Path) -> None:
    """GET, POST, upload and download of curl, beside HTTP/1.1 on the same port."""
    upload = tmp_path / "upload"
    upload.write_bytes(CONTENT)
    with ScriptedServer(respond) as server:
        port = free_port()
        text = h2c_config(server.address, f"127.0.0.1:{port}")
        with run_configured_balancer(tmp_path, text, port):
            url = f"http://127.0.0.1:{port}/"
            version = "%{http_version}"
            assert curl("--http2-prior-knowledge", url) == CONTENT
            output = curl("--http2-prior-knowledge", "-T", str(upload), "-w", version, url)
            assert output == hashlib.sha256(CONTENT).hexdigest().encode() + b"2"
            assert curl("--http1.1", "-w", version, url + "small") == b"small1.1"


@NEEDS_CURL
def test_curl_with_alpn(tmp_path: Path) -> None:
    """Over TLS, ALPN selects HTTP/2; a client without ALPN gets HTTP/1.1."""
    authority = shared_authority()
    certificate = authority.issue("localhost").write_file(tmp_path / "pair.pem")
    with ScriptedServer(respond) as server:
        with run_balancer(tmp_path, "--tls", certificate, "-u", server.address) as running:
            url = f"https://localhost:{running.port}/small"
            options = ("--insecure", "-w", "%{http_version}")
            assert curl("--http2", *options, url) == b"small2"
            assert curl("--no-alpn", *options, url) == b"small1.1"
            context = client_context()
            context.set_alpn_protocols(["h2"])
            with context.wrap_socket(running.connect(), server_hostname="localhost") as raw:
                assert isinstance(raw, ssl.SSLSocket)
                assert raw.selected_alpn_protocol() == "h2"


def test_websocket(tmp_path: Path) -> None:
    """A WebSocket over HTTP/2 (RFC 8441) reaches a server of the `websockets` library."""

    def echo(connection: ServerConnection) -> None:
        """Return every message."""
        for message in connection:
            connection.send(message)

    server = serve(echo, "127.0.0.1", 0, compression=None)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = free_port()
        address = f"127.0.0.1:{server.socket.getsockname()[1]}"
        text = h2c_config(address, f"127.0.0.1:{port}")
        with run_configured_balancer(tmp_path, text):
            with wait_until(lambda: try_connect(port)) as raw:
                client = Client(raw)
                client.wait(lambda: client.h2.remote_settings.enable_connect_protocol)
                fields = ((":protocol", "websocket"), ("sec-websocket-version", "13"))
                stream = client.request("/chat", *fields, method="CONNECT")
                client.wait(lambda: stream in client.status)
                assert client.status[stream] == "200"
                # A text message "hello" with a mask of zeros, and its echo.
                client.h2.send_data(stream, b"\x81\x85\0\0\0\0hello")
                client.send()
                client.wait(lambda: len(client.content.get(stream, b"")) >= 7)
                assert client.content[stream] == b"\x81\x05hello"
                client.h2.send_data(stream, b"\x88\x80\0\0\0\0", end_stream=True)
                client.send()
                client.wait(lambda: stream in client.ended)
    finally:
        server.shutdown()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_drain_and_hot_restart_with_streams(tmp_path: Path, number: signal.Signals) -> None:
    """Requests in flight complete when the process drains or is replaced, with a GOAWAY."""
    port = free_port()
    with ScriptedServer(respond) as server:
        text = h2c_config(server.address, f"127.0.0.1:{port}")
        with run_configured_balancer(tmp_path, text, port) as balancer, connect(port) as raw:
            client = Client(raw)
            assert client.get("/small") == b"small"
            slow = client.request("/slow")
            # The request has arrived when the one behind it has its response.
            assert client.get("/small") == b"small"
            balancer.send(number)
            client.wait(lambda: client.goaway)
            # On its way when the GOAWAY was sent.
            assert client.get("/small") == b"small"
            client.wait(lambda: slow in client.ended)
            assert client.content[slow] == CONTENT
            if number == signal.SIGUSR2:
                with connect(port) as other:
                    assert Client(other).get("/small") == b"small"
            assert balancer.wait() == 0


def test_reload_with_streams(tmp_path: Path) -> None:
    """A reload leaves connections and streams alone, on Unix sockets and endpoints too."""
    port = free_port()
    path = str(tmp_path / "h2.sock")
    with ScriptedServer(respond) as server:
        binds = (f"unix:{path}", f"tcp:{port}:interface=127.0.0.1")
        text = h2c_config(server.address, *binds)
        with run_configured_balancer(tmp_path, text, path, port) as balancer:
            with connect(path) as first, connect(port) as second:
                clients = [Client(first), Client(second)]
                slow = [client.request("/slow") for client in clients]
                for client in clients:
                    assert client.get("/small") == b"small"
                balancer.send(signal.SIGHUP)
                wait_until(lambda: balancer.has_logged("reload"))
                for client, stream in zip(clients, slow):
                    assert client.get("/small") == b"small"
                    client.wait(lambda: stream in client.ended)  # noqa: B023
                    assert client.content[stream] == CONTENT
                    assert not client.goaway


def test_proxy_protocol_before_the_preface(tmp_path: Path) -> None:
    """A PROXY header comes before HTTP/2."""
    received: list[bytes] = []
    port = free_port()

    def record(connection: socket.socket, number: int) -> None:
        head, _ = read_head(connection)
        received.append(head)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with ScriptedServer(record) as server:
        text = h2c_config(server.address, f"haproxy:tcp:{port}:interface=127.0.0.1")
        with run_configured_balancer(tmp_path, text), wait_until(lambda: try_connect(port)) as raw:
            raw.sendall(b"PROXY TCP4 198.51.100.7 127.0.0.1 5000 80\r\n")
            assert Client(raw).get("/") == b"ok"
    assert b"X-Forwarded-For: 198.51.100.7\r\n" in received[0]


def try_connect(port: int) -> socket.socket | None:
    """Connect, or return `None` if nothing listens yet."""
    try:
        return connect(port)
    except ConnectionRefusedError:
        return None


def test_access_log_and_list_of_requests(tmp_path: Path) -> None:
    """Each stream is a request in the log and in the list of requests, cancelled ones too."""
    port, admin = free_port(), free_port()
    with ScriptedServer(respond) as server:
        text = h2c_config(server.address, f"127.0.0.1:{port}").replace(
            "h2c = true\n", 'h2c = true\naccess_log = "-"\naccess_log_format = "json"\n'
        )
        text += f'[admin]\nbind = "127.0.0.1:{admin}"\n'
        with run_configured_balancer(tmp_path, text, admin) as balancer:
            with wait_until(lambda: try_connect(port)) as raw:
                client = Client(raw)
                assert client.get("/small") == b"small"
                slow = client.request("/slow")
                assert client.get("/small?2") == b"small"
                client.h2.reset_stream(slow)
                client.send()
                wait_until(lambda: balancer.has_logged('"/slow"'))
            with connect(admin) as listing:
                host = b"127.0.0.1:%d" % admin
                listing.sendall(GET_CLOSE.replace(b"/ ", b"/requests ").replace(b"localhost", host))
                _, body = read_head(listing)
                body += read_all(listing)
            records = [
                json.loads(line)
                for line in balancer.log.read_text().splitlines()
                if line.startswith("{") and '"protocol"' in line
            ]
    by_target = {record["target"]: record for record in records}
    assert {record["protocol"] for record in records} == {"HTTP/2.0"}
    assert by_target["/small"]["status"] == 200
    assert by_target["/small"]["ended"] == "complete"
    assert by_target["/slow"]["ended"] == "client"
    assert b"/slow" in body
