"""What the balancer is doing, as Prometheus asks for it."""

from __future__ import annotations

import platform

from twisted.copyright import version as twisted_version

from balancebeam import __version__
from balancebeam.observability.interfaces import BalancerStats, LimiterStats, PoolStats
from balancebeam.observability.process_metrics import add_process_metrics
from balancebeam.observability.prometheus import MetricsRegistry
from balancebeam.upstream.server import Server


def metrics_text(balancer: BalancerStats) -> str:
    """All metrics in the text format of Prometheus, version 0.0.4."""
    registry = MetricsRegistry()
    _add_balancer(registry, balancer)
    for name, frontend in balancer.frontends.items():
        registry.gauge(
            "balancebeam_frontend_connections", "Connections of clients that are open.", "frontend"
        ).add(len(frontend.factory.channels), name)
        refused = registry.counter(
            "balancebeam_rejected_requests_total",
            "Requests that could not be read, or were too big or too slow, by what they got.",
            *("frontend", "code"),
        )
        for status, count in sorted(dict(frontend.factory.rejected_requests).items()):
            refused.add(count, name, status)
    for name, pool in balancer.pools.items():
        _add_pool(registry, name, pool)
        for server in pool.server_set.servers:
            _add_server(registry, name, server)
    _add_limits(registry, balancer.limiter)
    for path, file in balancer.access_logs.files.items():
        registry.counter(
            "balancebeam_access_log_dropped_lines_total", "Lines that could not be written.", "file"
        ).add(file.dropped_lines, path)
    add_process_metrics(registry)
    return str(registry)


def _add_balancer(registry: MetricsRegistry, balancer: BalancerStats) -> None:
    versions = ("version", "python", "twisted")
    registry.gauge("balancebeam_build_info", "What is running; always 1.", *versions).add(
        1, __version__, platform.python_version(), twisted_version
    )
    registry.gauge("balancebeam_draining", "Whether it lets its clients go, to end.").add(
        balancer.draining
    )
    registry.gauge(
        "balancebeam_draining_services",
        "Pools and frontends that are configured no more, but have something in progress.",
    ).add(len(balancer.retired))
    registry.counter("balancebeam_reloads_total", "Changes of the settings.").add(balancer.reloads)
    registry.counter("balancebeam_reloads_failed_total", "Changes that were refused.").add(
        balancer.reloads_failed
    )
    registry.gauge(
        "balancebeam_last_reload_timestamp_seconds",
        "When the settings changed last, in seconds since the epoch; 0 for never.",
    ).add(balancer.reloaded_at)


def _add_pool(registry: MetricsRegistry, name: str, pool: PoolStats) -> None:
    dispatcher, links, gone = pool.dispatcher, pool.connections, pool.server_set.draining
    registry.counter(
        "balancebeam_requests_total", "Requests, or TCP connections, that came in.", "pool"
    ).add(dispatcher.total_requests, name)
    responses = registry.counter(
        "balancebeam_responses_total",
        "Requests that ended, by the status that the client got, none if it left before. "
        "Of TCP connections only those that found no server.",
        *("pool", "code"),
    )
    for status, count in sorted(dict(dispatcher.responses_by_status).items()):
        if status or pool.mode != "tcp":
            responses.add(count, name, status or "none")
    registry.counter("balancebeam_retries_total", "Requests sent to another server.", "pool").add(
        dispatcher.total_retries, name
    )
    registry.gauge("balancebeam_queued_requests", "Requests that wait for a server.", "pool").add(
        len(dispatcher.queue), name
    )
    registry.gauge("balancebeam_server_connections", "Connections to servers, open.", "pool").add(
        len(links.connections), name
    )
    registry.gauge(
        "balancebeam_server_pending_connections", "Connections to servers, begun.", "pool"
    ).add(len(links.attempts), name)
    registry.gauge(
        "balancebeam_draining_servers", "Servers that were removed, but are not done.", "pool"
    ).add(len(gone), name)
    registry.gauge("balancebeam_draining_requests", "Requests of removed servers.", "pool").add(
        sum(server.in_flight for server in gone), name
    )


def _add_server(registry: MetricsRegistry, pool: str, server: Server) -> None:
    labels, whose = ("pool", "server"), (pool, server.name)
    gauges = (
        ("up", "Whether the state is up.", server.status == "up"),
        ("available", "Whether it gets new traffic.", server.available),
        ("weight", "Its weight, as it is now.", server.weight),
        ("in_flight", "Requests, or TCP connections, in progress.", server.in_flight),
        (
            "idle_connections",
            "Connections kept for the next request.",
            len(server.idle_connections),
        ),
    )
    for name, text, value in gauges:
        registry.gauge(f"balancebeam_server_{name}", text, *labels).add(value, *whose)
    registry.counter("balancebeam_server_requests_total", "Requests it was given.", *labels).add(
        server.total_requests, *whose
    )
    registry.counter("balancebeam_server_failures_total", "Requests it failed.", *labels).add(
        server.failed_requests, *whose
    )
    states = registry.gauge(
        "balancebeam_server_state", "1 for the state it is in.", *labels, "state"
    )
    for state in ("up", "down", "draining", "maintenance"):
        states.add(server.status == state, *whose, state)
    check = server.last_check
    if check is not None:
        registry.gauge(
            "balancebeam_server_health_check_passed", "How the last check went.", *labels
        ).add(check.passed, *whose)
        registry.gauge(
            "balancebeam_server_health_check_timestamp_seconds",
            "When it was checked last, in seconds since the epoch.",
            *labels,
        ).add(check.checked_at, *whose)


def _add_limits(registry: MetricsRegistry, limiter: LimiterStats) -> None:
    for scope, limits in limiter.scopes.items():
        for limit in limits:
            if limit.settings.dry_run:
                family = registry.counter(
                    "balancebeam_limit_dry_run_rejected_total",
                    "Requests that a limit on trial would have refused.",
                    *("scope", "limit"),
                )
            else:
                family = registry.counter(
                    "balancebeam_limit_rejected_total",
                    "Requests that a limit refused.",
                    *("scope", "limit"),
                )
            family.add(limit.rejected, scope, limit.settings.title)
