"""Metrics of pools and their servers, each read while its line is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Callable

from balancebeam.observability.interfaces import PoolStats
from balancebeam.observability.prometheus import LazyFamily, MetricsRegistry, format_labels
from balancebeam.upstream.server import Server

_STATES = ("up", "down", "draining", "maintenance")

# Name, type, help text and value of the metrics that every pool has.
_POOL_METRICS: tuple[tuple[str, str, str, Callable[[PoolStats], float]], ...] = (
    (
        "balancebeam_requests_total",
        "counter",
        "Requests, or TCP connections.",
        lambda pool: pool.dispatcher.total_requests,
    ),
    (
        "balancebeam_retries_total",
        "counter",
        "Attempts after the first of a request.",
        lambda pool: pool.dispatcher.total_retries,
    ),
    (
        "balancebeam_queued_requests",
        "gauge",
        "Requests queued for a server.",
        lambda pool: len(pool.dispatcher.queue),
    ),
    (
        "balancebeam_server_connections",
        "gauge",
        "Open connections to servers.",
        lambda pool: len(pool.connections.connections),
    ),
    (
        "balancebeam_server_pending_connections",
        "gauge",
        "Connect attempts in progress.",
        lambda pool: len(pool.connections.attempts),
    ),
    (
        "balancebeam_draining_servers",
        "gauge",
        "Removed servers with requests in flight.",
        lambda pool: len(pool.server_set.draining),
    ),
    (
        "balancebeam_draining_requests",
        "gauge",
        "Requests in flight at removed servers.",
        lambda pool: sum(server.in_flight for server in pool.server_set.draining),
    ),
)

# The same of every server.
_SERVER_METRICS: tuple[tuple[str, str, str, Callable[[Server], float]], ...] = (
    (
        "balancebeam_server_up",
        "gauge",
        "Whether the state of the server is up (1) or not (0).",
        lambda server: server.status == "up",
    ),
    (
        "balancebeam_server_available",
        "gauge",
        "Whether the server gets new requests (1) or not (0).",
        lambda server: server.available,
    ),
    (
        "balancebeam_server_weight",
        "gauge",
        "Current weight of the server.",
        lambda server: server.weight,
    ),
    (
        "balancebeam_server_in_flight",
        "gauge",
        "Requests, or TCP connections, in flight at the server.",
        lambda server: server.in_flight,
    ),
    (
        "balancebeam_server_idle_connections",
        "gauge",
        "Idle connections to the server.",
        lambda server: len(server.idle_connections),
    ),
    (
        "balancebeam_server_requests_total",
        "counter",
        "Requests sent to the server.",
        lambda server: server.total_requests,
    ),
    (
        "balancebeam_server_failures_total",
        "counter",
        "Requests that failed at the server.",
        lambda server: server.failed_requests,
    ),
)


def add_pools(registry: MetricsRegistry, pools: Mapping[str, PoolStats]) -> None:
    """Add the metrics of all pools; a pool that is added during the scrape is not included."""
    labelled = [(format_labels(("pool",), (name,)), pool) for name, pool in pools.items()]

    def samples(read: Callable[[PoolStats], float]) -> Iterator[tuple[str, float]]:
        return ((labels, read(pool)) for labels, pool in labelled)

    for name, kind, text, read in _POOL_METRICS:
        registry.add(LazyFamily(name, kind, text, samples(read), optional=True))
    registry.add(
        LazyFamily(
            "balancebeam_responses_total",
            "counter",
            "Finished requests by status code; none if the client disconnected before the "
            "response. Of TCP connections only the ones that got no server.",
            (
                (_extended(labels, "code", status or "none"), count)
                for labels, pool in labelled
                for status, count in sorted(dict(pool.dispatcher.responses_by_status).items())
                if status or pool.mode != "tcp"
            ),
            optional=not pools,
        )
    )
    registry.add(
        LazyFamily(
            "balancebeam_retries_by_reason_total",
            "counter",
            "Attempts after the first of a request by the failure before.",
            (
                (_extended(labels, "reason", reason), count)
                for labels, pool in labelled
                for reason, count in sorted(dict(pool.dispatcher.retries_by_reason).items())
            ),
            optional=True,
        )
    )


def add_servers(registry: MetricsRegistry, pools: Mapping[str, PoolStats]) -> None:
    """Add the metrics of all servers; one that is removed during the scrape is included."""
    labelled = [
        (format_labels(("pool", "server"), (name, server.name)), server)
        for name, pool in pools.items()
        for server in pool.server_set.servers
    ]

    def samples(read: Callable[[Server], float]) -> Iterator[tuple[str, float]]:
        return ((labels, read(server)) for labels, server in labelled)

    for name, kind, text, read in _SERVER_METRICS:
        registry.add(LazyFamily(name, kind, text, samples(read), optional=True))
    registry.add(
        LazyFamily(
            "balancebeam_server_ejections_total",
            "counter",
            "Ejections of the server for its failures.",
            (
                (_extended(labels, "reason", reason), count)
                for labels, server in labelled
                for reason, count in sorted(server.ejections.items())
            ),
            optional=True,
        )
    )
    registry.add(
        LazyFamily(
            "balancebeam_server_state",
            "gauge",
            "State of the server; 1 for the current one.",
            (
                sample
                for labels, server in labelled
                # Exactly one state of a server is the current one.
                for status in [server.status]
                for sample in _state_samples(labels, status)
            ),
            optional=True,
        )
    )
    checks = (
        (
            "balancebeam_server_health_check_passed",
            "Whether the last health check passed (1) or failed (0).",
            "passed",
        ),
        (
            "balancebeam_server_health_check_timestamp_seconds",
            "Time of the last health check in seconds since the epoch.",
            "checked_at",
        ),
    )
    for name, text, attribute in checks:
        registry.add(LazyFamily(name, "gauge", text, _checks(labelled, attribute), optional=True))


def _state_samples(labels: str, status: str) -> Iterator[tuple[str, float]]:
    return ((_extended(labels, "state", state), state == status) for state in _STATES)


def _checks(labelled: list[tuple[str, Server]], attribute: str) -> Iterator[tuple[str, float]]:
    for labels, server in labelled:
        if server.last_check is not None:
            yield labels, getattr(server.last_check, attribute)


def _extended(labels: str, name: str, value: object) -> str:
    """Return `labels` with one label more; its value needs no escaping."""
    return f'{labels[:-1]},{name}="{value}"}}'
