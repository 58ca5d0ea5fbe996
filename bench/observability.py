"""
Benchmark of the cost of observability: `python -m bench.observability`.

Requests pass through a whole balancer in memory, 64 at a time over keep-alive
connections: no sockets, so that the figures contain little but the code that
differs. Two kinds of requests are measured: `small`, the same short head each time, and
`browser`, a browser's head with another target and Referer each time and a Cookie.

Each variant has a process, forked from the same parent: with the same memory layout and
hash seed, and with nothing that another variant has left in caches of the interpreter. In
each of many rounds every process in turn gets some thousand requests, so that the figures
of a round are comparable although the speed of the machine drifts. The CPU time of the
process is measured, which includes writes to the log file, folding of samples and garbage
collection. Printed are the second lowest and the median CPU time per request, each with its
difference to the variant `off`; the latter is the median of the differences in the rounds.

What the kernel takes for the pages of the log file depends on the machine more than the rest:
with `--log /dev/null` only the program is measured.

`off` has a dispatcher without timeline, samples and counters by status, which the
product always has: the difference of `histograms` is their cost.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any

from attrs import evolve
from twisted.internet.address import IPv4Address
from twisted.internet.task import Clock

from balancebeam.admission.admission import Admission
from balancebeam.api import single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from balancebeam.observability.observers import combine
from balancebeam.proxy.dispatcher import Dispatcher
from balancebeam.proxy.exchange import Exchange
from balancebeam.server.balancer import BalancerService

CONNECTIONS = 64
SERVERS = 3

# Requests between two sweeps: as many as 64 clients send in the interval of the ticker.
SWEEP_REQUESTS = 4096

# The parts that are enabled, by name of the variant.
VARIANTS: dict[str, frozenset[str]] = {
    "off": frozenset(),
    "histograms": frozenset(("histograms",)),
    "+ recent requests": frozenset(("histograms", "recent")),
    "+ text log": frozenset(("histograms", "combined")),
    "+ JSON log": frozenset(("histograms", "json")),
    "all, text log": frozenset(("histograms", "recent", "combined")),
    "all, JSON log": frozenset(("histograms", "recent", "json")),
}

RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    b"Content-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello world\n"
)


def small_requests() -> Iterator[bytes]:
    """Yield what wrk sends."""
    while True:
        yield b"GET / HTTP/1.1\r\nHost: 127.0.0.1:18101\r\n\r\n"


def browser_requests() -> Iterator[bytes]:
    """Yield a browser's requests; target and Referer change, and each client has its cookie."""
    number = 0
    while True:
        number += 1
        yield (
            b"GET /item/%d?from=list HTTP/1.1\r\nHost: shop.example.org\r\n"
            b"Connection: keep-alive\r\n"
            b'sec-ch-ua: "Chromium";v="126", "Not.A/Brand";v="24"\r\nsec-ch-ua-mobile: ?0\r\n'
            b'sec-ch-ua-platform: "Linux"\r\nUpgrade-Insecure-Requests: 1\r\n'
            b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 "
            b"(KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n"
            b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,"
            b"image/avif,image/webp,*/*;q=0.8\r\n"
            b"Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\n"
            b"Referer: https://shop.example.org/list?page=%d\r\n"
            b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
            b"Accept-Language: en-GB,en;q=0.9,de;q=0.8\r\n"
            b"Cookie: session=%032x\r\n\r\n" % (number, number, number % CONNECTIONS)
        )


REQUESTS = {"small": small_requests, "browser": browser_requests}


class PlainDispatcher(Dispatcher):
    """The fast path of `Dispatcher` without timeline, samples and counters by status."""

    def dispatch(self, exchange: Exchange, admission: Admission | None = None) -> None:
        self.total_requests += 1
        if admission is None:
            admission = self.admission
        assert admission.unrestricted
        if exchange.max_forwards_exhausted:
            raise AssertionError("Max-Forwards in the requests of the benchmark")
        exchange.candidates = self.selector.candidates(exchange.client)
        if self._queued_at:
            raise AssertionError("queued requests in the benchmark")
        self._try_next(exchange)

    def request_finished(self, exchange: Exchange) -> None:
        server = exchange.server
        if server is not None:
            self._release(exchange, server)
        elif self._queued_at:
            self.queue.remove(exchange)
        if exchange.permits:
            self.admission.release(exchange)
        if exchange.observer is not None:
            exchange.observer.exchange_finished(exchange)


class Transport:
    """
    The balancer's end of a connection in memory.

    Args:
        host: The address of the peer.
        protocol: The protocol, which gets this transport.
        writes: Receives the protocol at each write.
    """

    nothing_buffered = True
    eof_truncated = False

    def __init__(self, host: str, protocol: Any, writes: list[Any]) -> None:
        self._host = host
        self._protocol = protocol
        self._writes = writes
        protocol.makeConnection(self)

    def write(self, data: bytes) -> None:
        self._writes.append(self._protocol)

    write_more = write

    def unacked_bytes(self) -> int:
        return 0

    def getPeer(self) -> IPv4Address:
        return IPv4Address("TCP", self._host, 40000)

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "127.0.0.1", 80)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        """Do nothing: nothing is ever buffered."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing."""

    setTcpKeepAlive = setTcpNoDelay

    def abortConnection(self) -> None:
        """Do nothing: the process ends."""


class Attempt:
    """An attempt to connect to a server; a connector of Twisted, as far as it is used."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory
        self.state = "connecting"

    def accept(self, writes: list[Any]) -> None:
        """Establish the connection."""
        self.state = "connected"
        protocol = self.factory.buildProtocol(IPv4Address("TCP", "127.0.0.1", 80))
        Transport("127.0.0.1", protocol, writes)


class RealClock(Clock):
    """A clock without timers that has the time of day, as cheaply as Twisted's reactor."""

    seconds = staticmethod(time.time)


class Harness:
    """
    A balancer with its clients and servers.

    Args:
        parts: The parts of a variant that are enabled.
        log: Path of the access log.
    """

    def __init__(self, parts: frozenset[str], log: str) -> None:
        self._attempts: list[Attempt] = []
        self._requests: list[Any] = []
        self._responses: list[Any] = []
        servers = [ServerSettings(TcpAddress(f"10.0.0.{n + 1}", 80)) for n in range(SERVERS)]
        settings = single_pool_settings(tuple(servers), bind=())
        frontend = settings.frontends[0]
        style = next((style for style in ("combined", "json") if style in parts), None)
        if style is not None:
            frontend = evolve(frontend, access_log=log, access_log_format=style)
            settings = evolve(settings, frontends=(frontend,))
        self._service = BalancerService(settings, RealClock(), random.Random(1), self._connect)
        self._service.startService()
        # In the product the admin API enables recent requests.
        self._service.recent_requests.enable("recent" in parts)
        factory = self._service.default_frontend.factory
        factory.observer = combine(
            self._service.access_logs.observer(frontend),
            self._service.recent_requests.observer(frontend.name, frontend.mode, False),
        )
        if "histograms" not in parts:
            for pool in self._service.pools.values():
                dispatcher: Any = pool.dispatcher
                dispatcher.__class__ = PlainDispatcher
        self._clients = []
        for number in range(CONNECTIONS):
            client = factory.build_channel(f"192.0.2.{number + 1}")
            Transport(f"192.0.2.{number + 1}", client, self._responses)
            self._clients.append(client)

    def _connect(self, address: object, factory: Any, reactor: object) -> Any:
        attempt = Attempt(factory)
        self._attempts.append(attempt)
        return attempt

    def exchange(self, heads: list[bytes]) -> None:
        """Send requests by all clients at a time, respond to them, and sweep now and then."""
        for start in range(0, len(heads), CONNECTIONS):
            for client, head in zip(self._clients, heads[start : start + CONNECTIONS]):
                client.dataReceived(head)
            if self._attempts:
                for attempt in self._attempts:
                    attempt.accept(self._requests)
                self._attempts.clear()
            for server in self._requests:
                server.dataReceived(RESPONSE)
            self._requests.clear()
            if not start % SWEEP_REQUESTS:
                self._sweep()

    def _sweep(self) -> None:
        for pool in self._service.pools.values():
            pool.latency.fold()
        for file in self._service.access_logs.files.values():
            file.flush()

    def stop(self) -> int:
        """Stop the balancer; return the number of responses."""
        responses = len(self._responses)
        self._service.stopService()
        return responses


def serve(connection: Connection, parts: frozenset[str], kind: str, log: str | None) -> None:
    """Receive numbers of requests; process so many, and send the CPU seconds of each."""
    heads = REQUESTS[kind]()
    sent = 0
    with tempfile.TemporaryDirectory() as name:
        harness = Harness(parts, log or f"{name}/access.log")
        while True:
            requests = connection.recv()
            if not requests:
                break
            prepared = [next(heads) for _ in range(requests)]
            gc.collect()
            started_at = time.process_time()
            harness.exchange(prepared)
            connection.send((time.process_time() - started_at) / requests)
            sent += requests
        responses = harness.stop()
    if responses != sent:
        raise RuntimeError(f"{responses} responses to {sent} requests")


class Worker:
    """A process with one variant."""

    def __init__(self, parts: frozenset[str], kind: str, log: str | None) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other, parts, kind, log), daemon=True)
        self._process.start()
        other.close()

    def measure(self, requests: int) -> float:
        """Return the CPU time per request in microseconds."""
        self._connection.send(requests)
        seconds: float = self._connection.recv()
        return seconds * 1e6

    def stop(self) -> None:
        """End the process. Raises `RuntimeError` if it has failed."""
        self._connection.send(0)
        self._process.join()
        if self._process.exitcode:
            raise RuntimeError(f"process exited with {self._process.exitcode}")


def measure(
    kind: str, rounds: int, requests: int, warm_up: int, log: str | None
) -> dict[str, list[float]]:
    """Return the CPU times per request of all rounds, in microseconds, by variant."""
    workers = {name: Worker(parts, kind, log) for name, parts in VARIANTS.items()}
    for worker in workers.values():
        worker.measure(warm_up)
    rows: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, worker in workers.items():
            rows[name].append(worker.measure(requests))
    for worker in workers.values():
        worker.stop()
    return rows


def report(kind: str, rows: dict[str, list[float]]) -> None:
    """Print a table."""
    print(f"\n{kind + ', CPU us/request':24}{'2nd lowest':>12}{'more':>8}{'median':>9}{'more':>8}")
    for name, values in rows.items():
        low, low_off = (sorted(costs)[:2][-1] for costs in (values, rows["off"]))
        more = statistics.median(cost - off for cost, off in zip(values, rows["off"]))
        middle = statistics.median(values)
        print(f"{name:24}{low:12.2f}{low - low_off:8.2f}{middle:9.2f}{more:8.2f}")


def main() -> None:
    """Print the cost of each variant."""
    parser = argparse.ArgumentParser(prog="python -m bench.observability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=100, help="interleaved rounds")
    parser.add_argument("--requests", type=int, default=4096, help="requests per round")
    parser.add_argument("--warm-up", type=int, default=8192, help="requests before them")
    parser.add_argument("--loads", default="small,browser", help="kinds of requests")
    parser.add_argument("--log", help="file of the access logs; a temporary one by default")
    options = parser.parse_args()
    for kind in options.loads.split(","):
        numbers = (options.rounds, options.requests, options.warm_up)
        report(kind, measure(kind, *numbers, options.log))


if __name__ == "__main__":
    main()
