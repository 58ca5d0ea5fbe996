"""The bytes in metrics and logs of a real process are exactly what its clients have counted."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from pathlib import Path

from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from tests.helpers.certificates import shared_authority
from tests.helpers.configured_balancer import run_configured_balancer
from tests.helpers.http_client import GET_CLOSE, get
from tests.helpers.metrics import parse_metrics, sample_key
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    free_port,
    read_all,
    read_head,
    wait_until,
)
from tests.helpers.tls_peer import client_context
from tests.helpers.upgrade import UPGRADE_REQUEST, UPGRADE_RESPONSE

# Long enough for splice(2), which begins after half a megabyte.
LARGE = os.urandom(1_000_001)

PROXY_HEADER = encode_proxy_header(2, ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 80))


class Meter:
    """
    Forwards connections to a TCP port, and counts their bytes.

    Attributes:
        port: Where clients connect.
        received: Bytes forwarded from clients.
        sent: Bytes forwarded to clients.
        open: Number of open connections.
        prefix: Bytes that are sent before the ones of the client.
    """

    def __init__(self, target: int, prefix: bytes = b"") -> None:
        self.received = self.sent = self.open = 0
        self.prefix = prefix
        self._target = target
        self._server = ScriptedServer(self._serve)
        self.port = self._server.port

    def _serve(self, client: socket.socket, number: int) -> None:
        """Forward until both sides have sent EOF."""
        self.open += 1
        with socket.create_connection(("127.0.0.1", self._target), TIMEOUT) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.sendall(self.prefix)
            self.received += len(self.prefix)
            upload = threading.Thread(target=self._forward, args=(client, server, "received"))
            upload.start()
            self._forward(server, client, "sent")
            upload.join(TIMEOUT)
        self.open -= 1

    def _forward(self, source: socket.socket, target: socket.socket, counter: str) -> None:
        """Forward one direction."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                setattr(self, counter, getattr(self, counter) + len(data))
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def connect(self) -> socket.socket:
        """Open a client connection."""
        return socket.create_connection(("127.0.0.1", self.port), TIMEOUT)

    def close(self) -> None:
        """Accept no more connections."""
        self._server.close()


def serve_http(connection: socket.socket, number: int) -> None:
    """Respond to GET with `LARGE`, in chunks to /chunked; to PUT with 2 bytes; echo tunnels."""
    while True:
        head, body = read_head(connection)
        if head.startswith(b"PUT"):
            while not body.endswith(b"\r\n0\r\n\r\n"):
                body += connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        elif b"Upgrade:" in head:
            connection.sendall(UPGRADE_RESPONSE)
            echo(connection, number)
            return
        elif b"/chunked" in head:
            connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.sendall(b"%x\r\n" % len(LARGE) + LARGE + b"\r\n0\r\n\r\n")
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(LARGE))
            connection.sendall(LARGE)


def echo(connection: socket.socket, number: int) -> None:
    """Return every byte until EOF."""
    while data := connection.recv(65536):
        connection.sendall(data)


CHUNKED_BODY = b"%x\r\n" % len(LARGE) + LARGE + b"\r\n0\r\n\r\n"
UPLOAD = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKED_BODY


def open_client(meter: Meter, tls: bool) -> socket.socket:
    """Open a client connection through `meter`, with its handshake."""
    client = meter.connect()
    return client_context().wrap_socket(client, server_hostname="localhost") if tls else client


def run_http_client(meter: Meter, tls: bool) -> list[tuple[int, int]]:
    """
    Exchange large bodies, send an invalid request, and use a tunnel.

    Returns:
        The bytes that the access log should have, in order.
    """
    with open_client(meter, tls) as client:
        # The last request, which is unreadable, follows the upload at once.
        client.sendall(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(client, LARGE[-100:])
        client.sendall(b"GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n")
        read_until(client, b"\r\n0\r\n\r\n")
        client.sendall(UPLOAD + b"GET / HTTP/9.9\r\nHost: a\r\n\r\n")
        error = read_all(client).partition(b" 505 ")[2].partition(b"\r\n\r\n")[2]
    with open_client(meter, tls) as client:
        client.sendall(UPGRADE_REQUEST)
        read_head(client)
        echo_through(client, LARGE, tls)
    return [
        (0, len(LARGE)),
        (0, len(LARGE)),
        (len(LARGE), 2),
        (0, len(error)),
        (len(LARGE), len(LARGE)),
    ]


def run_tcp_client(meter: Meter, tls: bool) -> list[tuple[int, int]]:
    """A long flow in both directions, the last part after a half-close without TLS."""
    with open_client(meter, tls) as client:
        echo_through(client, LARGE, tls)
        client.sendall(b"last")
        if not tls:
            # An `SSLSocket` cannot close one direction.
            client.shutdown(socket.SHUT_WR)
        assert client.recv(4, socket.MSG_WAITALL if not tls else 0) == b"last"
    return [(len(LARGE) + 4, len(LARGE) + 4)]


def read_until(client: socket.socket, end: bytes) -> None:
    """Read until the received bytes end with `end`."""
    tail = b""
    while not tail.endswith(end):
        data = client.recv(65536)
        assert data
        tail = (tail + data)[-len(end) :]


def echo_through(client: socket.socket, payload: bytes, tls: bool) -> None:
    """Send `payload`, and read as many bytes: at the same time without TLS."""
    # An `SSLSocket` must not be used by two threads: so in parts that fit into the buffers.
    size = 50_000 if tls else len(payload)
    for start in range(0, len(payload), size):
        part = payload[start : start + size]
        sender = threading.Thread(target=client.sendall, args=(part,))
        sender.start()
        if tls:
            sender.join(TIMEOUT)
        received = 0
        while received < len(part):
            received += len(client.recv(65536))
        sender.join(TIMEOUT)


# The pool, whether TLS is used, and the PROXY header, by frontend.
FRONTENDS = {
    "http": ("web", False, b""),
    "https": ("web", True, b""),
    "proxied": ("web", False, PROXY_HEADER),
    "proxied-tls": ("web", True, PROXY_HEADER),
    "tcp": ("echo", False, b""),
    "tcp-tls": ("echo", True, b""),
    "tcp-proxied": ("echo", False, PROXY_HEADER),
}


def configuration(folder: Path, pools: dict[str, str], ports: dict[str, int]) -> str:
    """The text of a configuration with all `FRONTENDS` and an admin listener."""
    certificate = shared_authority().issue("localhost").write_file(folder / "pair.pem")
    modes = {"web": "http", "echo": "tcp"}
    parts = [f'[admin]\nbind = "127.0.0.1:{ports["admin"]}"']
    parts += [
        f'[[pool]]\nname = "{name}"\nupstreams = ["{address}"]' for name, address in pools.items()
    ]
    for name, (pool, tls, header) in FRONTENDS.items():
        bind = f"{'haproxy:' if header else ''}127.0.0.1:{ports[name]}"
        parts.append(
            f'[[frontend]]\nname = "{name}"\nmode = "{modes[pool]}"\npool = "{pool}"\n'
            f'bind = ["{bind}"]\naccess_log = "{name}.log"\naccess_log_format = "json"'
        )
        if tls:
            parts.append(f'[frontend.tls]\ncertificates = ["{certificate}"]')
    return "\n".join(parts)


def test_bytes_of_every_kind_of_connection(tmp_path: Path) -> None:
    """Metrics have the bytes on the wire, logs the ones of bodies and TCP connections."""
    ports = {name: free_port() for name in ("admin", *FRONTENDS)}
    with contextlib.ExitStack() as stack:
        web = stack.enter_context(ScriptedServer(serve_http))
        echo_server = stack.enter_context(ScriptedServer(echo))
        pools = {"web": web.address, "echo": echo_server.address}
        text = configuration(tmp_path, pools, ports)
        stack.enter_context(run_configured_balancer(tmp_path, text, ports["admin"]))

        def counted(frontend: str) -> tuple[float, float]:
            """The byte counters of a frontend."""
            metrics = get(ports["admin"], GET_CLOSE.replace(b" / ", b" /metrics "))
            samples = parse_metrics(metrics.partition(b"\r\n\r\n")[2].decode())
            names = ("received", "sent")
            keys = [f"balancebeam_{name}_bytes_total" for name in names]
            received, sent = (samples[sample_key(key, frontend=frontend)] for key in keys)
            return received, sent

        meters: dict[str, Meter] = {}
        expected: dict[str, list[tuple[int, int]]] = {}
        for name, (pool, tls, header) in FRONTENDS.items():
            meter = Meter(ports[name], header)
            meters[name] = stack.enter_context(contextlib.closing(meter))
            expected[name] = (run_http_client if pool == "web" else run_tcp_client)(meter, tls)
        for name, (_, tls, _) in FRONTENDS.items():
            assert wait_for_log(tmp_path / f"{name}.log", len(expected[name])) == expected[name]
            if tls:
                # Handshakes that fail count, too.
                with meters[name].connect() as client:
                    client.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    assert read_all(client).startswith(b"HTTP/1.1 400 ")
        wait_until(lambda: not any(meter.open for meter in meters.values()))
        for name, meter in meters.items():
            assert counted(name) == (meter.received, meter.sent), name


def wait_for_log(path: Path, count: int) -> list[tuple[int, int]]:
    """Wait until an access log has `count` lines; return the bytes in them."""
    wait_until(lambda: path.read_text().count("\n") >= count)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["bytes_received"] or 0, line["bytes_sent"]) for line in lines]
