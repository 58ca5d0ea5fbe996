"""
The metrics of a balancer.

They are read from its services at each scrape, so that requests update nothing
but the counters that the services need anyway. The metrics of pools and servers
are read while the text is made, which takes several turns of the event loop: the values of
one scrape may be some milliseconds apart.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator

from twisted.copyright import version as twisted_version

from balancebeam import __version__
from balancebeam.observability.interfaces import BalancerStats, LimiterStats
from balancebeam.observability.latency_metrics import (
    add_byte_counts,
    add_event_loop_lag,
    add_pool_latency,
)
from balancebeam.observability.pool_metrics import add_pools, add_servers
from balancebeam.observability.process_metrics import add_process_metrics
from balancebeam.observability.prometheus import MetricsRegistry
from balancebeam.observability.tls_metrics import add_tls_handshakes


def metrics_text(balancer: BalancerStats, *, openmetrics: bool = False) -> str:
    """Return all metrics of `balancer` in the text format of Prometheus, or in OpenMetrics."""
    return "".join(metrics_texts(balancer, openmetrics=openmetrics))


def metrics_texts(balancer: BalancerStats, *, openmetrics: bool = False) -> Iterator[str]:
    """Make the same text in pieces; the time for each does not depend on the number of servers."""
    return _collect_metrics(balancer).texts(openmetrics=openmetrics)


def _collect_metrics(balancer: BalancerStats) -> MetricsRegistry:
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
    add_pools(registry, balancer.pools)
    add_servers(registry, balancer.pools)
    add_pool_latency(registry, balancer.pools)
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
