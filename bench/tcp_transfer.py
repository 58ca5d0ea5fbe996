"""
Bulk transfer in TCP mode, in both directions, with checksums: `python -m bench.tcp_transfer`.

The upstream server is an echo server. Every connection sends numbered blocks of
random bytes and compares the checksum of the received bytes with that of the
sent bytes.

The number of bytes in flight is bounded, so that Linux does not run out of TCP
memory. If it does, the kernel drops segments that it has already received; the
echo server, which does not read while it waits to write, can then deadlock with
its peer until a kernel timer of about a minute expires.
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

from bench import peers

# Bytes of a block, which is the unit of sending.
BLOCK = 1 << 20

# Seconds without progress after which a connection has failed.
TIMEOUT = 60.0

ECHO = """
import socket, sys, threading
def serve(connection):
    buffer = memoryview(bytearray(1 << 18))
    with connection:
        while size := connection.recv_into(buffer):
            connection.sendall(buffer[:size])
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=512)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""


class FlowControlWindow:
    """Limits the bytes that are sent but not yet echoed to `limit`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight = 0
        self._changed = threading.Condition()

    def reserve(self, size: int) -> None:
        """Wait until `size` more bytes fit in the window. Raises `TimeoutError`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._in_flight <= self._limit - size, TIMEOUT):
                raise TimeoutError(f"echo of the sent bytes stalled for {TIMEOUT:g} s")
            self._in_flight += size

    def release(self, size: int) -> None:
        """Count `size` bytes as echoed."""
        with self._changed:
            self._in_flight -= size
            self._changed.notify()


def max_in_flight_bytes(connections: int) -> int:
    """
    Return the window of one connection in bytes.

    All windows together are half of the kernel's TCP memory (the pressure threshold of
    `tcp_mem`), but each is at least two blocks.
    """
    try:
        pages = int(Path("/proc/sys/net/ipv4/tcp_mem").read_text().split()[1])
    except OSError:
        return 4 * BLOCK
    return max(2 * BLOCK, pages * os.sysconf("SC_PAGE_SIZE") // 2 // connections)


def dropped_segments() -> int:
    """Return how many segments received in order the kernel has dropped since boot."""
    try:
        names, values = Path("/proc/net/netstat").read_text().splitlines()[:2]
    except OSError:
        return 0
    return int(dict(zip(names.split(), values.split())).get("TCPRcvQDrop", 0))


def send(connection: socket.socket, number: int, blocks: int, window: FlowControlWindow) -> bytes:
    """Send `blocks` blocks and a FIN, and return their checksum."""
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
    """Run connection `number`, and append a line to `failures` if it fails."""
    try:
        _echo(port, number, blocks, failures, window)
    except OSError as error:
        failures.append(f"connection {number}: {error}")


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
        received = 0
        buffer = memoryview(bytearray(1 << 18))
        while size := connection.recv_into(buffer):
            received += size
            checksum.update(buffer[:size])
            window.release(size)
        sender.join(TIMEOUT)
    if received != blocks * BLOCK:
        failures.append(f"connection {number}: {received} of {blocks * BLOCK} bytes received")
    elif sent != [checksum.digest()]:
        failures.append(f"connection {number}: wrong checksum")


def main() -> None:
    """Start the echo server and the program, and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.tcp_transfer", description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="to send in each direction")
    parser.add_argument("--connections", type=int, default=100, help="concurrent connections")
    options = parser.parse_args()
    blocks = round(options.gigabytes * 1e9 / options.connections / BLOCK)
    peer = peers.all_peers()["balancebeam-tcp"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = str(peers.BACKEND_PORT)
        echo = peers.Process([sys.executable, "-c", ECHO, port], peers.LOAD_CORE, folder)
        proxy = peers.Process(peer.command(folder, peer.port), peers.PROXY_CORE, folder)
        try:
            peers.wait_for_port(peers.BACKEND_PORT)
            peers.wait_for_port(peer.port)
            run(proxy, peer.port, blocks, options.connections)
        finally:
            proxy.stop()
            echo.stop()


def run(proxy: peers.Process, port: int, blocks: int, connections: int) -> None:
    """Run all connections at once and print the figures; the exit status is 1 if one fails."""
    failures: list[str] = []
    descriptors, resident = proxy.fd_count(), proxy.resident_bytes()
    started_at, cpu_before = time.monotonic(), proxy.cpu_seconds()
    window, dropped = max_in_flight_bytes(connections), dropped_segments()
    threads = [
        threading.Thread(
            target=run_connection, args=(port, number, blocks, failures, FlowControlWindow(window))
        )
        for number in range(connections)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds, cpu = time.monotonic() - started_at, proxy.cpu_seconds() - cpu_before
    time.sleep(1)
    size = connections * blocks * BLOCK
    print(
        f"{size / 1e9:.2f} GB in each direction over {connections} connections in {seconds:.0f} s"
    )
    print(f"CPU of the proxy: {cpu / (2 * size / BLOCK) * 1e6:.0f} us/MB")
    print(f"descriptors {descriptors} -> {proxy.fd_count()}")
    print(f"resident {resident / 2**20:.1f} -> {proxy.resident_bytes() / 2**20:.1f} MB")
    print(f"{dropped_segments() - dropped} received segments dropped for lack of TCP memory")
    print(f"{len(failures)} connections failed or received wrong bytes")
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
