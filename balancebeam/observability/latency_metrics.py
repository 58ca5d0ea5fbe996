"""Metrics of latency and of bytes on client connections."""

from __future__ import annotations

from balancebeam.observability.interfaces import FactoryStats
from balancebeam.observability.latency import EventLoopLatency, PoolLatency
from balancebeam.observability.prometheus import MetricsRegistry


def add_pool_latency(registry: MetricsRegistry, pool: str, latency: PoolLatency) -> None:
    """Add the histograms of a pool and of its servers."""
    latency.fold()
    registry.histogram(
        "balancebeam_request_seconds",
        "Duration of requests from the request head to the end of the response.",
        "pool",
    ).add(latency.request, pool)
    registry.histogram(
        "balancebeam_queue_seconds", "Time that queued requests spent in the queue.", "pool"
    ).add(latency.queue, pool)
    first_byte = registry.histogram(
        "balancebeam_server_first_byte_seconds",
        "Time from sending a request to the beginning of the response.",
        *("pool", "server"),
    )
    connect = registry.histogram(
        "balancebeam_server_connect_seconds",
        "Duration of connection attempts for a request: name resolution, TCP, TLS.",
        *("pool", "server"),
    )
    for server, histograms in latency.servers.items():
        first_byte.add(histograms.first_byte, pool, server.name)
        connect.add(histograms.connect, pool, server.name)


def add_event_loop_lag(registry: MetricsRegistry, event_loop: EventLoopLatency) -> None:
    """Add the histogram of the event loop's lag."""
    registry.histogram(
        "balancebeam_event_loop_lag_seconds", "Lateness of a periodic timer of the event loop."
    ).add(event_loop.lag)


def add_byte_counts(registry: MetricsRegistry, frontend: str, factory: FactoryStats) -> None:
    """Add the bytes on the client connections of a frontend."""
    received, sent = factory.byte_counts
    registry.counter(
        "balancebeam_received_bytes_total", "Bytes received from clients.", "frontend"
    ).add(received, frontend)
    registry.counter("balancebeam_sent_bytes_total", "Bytes sent to clients.", "frontend").add(
        sent, frontend
    )
