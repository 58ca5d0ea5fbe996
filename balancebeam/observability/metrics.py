"""
The metrics of a balancer.

They are read from its services at each scrape, so that requests update nothing
but the counters that the services need anyway.
"""

from __future__ import annotations

import platform

from twisted.copyright import version as twisted_version

from balancebeam import __version__
from balancebeam.observability.interfaces import BalancerStats, LimiterStats, PoolStats
from balancebeam.observability.latency_metrics import (
    add_byte_counts,
    add_event_loop_lag,
    add_pool_latency,
)
from balancebeam.observability.process_metrics import add_process_metrics
from balancebeam.observability.prometheus import MetricsRegistry
from balancebeam.observability.tls_metrics import add_tls_handshakes
from balancebeam.upstream.server import Server


def metrics_text(balancer: BalancerStats, *, openmetrics: bool = False) -> str:
    """Return all metrics of `balancer` in the text format of Prometheus, or in OpenMetrics."""
    registry = collect_metrics(balancer)
    return registry.openmetrics() if openmetrics else str(registry)


def collect_metrics(balancer: BalancerStats) -> MetricsRegistry:
    """Return all metrics of `balancer`."""
    registry = MetricsRegistry()
    _add_balancer(registry, balancer)
    for name, frontend in balancer.frontends.items():
        registry.gauge(
            "balancebeam_frontend_connections", "Open client connections.", "frontend"
        ).add(len(frontend.factory.channels), name)
        rejected = registry.counter(
            "balancebeam_rejected_requests_total",
            "Requests rejected as malformed, too large or too slow, by status code.",
            *("frontend", "code"),
        )
        for status, count in sorted(dict(frontend.factory.rejected_requests).items()):
            rejected.add(count, name, status)
        add_byte_counts(registry, name, frontend.factory)
        add_tls_handshakes(registry, name, frontend.tls_factory)
    for name, pool in balancer.pools.items():
        _add_pool(registry, name, pool)
        for server in pool.server_set.servers:
            _add_server(registry, name, server)
        add_pool_latency(registry, name, pool.latency)
    add_event_loop_lag(registry, balancer.event_loop)
    _add_limits(registry, balancer.limiter)
    for path, file in balancer.access_logs.files.items():
        registry.counter(
            "balancebeam_access_log_dropped_lines_total",
            "Access log lines that could not be written.",
            "file",
        ).add(file.dropped_lines, path)
    for (frontend_name, certificate), expires_at in balancer.certificates.expiry_times().items():
        registry.gauge(
            "balancebeam_certificate_not_after_timestamp_seconds",
            "End of the validity of a certificate in seconds since the epoch.",
            *("frontend", "name"),
        ).add(expires_at, frontend_name, certificate)
    spans = registry.counter(
        "balancebeam_trace_spans_total", "Spans of traces, exported or lost.", "result"
    )
    spans.add(balancer.span_counts.exported, "exported")
    spans.add(balancer.span_counts.lost, "lost")
    add_process_metrics(registry)
    return registry


def _add_balancer(registry: MetricsRegistry, balancer: BalancerStats) -> None:
    labels = ("version", "python", "twisted")
    registry.gauge(
        "balancebeam_build_info", "Versions of the program and its runtime; always 1.", *labels
    ).add(1, __version__, platform.python_version(), twisted_version)
    registry.gauge(
        "balancebeam_draining", "Whether a graceful shutdown is in progress (1) or not (0)."
    ).add(balancer.draining)
    registry.gauge(
        "balancebeam_draining_services",
        "Pools and frontends removed by a reload that are still active.",
    ).add(len(balancer.retired))
    registry.counter("balancebeam_reloads_total", "Successful reloads of the configuration.").add(
        balancer.reloads
    )
    registry.counter(
        "balancebeam_reloads_failed_total", "Rejected reloads of the configuration."
    ).add(balancer.reloads_failed)
    registry.gauge(
        "balancebeam_last_reload_timestamp_seconds",
        "Time of the last successful reload in seconds since the epoch; 0 for never.",
    ).add(balancer.reloaded_at)


def _add_pool(registry: MetricsRegistry, name: str, pool: PoolStats) -> None:
    dispatcher, connections, draining = pool.dispatcher, pool.connections, pool.server_set.draining
    registry.counter("balancebeam_requests_total", "Requests, or TCP connections.", "pool").add(
        dispatcher.total_requests, name
    )
    responses = registry.counter(
        "balancebeam_responses_total",
        "Finished requests by status code; none if the client disconnected before the response. "
        "Of TCP connections only the ones that got no server.",
        *("pool", "code"),
    )
    for status, count in sorted(dict(dispatcher.responses_by_status).items()):
        if status or pool.mode != "tcp":
            responses.add(count, name, status or "none")
    registry.counter(
        "balancebeam_retries_total", "Attempts after the first of a request.", "pool"
    ).add(dispatcher.total_retries, name)
    for reason, count in sorted(dict(dispatcher.retries_by_reason).items()):
        registry.counter(
            "balancebeam_retries_by_reason_total",
            "Attempts after the first of a request by the failure before.",
            *("pool", "reason"),
        ).add(count, name, reason)
    registry.gauge("balancebeam_queued_requests", "Requests queued for a server.", "pool").add(
        len(dispatcher.queue), name
    )
    registry.gauge("balancebeam_server_connections", "Open connections to servers.", "pool").add(
        len(connections.connections), name
    )
    registry.gauge(
        "balancebeam_server_pending_connections", "Connect attempts in progress.", "pool"
    ).add(len(connections.attempts), name)
    registry.gauge(
        "balancebeam_draining_servers", "Removed servers with requests in flight.", "pool"
    ).add(len(draining), name)
    registry.gauge(
        "balancebeam_draining_requests", "Requests in flight at removed servers.", "pool"
    ).add(sum(server.in_flight for server in draining), name)


def _add_server(registry: MetricsRegistry, pool: str, server: Server) -> None:
    labels, values = ("pool", "server"), (pool, server.name)
    gauges = (
        ("up", "Whether the state of the server is up (1) or not (0).", server.status == "up"),
        ("available", "Whether the server gets new requests (1) or not (0).", server.available),
        ("weight", "Current weight of the server.", server.weight),
        ("in_flight", "Requests, or TCP connections, in flight at the server.", server.in_flight),
        (
            "idle_connections",
            "Idle connections to the server.",
            len(server.idle_connections),
        ),
    )
    for name, help_text, value in gauges:
        registry.gauge(f"balancebeam_server_{name}", help_text, *labels).add(value, *values)
    registry.counter(
        "balancebeam_server_requests_total", "Requests sent to the server.", *labels
    ).add(server.total_requests, *values)
    registry.counter(
        "balancebeam_server_failures_total", "Requests that failed at the server.", *labels
    ).add(server.failed_requests, *values)
    for reason, count in sorted(server.ejections.items()):
        registry.counter(
            "balancebeam_server_ejections_total",
            "Ejections of the server for its failures.",
            *(*labels, "reason"),
        ).add(count, *values, reason)
    states = registry.gauge(
        "balancebeam_server_state", "State of the server; 1 for the current one.", *labels, "state"
    )
    for state in ("up", "down", "draining", "maintenance"):
        states.add(server.status == state, *values, state)
    check = server.last_check
    if check is not None:
        registry.gauge(
            "balancebeam_server_health_check_passed",
            "Whether the last health check passed (1) or failed (0).",
            *labels,
        ).add(check.passed, *values)
        registry.gauge(
            "balancebeam_server_health_check_timestamp_seconds",
            "Time of the last health check in seconds since the epoch.",
            *labels,
        ).add(check.checked_at, *values)


def _add_limits(registry: MetricsRegistry, limiter: LimiterStats) -> None:
    for scope, limits in limiter.scopes.items():
        for limit in limits:
            if limit.settings.dry_run:
                family = registry.counter(
                    "balancebeam_limit_dry_run_rejected_total",
                    "Requests that a limit with dry_run would have rejected.",
                    *("scope", "limit"),
                )
            else:
                family = registry.counter(
                    "balancebeam_limit_rejected_total",
                    "Requests rejected by a rate limit.",
                    *("scope", "limit"),
                )
            family.add(limit.rejected, scope, limit.settings.title)
