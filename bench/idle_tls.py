"""
Memory of idle connections: `python -m bench.idle_tls`.

Connections are with and without TLS, and of HTTP/1.1 and HTTP/2: a proxy of `--peers` has one
kind. nginx and HAProxy are configured for 9,000 connections, balancebeam for any number; it closes
connections without a request after ten seconds.

Prints the resident memory of each proxy per idle connection, in KiB, by default for
connections without a request and for connections after one request. It is the
growth with N connections more, divided by N, while 200 others stay open from
before, so that memory that is allocated once does not count. Memory of the
kernel does not count either.
"""

from __future__ import annotations

import argparse
import resource
import select
import socket
import tempfile
import time
from os import urandom
from pathlib import Path

from balancebeam.protocols.http2.frames import (
    DATA,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    PREFACE,
    encode_headers,
)
from balancebeam.protocols.http2.hpack_encoder import encode_fields, encode_string
from balancebeam.protocols.http2.settings import SETTINGS_ACK, encode_settings
from bench import peers
from bench.h2load import BROWSER_FIELDS
from bench.http2_peers import all_peers
from bench.soak import REQUEST

PEERS = (
    *("balancebeam-tls", "nginx-tls", "haproxy-tls", "balancebeam", "nginx", "haproxy"),
    *("balancebeam-h2-tls", "nginx-h2-tls", "haproxy-h2-tls"),
    *("balancebeam-h2", "nginx-h2", "haproxy-h2"),
)

# The fields of HTTP/2 requests beside the ones of `BROWSER_FIELDS` and Cookie.
PSEUDO_FIELDS = (
    *((b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"127.0.0.1")),
    (b":path", b"/"),
)

# RFC 7541, 6.2.1: a literal with incremental indexing and a new name.
_INDEXED_LITERAL = b"\x40"

# Connections that are open before the first measurement.
FIRST = 200


def open_clients(peer: peers.Peer, count: int, requests: int) -> list[socket.socket]:
    """
    Open connections, one after the other.

    Args:
        requests: number of requests to send on each; each response is awaited.
    """
    context = peers.client_context()
    http2 = peer.kind in ("h2", "h2-tls")
    if http2:
        context.set_alpn_protocols(["h2"])
    clients: list[socket.socket] = []
    for _ in range(count):
        if peer.kind in ("tls", "h2-tls"):
            client: socket.socket = peers.connect_tls(peer.port, context)
        else:
            client = socket.create_connection(("127.0.0.1", peer.port), 10)
        for number in range(requests):
            (request_http2 if http2 else request_http1)(client, number)
        clients.append(client)
    return clients


def request_http1(client: socket.socket, number: int) -> None:
    """Send a request and await its response."""
    client.sendall(REQUEST)
    if not client.recv(1000).startswith(b"HTTP/1.1 200 "):
        raise RuntimeError("a request failed")


def request_http2(client: socket.socket, number: int) -> None:
    """
    Send a request and await its response; with the first one, the preface and SETTINGS.

    The proxy has to keep the fields of a browser, with a cookie of its own, in the dynamic table.
    """
    block = encode_fields(PSEUDO_FIELDS)
    for field in (*BROWSER_FIELDS, f"cookie: session={urandom(16).hex()}"):
        name, _, value = field.encode().partition(b": ")
        block += _INDEXED_LITERAL + encode_string(name) + encode_string(value)
    begin = b"" if number else PREFACE + encode_settings(())
    client.sendall(begin + encode_headers(2 * number + 1, block, True))
    stream = client.makefile("rb")
    while True:
        word, flags, _ = FRAME_HEADER.unpack(stream.read(FRAME_HEADER_SIZE))
        stream.read(word >> 8)
        if word & 0xFF == DATA and flags & END_STREAM:
            break
    if not number:
        client.sendall(SETTINGS_ACK)


def count_closed(clients: list[socket.socket]) -> int:
    """Return the number of connections that the proxy has closed."""
    poll = select.poll()
    for client in clients:
        poll.register(client, select.POLLRDHUP)
    return len(poll.poll(0))


def measure(peer: peers.Peer, count: int, requests: int, folder: Path) -> float:
    """
    Return the resident memory per idle connection in KiB.

    Raises:
        RuntimeError: the proxy does not start, or has closed a connection.
    """
    process = peer.start(folder)
    clients: list[socket.socket] = []
    try:
        clients += open_clients(peer, FIRST, requests)
        time.sleep(0.5)
        before = process.resident_bytes()
        clients += open_clients(peer, count, requests)
        time.sleep(0.5)
        growth = process.resident_bytes() - before
        closed = count_closed(clients)
        if closed:
            raise RuntimeError(f"the proxy closed {closed} of {len(clients)} connections")
        return growth / count / 1024
    finally:
        for client in clients:
            client.close()
        process.stop()


def main() -> None:
    """Measure the selected proxies and print one line for each."""
    parser = argparse.ArgumentParser(prog="python -m bench.idle_tls", description=__doc__)
    parser.add_argument("--clients", type=int, default=2000, help="number of idle connections")
    parser.add_argument(
        "--requests", default="0,1", help="requests on each connection, separated by commas"
    )
    parser.add_argument("--peers", default=",".join(PEERS), help="proxies, separated by commas")
    options = parser.parse_args()
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    available = {**peers.all_peers(), **all_peers()}
    print(f"KiB per idle connection, {options.clients} connections")
    counts = [int(number) for number in options.requests.split(",")]
    print(f"{'requests on each':22}" + "".join(f"{number:>10}" for number in counts))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server_home = folder / "backend"
        server_home.mkdir()
        server = peers.start_backend(server_home)
        try:
            for peer in (available[name] for name in options.peers.split(",")):
                if not peer.installed:
                    print(f"skipped {peer.name}: {peer.program} is not installed")
                    continue
                try:
                    sizes = [measure(peer, options.clients, n, folder) for n in counts]
                except (RuntimeError, OSError) as error:
                    print(f"skipped {peer.name}: {error}")
                    continue
                print(f"{peer.name:22}" + "".join(f"{size:10.1f}" for size in sizes), flush=True)
        finally:
            server.stop()


if __name__ == "__main__":
    main()
