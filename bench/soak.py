"""
`python -m bench.soak`: what idle clients cost, and what a million requests leave.

Prints the resident memory per idle keep-alive client, and memory and
descriptors before and after the requests.
"""

from __future__ import annotations

import argparse
import socket
import tempfile
import time
from pathlib import Path

from bench import processes
from bench.loads import WORKLOADS

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def connect_idle_client(port: int) -> socket.socket:
    """A client that has been answered once, and is idle."""
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(REQUEST)
    assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    return connection


def close_all(clients: list[socket.socket]) -> None:
    for connection in clients:
        connection.close()
    time.sleep(1)


def measure_idle_clients(process: processes.Process, port: int, count: int) -> None:
    """Print what `count` idle clients cost."""
    close_all([connect_idle_client(port) for _ in range(50)])
    before = process.resident_bytes()
    clients = [connect_idle_client(port) for _ in range(count)]
    time.sleep(1)
    each = (process.resident_bytes() - before) / count
    print(f"{count} idle clients: {each:.0f} octets each, over {before / (1 << 20):.1f} MB")
    close_all(clients)
    print(f"after they left: {process.fd_count()} descriptors")


def measure_requests(process: processes.Process, port: int, count: int, folder: Path) -> None:
    """Print what `count` requests leave behind."""
    load = WORKLOADS[1]
    load.run(port, 10, folder)
    time.sleep(1)
    before = process.resident_bytes(), process.fd_count()
    done = failed = 0
    while done < count:
        result = load.run(port, 10, folder)
        done += result.requests
        failed += result.failed
    time.sleep(1)
    after = process.resident_bytes(), process.fd_count()
    print(
        f"{done} requests, {failed} failed: resident {before[0] / (1 << 20):.2f} -> "
        f"{after[0] / (1 << 20):.2f} MB, descriptors {before[1]} -> {after[1]}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--clients", type=int, default=5000)
    parser.add_argument("--requests", type=int, default=1_000_000)
    options = parser.parse_args()
    peer = processes.peers()["balancebeam"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        server_home, home = folder / "backend", folder / "proxy"
        server_home.mkdir()
        home.mkdir()
        server = processes.start_backend(server_home)
        process = processes.Process(peer.command(home, peer.port), processes.PROXY_CORE, home)
        try:
            processes.wait_for_port(peer.port)
            measure_idle_clients(process, peer.port, options.clients)
            measure_requests(process, peer.port, options.requests, home)
        finally:
            process.stop()
            server.stop()


if __name__ == "__main__":
    main()
