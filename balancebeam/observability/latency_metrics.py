"""Metrics of latency and of bytes on client connections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from balancebeam.observability.interfaces import FactoryStats, PoolStats
from balancebeam.observability.latency import EventLoopLatency, PoolLatency, ServerLatency
from balancebeam.observability.prometheus import HistogramFamily, MetricsRegistry, format_labels


def add_pool_latency(registry: MetricsRegistry, pools: Mapping[str, PoolStats]) -> None:
    """
    Add the histograms of all pools and of their servers.

    The samples since the last sweep are counted when a histogram is read. A server that is
    removed in the meantime keeps its histograms until the end of the scrape.
    """
    labelled = [(format_labels(("pool",), (name,)), pool.latency) for name, pool in pools.items()]
    servers = [
        (format_labels(("pool", "server"), (name, server.name)), server, latency)
        for name, pool in pools.items()
        for server, latency in pool.latency.current_servers().items()
    ]

    def folded_pools() -> Iterator[tuple[str, PoolLatency]]:
        for labels, latency in labelled:
            latency.fold_requests()
            yield labels, latency

    def folded_servers() -> Iterator[tuple[str, ServerLatency]]:
        for labels, server, latency in servers:
            latency.fold(server)
            yield labels, latency

    for family in (
        HistogramFamily(
            "balancebeam_request_seconds",
            "Duration of requests from the request head to the end of the response.",
            ((labels, latency.request) for labels, latency in folded_pools()),
        ),
        HistogramFamily(
            "balancebeam_queue_seconds",
            "Time that queued requests spent in the queue.",
            ((labels, latency.queue) for labels, latency in folded_pools()),
        ),
        HistogramFamily(
            "balancebeam_server_first_byte_seconds",
            "Time from sending a request to the beginning of the response.",
            ((labels, latency.first_byte) for labels, latency in folded_servers()),
        ),
        HistogramFamily(
            "balancebeam_server_connect_seconds",
            "Duration of connection attempts for a request: name resolution, TCP, TLS.",
            ((labels, latency.connect) for labels, latency in folded_servers()),
        ),
    ):
        family.optional = True
        registry.add(family)


def add_event_loop_lag(registry: MetricsRegistry, event_loop: EventLoopLatency) -> None:
    """Add the histogram of the event loop's lag."""
    registry.add(
        HistogramFamily(
            "balancebeam_event_loop_lag_seconds",
            "Lateness of a periodic timer of the event loop.",
            [("", event_loop.lag)],
        )
    )


def add_byte_counts(registry: MetricsRegistry, frontend: str, factory: FactoryStats) -> None:
    """Add the bytes on the client connections of a frontend."""
    received, sent = factory.byte_counts
    registry.counter(
        "balancebeam_received_bytes_total", "Bytes received from clients.", "frontend"
    ).add(received, frontend)
    registry.counter("balancebeam_sent_bytes_total", "Bytes sent to clients.", "frontend").add(
        sent, frontend
    )
