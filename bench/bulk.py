"""
`python -m bench.bulk`: many octets through TCP mode, both ways, and whether
all of them arrive as they were.

An echo server stands behind the balancer. Every connection sends numbered
noise and compares the checksum of what comes back with that of what it sent.

What is under way is bounded, so that Linux does not run short of memory for
TCP. Where it does it drops what has arrived already, and the echo server,
which does not read while it waits to write, can stand still with its peer
until a timer of the kernel's of about a minute.
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

# Seconds without anything after which a connection has failed.
TIMEOUT = 60.0

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


class FlowControlWindow:
    """Holds a sender back while more than `most` octets have not come back."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self._changed = threading.Condition()

    def reserve(self, size: int) -> None:
        """Wait until there is room for so many. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight <= self._limit - size, TIMEOUT):
                raise TimeoutError("nothing comes back")
            self._in_flight += size

    def release(self, size: int) -> None:
        """So many have come back."""
        with self._changed:
            self._in_flight -= size
            self._changed.notify()


def max_in_flight_bytes(connections: int) -> int:
    """Octets that each connection may have under way: all of them half of what TCP may have."""
    try:
        pages = int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[1])
    except OSError:
        return 4 * BLOCK
    return max(2 * BLOCK, pages * os.sysconf("SC_PAGE_SIZE") // 2 // connections)


def dropped_segments() -> int:
    """How many segments this machine has dropped that had arrived in order, since it started."""
    try:
        names, values = Path("/proc/net/netstat").read_text().splitlines()[:2]
    except OSError:
        return 0
    return int(dict(zip(names.split(), values.split())).get("TCPRcvQDrop", 0))


def send(connection: socket.socket, number: int, blocks: int, window: FlowControlWindow) -> bytes:
    """Send `blocks` blocks and the end of the stream; their checksum."""
    checksum = hashlib.sha1(usedforsecurity=False)
    noise = os.urandom(BLOCK)
    for block in range(blocks):
        data = b"%08d%08d" % (number, block) + noise[16:]
        checksum.update(data)
        window.reserve(len(data))
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)
    return checksum.digest()


def run_connection(
    port: int, number: int, blocks: int, failures: list[str], window: FlowControlWindow
) -> None:
    """One connection; what is wrong with it goes to `failures`."""
    try:
        _echo(port, number, blocks, failures, window)
    except OSError as failure:
        failures.append(f"connection {number}: {failure}")


def _echo(
    port: int, number: int, blocks: int, failures: list[str], window: FlowControlWindow
) -> None:
    sent: list[bytes] = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        sender = threading.Thread(
            target=lambda: sent.append(send(connection, number, blocks, window)), daemon=True
        )
        sender.start()
        checksum = hashlib.sha1(usedforsecurity=False)
        octets = 0
        buffer = memoryview(bytearray(1 << 18))
        while taken := connection.recv_into(buffer):
            octets += taken
            checksum.update(buffer[:taken])
            window.release(taken)
        sender.join(TIMEOUT)
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
        echo = processes.Process([sys.executable, "-c", ECHO, port], processes.LOAD_CORE, folder)
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
    descriptors, resident = proxy.fd_count(), proxy.resident_bytes()
    began, cpu = time.monotonic(), proxy.cpu_seconds()
    most, dropped = max_in_flight_bytes(connections), dropped_segments()
    threads = [
        threading.Thread(
            target=run_connection, args=(port, number, blocks, failures, FlowControlWindow(most))
        )
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
    print(f"descriptors {descriptors} -> {proxy.fd_count()}")
    print(f"resident {resident / 2**20:.1f} -> {proxy.resident_bytes() / 2**20:.1f} MB")
    print(f"{dropped_segments() - dropped} segments dropped for want of memory for TCP")
    print(f"{len(failures)} connections failed, or got something else back")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
