"""
Soak test: `python -m bench.soak`.

Prints the resident memory per idle keep-alive client, and the resident memory
and the number of file descriptors before and after a million requests.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path

from bench import peers
from bench.workloads import WORKLOADS

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect_idle_client(port: int) -> socket.socket:
    """Open a keep-alive connection that has received one response and is idle."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(REQUEST)
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    return connection


def close_all(clients: list[socket.socket]) -> None:
    """Close the connections, and give the proxy a second to notice."""
    for connection in clients:
        connection.close()
    time.sleep(1)


def measure_idle_clients(process: peers.Process, port: int, count: int) -> None:
    """
    Print the memory per idle client with `count` clients.

    50 connections are opened and closed first, so that memory that is allocated once
    does not count.
    """
    close_all([connect_idle_client(port) for _ in range(50)])
    before = process.resident_bytes()
    clients = [connect_idle_client(port) for _ in range(count)]
    time.sleep(1)
    per_client = (process.resident_bytes() - before) / count
    print(
        f"{count} idle clients: {per_client:.0f} bytes each, "
        f"in addition to {before / (1 << 20):.1f} MB"
    )
    close_all(clients)
    print(f"after closing them: {process.fd_count()} descriptors")


def measure_requests(process: peers.Process, port: int, count: int, folder: Path) -> None:
    """Print memory and descriptors before and after at least `count` requests."""
    workload = WORKLOADS[1]
    workload.run(port, 10, folder)
    time.sleep(1)
    before = process.resident_bytes(), process.fd_count()
    done = failed = 0
    while done < count:
        result = workload.run(port, 10, folder)
        done += result.requests
        failed += result.failed
    time.sleep(1)
    after = process.resident_bytes(), process.fd_count()
    print(
        f"{done} requests, {failed} failed: resident {before[0] / (1 << 20):.2f} -> "
        f"{after[0] / (1 << 20):.2f} MB, descriptors {before[1]} -> {after[1]}"
    )


def main() -> None:
    """Measure idle clients, then requests, in the same process."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--clients", type=int, default=5000, help="number of idle clients")
    parser.add_argument("--requests", type=int, default=1_000_000, help="number of requests")
    options = parser.parse_args()
    peer = peers.all_peers()["balancebeam"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server_home, home = folder / "backend", folder / "proxy"
        server_home.mkdir()
        home.mkdir()
        server = peers.start_backend(server_home)
        process = peers.Process(peer.command(home, peer.port), peers.PROXY_CORE, home)
        try:
            peers.wait_for_port(peer.port)
            measure_idle_clients(process, peer.port, options.clients)
            measure_requests(process, peer.port, options.requests, home)
        finally:
            process.stop()
            server.stop()


if __name__ == "__main__":
    main()
