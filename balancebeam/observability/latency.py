"""
Latency histograms of pools, servers and the event loop.

The samples are collected where the times are measured: by the dispatcher and its queue, by
servers, and by the ticker. Sweeps fold them into histograms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import Factory, frozen

from balancebeam.net.ticker import Ticker
from balancebeam.observability.histogram import Histogram
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet


class QueueSamples(Protocol):
    """The queue of a pool."""

    @property
    def samples(self) -> list[float]:
        """The seconds that requests were queued."""


class DispatcherSamples(Protocol):
    """The dispatcher of a pool."""

    @property
    def request_samples(self) -> list[float]:
        """The durations of requests in seconds."""

    @property
    def queue(self) -> QueueSamples:
        """The queue of the pool."""


@frozen
class ServerLatency:
    """
    The histograms of one server.

    Attributes:
        first_byte: From sending the request to the beginning of the response.
        connect: Name resolution, TCP and TLS of a connection for a request.
    """

    first_byte: Histogram = Factory(Histogram)
    connect: Histogram = Factory(Histogram)

    def fold(self, server: Server) -> None:
        """Count the samples of `server` since the last call."""
        if server.first_byte_samples:
            self.first_byte.fold(server.first_byte_samples)
        if server.connect_samples:
            self.connect.fold(server.connect_samples)


class PoolLatency:
    """
    The histograms of one pool.

    Attributes:
        request: From the head of the request to the end of its response.
        queue: The stays in the queue.
        servers: The histograms of the servers in the pool. They are dropped together with
            their server.
    """

    def __init__(self, dispatcher: DispatcherSamples, server_set: ServerSet) -> None:
        self.request = Histogram()
        self.queue = Histogram()
        self.servers: dict[Server, ServerLatency] = {}
        self._dispatcher = dispatcher
        self._server_set = server_set

    def fold(self) -> None:
        """Count all samples since the last call."""
        self.fold_requests()
        for server, latency in self.current_servers().items():
            latency.fold(server)

    def fold_requests(self) -> None:
        """Count the samples of the pool itself since the last call."""
        self.request.fold(self._dispatcher.request_samples)
        self.queue.fold(self._dispatcher.queue.samples)

    def current_servers(self) -> Mapping[Server, ServerLatency]:
        """Return the histograms of the servers that are in the pool now."""
        previous = self.servers
        self.servers = {
            server: previous.get(server) or ServerLatency() for server in self._server_set.servers
        }
        return self.servers

    def sweep(self, now: float) -> None:
        """Count the samples, so that the lists stay short."""
        self.fold()


class EventLoopLatency:
    """
    The histogram of the event loop's lag.

    Attributes:
        lag: By how much the timer of the sweeps was late.
    """

    def __init__(self, ticker: Ticker) -> None:
        self.lag = Histogram()
        self._ticker = ticker
        ticker.add(self.sweep)

    def sweep(self, now: float) -> None:
        """Count the samples since the last sweep."""
        self.lag.fold(self._ticker.lag_samples)
