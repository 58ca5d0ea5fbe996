"""TLS with clients, by a real process."""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import ssl
import threading
import time
from pathlib import Path

import pytest
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import ServerConnection, serve

from tests.helpers.certificates import shared_authority
from tests.helpers.http_client import GET, GET_CLOSE
from tests.helpers.processes import (
    TIMEOUT,
    BalancerProcess,
    ScriptedServer,
    read_all,
    read_head,
    run_balancer,
    wait_until,
)
from tests.helpers.tls_peer import client_context, client_hello, pieces
from tests.helpers.upgrade import UPGRADE_REQUEST, UPGRADE_RESPONSE

LARGE = os.urandom(5_000_000)


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A file with a certificate for localhost and its key."""
    return shared_authority().issue("localhost").write_file(tmp_path / "pair.pem")


def connect(running: BalancerProcess) -> ssl.SSLSocket:
    """Open a client connection, and complete its handshake."""
    return client_context().wrap_socket(running.connect(), server_hostname="localhost")


def get(running: BalancerProcess) -> bytes:
    """Send one request on a new connection; return the response."""
    with connect(running) as client:
        client.sendall(GET_CLOSE)
        return read_all(client)


def store(connection: socket.socket, number: int) -> None:
    """Respond to uploads with the hash of the body, and to other requests with `LARGE`."""
    while True:
        head, body = read_head(connection)
        if head.startswith(b"PUT"):
            while len(body) < len(LARGE):
                body += connection.recv(65536)
            content = hashlib.sha256(body).hexdigest().encode()
        else:
            content = LARGE
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content
        )


def echo(connection: socket.socket, number: int) -> None:
    """Return every byte, and close the connection after EOF."""
    while data := connection.recv(65536):
        connection.sendall(data)


def read_body(client: socket.socket, length: int) -> bytes:
    """Read one response with a body of `length` bytes; return the body."""
    _, body = read_head(client)
    while len(body) < length:
        more = client.recv(65536)
        assert more
        body += more
    return body


def test_requests_and_bodies(tmp_path: Path, certificate: str, server_one: ScriptedServer) -> None:
    """Keep-alive, pipelining, and bodies of 5 MB in both directions."""
    options = ("--tls", certificate, "-u", server_one.address)
    with run_balancer(tmp_path, *options) as running, connect(running) as client:
        assert client.selected_alpn_protocol() is None
        for _ in range(3):
            client.sendall(GET)
            assert read_body(client, 3) == b"one"
        client.sendall(GET * 10 + GET_CLOSE)
        assert read_all(client).count(b"one") == 11
    with ScriptedServer(store) as server:
        options = ("--tls", certificate, "-u", server.address)
        with run_balancer(tmp_path, *options) as running, connect(running) as client:
            client.sendall(GET)
            assert read_body(client, len(LARGE)) == LARGE
            client.sendall(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
            client.sendall(LARGE)
            assert read_body(client, 64) == hashlib.sha256(LARGE).hexdigest().encode()


def test_websocket(tmp_path: Path, certificate: str) -> None:
    """Messages of a WebSocket over TLS are forwarded in both directions."""

    def handle(connection: ServerConnection) -> None:
        """Return every message."""
        for message in connection:
            connection.send(message)

    server = serve(handle, "127.0.0.1", 0, compression=None, max_size=None)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        address = f"127.0.0.1:{server.socket.getsockname()[1]}"
        with run_balancer(tmp_path, "--tls", certificate, "-u", address) as running:
            # The client reads and writes in two threads. A ticket after the handshake, as TLS 1.3
            # sends it, can then stop its first write: in 1 of 1000 connections.
            context = client_context()
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            with connect_websocket(
                f"wss://localhost:{running.port}/",
                sock=running.connect(),
                ssl=context,
                compression=None,
                max_size=None,
            ) as client:
                for size in (0, 1, 65536, 1 << 20):
                    message = os.urandom(size)
                    client.send(message)
                    assert client.recv(TIMEOUT) == message
    finally:
        server.shutdown()
        thread.join(TIMEOUT)


def test_half_close_of_a_tunnel(tmp_path: Path, certificate: str) -> None:
    """The close_notify of a client is a FIN for the server, whose last bytes still arrive."""

    def upgrade(connection: socket.socket, number: int) -> None:
        """Accept an upgrade, and send what was received after EOF."""
        _, rest = read_head(connection)
        connection.sendall(UPGRADE_RESPONSE)
        connection.sendall(b"all of " + rest + read_all(connection))

    with ScriptedServer(upgrade) as server:
        options = ("--tls", certificate, "-u", server.address)
        with run_balancer(tmp_path, *options) as running, running.connect() as raw:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
            received = b""

            def step(call: str, *arguments: object) -> object:
                """Call a method of the engine until it has enough input."""
                while True:
                    try:
                        result = getattr(client, call)(*arguments)
                    except ssl.SSLWantReadError:
                        raw.sendall(outgoing.read())
                        incoming.write(raw.recv(65536))
                    else:
                        raw.sendall(outgoing.read())
                        return result

            step("do_handshake")
            step("write", UPGRADE_REQUEST)
            while b"\r\n\r\n" not in received:
                received += bytes(step("read", 65536))  # type: ignore[call-overload]
            step("write", b"it")
            with contextlib.suppress(ssl.SSLWantReadError):
                client.unwrap()
            raw.sendall(outgoing.read())
            received = b""
            with contextlib.suppress(ssl.SSLZeroReturnError):
                while data := bytes(step("read", 65536)):  # type: ignore[call-overload]
                    received += data
            assert received == b"all of it"


def test_slow_reader(tmp_path: Path, certificate: str) -> None:
    """A client that does not read stops the server; the memory of the process is bounded."""
    sent = 0

    def flood(connection: socket.socket, number: int) -> None:
        """Send 200 MB."""
        nonlocal sent
        read_head(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        connection.settimeout(1)
        for _ in range(2000):
            connection.sendall(bytes(100_000))
            sent += 100_000

    with ScriptedServer(flood) as server:
        options = ("--tls", certificate, "-u", server.address)
        with run_balancer(tmp_path, *options) as running, connect(running) as client:
            before = running.resident_bytes()
            client.sendall(GET)
            client.recv(10)
            previous = -1
            while previous != sent:
                previous = sent
                time.sleep(0.3)
            assert sent < 50_000_000
            assert running.resident_bytes() - before < 5_000_000


def test_tcp_mode(tmp_path: Path, certificate: str) -> None:
    """Plaintext is relayed in TCP mode, with half-closes; plain text is answered with an alert."""
    with ScriptedServer(echo) as server:
        options = ("--mode", "tcp", "--tls", certificate, "-u", server.address)
        with run_balancer(tmp_path, *options) as running:
            with connect(running) as client:
                sender = threading.Thread(target=client.sendall, args=(LARGE,))
                sender.start()
                received = b""
                while len(received) < len(LARGE):
                    received += client.recv(65536)
                sender.join(TIMEOUT)
                assert received == LARGE
                with contextlib.suppress(ssl.SSLWantReadError):
                    client.unwrap()
            with running.connect() as raw:
                raw.sendall(b"SSH-2.0-test\r\n")
                assert read_all(raw) == b"\x15\x03\x03\x00\x02\x02\x0a"


def test_hostile_clients(tmp_path: Path, certificate: str, server_one: ScriptedServer) -> None:
    """
    Fragments, other protocols and stalled handshakes harm no other client.

    300 handshakes stall before and after their ClientHello; all end at the header timeout.
    """
    options = ("--tls", certificate, "-u", server_one.address, "--header-timeout", "3")
    with run_balancer(tmp_path, *options) as running:
        assert get(running).endswith(b"one")
        with running.connect() as raw:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces(client_hello("localhost"), (1, 2, 3, 50)):
                raw.sendall(piece)
            # The first byte of ServerHello.
            assert raw.recv(1) == b"\x16"
        with running.connect() as raw:
            raw.sendall(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n" + bytes(1000))
            assert b"TLS port" in read_all(raw)
        with contextlib.ExitStack() as stack:
            before = running.resident_bytes()
            stalled = []
            for number in range(300):
                raw = stack.enter_context(running.connect())
                raw.sendall(client_hello()[: (0, 1, 100, None)[number % 4]])
                stalled.append(raw)
                if number % 100 == 0:
                    assert get(running).endswith(b"one")
            assert (running.resident_bytes() - before) / 300 < 100_000
            for raw in stalled:
                with contextlib.suppress(ConnectionError):
                    read_all(raw)
        wait_until(lambda: running.fd_count() < 40)
        assert get(running).endswith(b"one")


def test_renegotiation(tmp_path: Path, certificate: str, server_one: ScriptedServer) -> None:
    """A renegotiation in TLS 1.2 is refused, and other clients are served."""
    crypto = pytest.importorskip("OpenSSL.SSL")
    options = ("--tls", certificate, "-u", server_one.address)
    with run_balancer(tmp_path, *options) as running:
        context = crypto.Context(crypto.TLS_CLIENT_METHOD)
        context.set_max_proto_version(crypto.TLS1_2_VERSION)
        with running.connect() as raw:
            raw.settimeout(None)
            client = crypto.Connection(context, raw)
            client.set_tlsext_host_name(b"localhost")
            client.set_connect_state()
            client.do_handshake()
            assert client.renegotiate()
            with pytest.raises(crypto.Error):
                client.do_handshake()
        assert get(running).endswith(b"one")
