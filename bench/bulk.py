"""
`python -m bench.bulk`: many octets through TCP mode, both ways, and whether
all of them arrive as they were.

An echo server stands behind the balancer. Every connection sends numbered
noise and compares the checksum of what comes back with that of what it sent.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench import processes

BLOCK = 1 << 20
ECHO = """
import socket, sys, threading
def serve(connection):
    buffer = memoryview(bytearray(1 << 18))
    with connection:
        while octets := connection.recv_into(buffer):
            connection.sendall(buffer[:octets])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


def send(connection: socket.socket, number: int, blocks: int) -> bytes:
    """Send `blocks` blocks and the end of the stream; their checksum."""
    checksum = hashlib.sha1(usedforsecurity=False)
    noise = os.urandom(BLOCK)
    for block in range(blocks):
        data = b"%08d%08d" % (number, block) + noise[16:]
        checksum.update(data)
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    return checksum.digest()


def exchange(port: int, number: int, blocks: int, failures: list[str]) -> None:
    """One connection; what is wrong with it goes to `failures`."""
    try:
        _exchange(port, number, blocks, failures)
    except OSError as failure:
        failures.append(f"connection {number}: {failure}")


def _exchange(port: int, number: int, blocks: int, failures: list[str]) -> None:
    sent: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        sender = threading.Thread(
            target=lambda: sent.append(send(connection, number, blocks)), daemon=True
        )
        sender.start()
        checksum = hashlib.sha1(usedforsecurity=False)
        octets = 0
        buffer = memoryview(bytearray(1 << 18))
        while taken := connection.recv_into(buffer):
            octets += taken
            checksum.update(buffer[:taken])
        sender.join(60)
    if octets != blocks * BLOCK or sent != [checksum.digest()]:
        failures.append(f"connection {number}: {octets} of {blocks * BLOCK} octets")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bulk", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    parser.add_argument("--connections", type=int, default=100)
    options = parser.parse_args()
    blocks = round(options.gigabytes * 1e9 / options.connections / BLOCK)
    peer = processes.peers()["balancebeam-tcp"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = str(processes.BACKEND_PORT)
        echo = processes.Process([sys.executable, "-c", ECHO, port], processes.OTHER_CORE, folder)
        proxy = processes.Process(peer.command(folder, peer.port), processes.PROXY_CORE, folder)
        try:
            processes.wait_for_port(processes.BACKEND_PORT)
            processes.wait_for_port(peer.port)
            run(proxy, peer.port, blocks, options.connections)
        finally:
            proxy.stop()
            echo.stop()


def run(proxy: processes.Process, port: int, blocks: int, connections: int) -> None:
    """Exchange all of it at once, and print what came of it."""
    failures: list[str] = []
    descriptors, resident = proxy.descriptors(), proxy.resident_octets()
    began, cpu = time.monotonic(), proxy.cpu_seconds()
    threads = [
        threading.Thread(target=exchange, args=(port, number, blocks, failures))
        for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.monotonic() - began, proxy.cpu_seconds() - cpu
    time.sleep(1)
    octets = connections * blocks * BLOCK
    print(f"{octets / 1e9:.2f} GB each way over {connections} connections in {seconds:.0f} s")
    print(f"CPU of the balancer: {cpu / (2 * octets / BLOCK) * 1e6:.0f} us/MB")
    print(f"descriptors {descriptors} -> {proxy.descriptors()}")
    print(f"resident {resident / 2**20:.1f} -> {proxy.resident_octets() / 2**20:.1f} MB")
    print(f"{len(failures)} connections failed, or got something else back")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
