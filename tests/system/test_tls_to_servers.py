"""TLS to servers on real sockets, with host names from the resolver."""

from __future__ import annotations

import hashlib
import random
import socket
import ssl
import threading
from functools import partial
from pathlib import Path

from tests.helpers.certificates import shared_authority, write
from tests.helpers.processes import TIMEOUT, ScriptedServer, read_all, run_balancer
from tests.helpers.tls_server import server_context

# More than the reads after which a flow without TLS is spliced.
SIZE = 3_000_000


def serve(context: ssl.SSLContext, connection: socket.socket, number: int) -> None:
    """Return every byte over TLS, and close the connection after the close_notify."""
    with context.wrap_socket(connection, server_side=True) as tls:
        while data := tls.recv(65536):
            tls.sendall(data)
        tls.unwrap()


def respond(context: ssl.SSLContext, connection: socket.socket, number: int) -> None:
    """Answer one request with the version of TLS, and close the connection."""
    with context.wrap_socket(connection, server_side=True) as tls:
        tls.recv(65536)
        version = str(tls.version()).encode()
        tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(version), version))


def test_tcp(tmp_path: Path) -> None:
    """A long flow to a `tls://` server arrives intact, in both directions; half-close works."""
    context = server_context(tmp_path / "server.pem", shared_authority().issue("localhost"))
    ca = write(tmp_path / "ca.pem", shared_authority().root)
    payload = random.Random(1).randbytes(SIZE)
    with ScriptedServer(partial(serve, context)) as server:
        port = server.port
        options = ("--mode", "tcp", "-u", f"tls://localhost:{port}", "--upstream-ca", ca)
        with run_balancer(tmp_path, *options) as running:
            response = exchange(running.port, payload)
    assert hashlib.sha256(response).digest() == hashlib.sha256(payload).digest()


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


def test_http(tmp_path: Path) -> None:
    """A server with `https://` is verified by its name; the log says which check has failed."""
    authority = shared_authority()
    ca = write(tmp_path / "ca.pem", authority.root)
    for name, status in (("localhost", b"200 OK"), ("other.example", b"502 Bad Gateway")):
        context = server_context(tmp_path / "server.pem", authority.issue(name))
        with ScriptedServer(partial(respond, context)) as server:
            port = server.port
            options = ("-u", f"https://localhost:{port}", "--upstream-ca", ca)
            with run_balancer(tmp_path, *options) as running:
                request = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                response = exchange(running.port, request)
        assert response.startswith(b"HTTP/1.1 " + status), response
        assert response.endswith(b"TLSv1.3") == (name == "localhost")
