"""
Memory of idle connections with and without TLS: `python -m bench.idle_tls`.

Prints the resident memory of each proxy per idle connection, in KiB, for
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
from pathlib import Path

from bench import peers
from bench.soak import REQUEST

PEERS = ("balancebeam-tls", "nginx-tls", "haproxy-tls", "balancebeam", "nginx", "haproxy")

# Connections that are open before the first measurement.
FIRST = 200


def open_clients(peer: peers.Peer, count: int, requests: int) -> list[socket.socket]:
    """
    Open connections, one after the other.

    Args:
        requests: number of requests to send on each; each response is awaited.
    """
    context = peers.client_context()
    clients: list[socket.socket] = []
    for _ in range(count):
        if peer.kind == "tls":
            client: socket.socket = peers.connect_tls(peer.port, context)
        else:
            client = socket.create_connection(("127.0.0.1", peer.port), 10)
        for _ in range(requests):
            client.sendall(REQUEST)
            if not client.recv(1000).startswith(b"HTTP/1.1 200 "):
                raise RuntimeError("a request failed")
        clients.append(client)
    return clients


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
    parser.add_argument("--peers", default=",".join(PEERS), help="proxies, separated by commas")
    options = parser.parse_args()
    hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    available = peers.all_peers()
    print(f"KiB per idle connection, {options.clients} connections")
    print(f"{'proxy':22}{'no request':>12}{'one request':>13}")
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
                    fresh, used = (measure(peer, options.clients, n, folder) for n in (0, 1))
                except (RuntimeError, OSError) as error:
                    print(f"skipped {peer.name}: {error}")
                    continue
                print(f"{peer.name:22}{fresh:12.1f}{used:13.1f}")
        finally:
            server.stop()


if __name__ == "__main__":
    main()
