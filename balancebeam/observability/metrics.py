"""What the balancer is doing, as Prometheus asks for it."""

from __future__ import annotations

import platform

from twisted.copyright import version as twisted_version

from balancebeam import __version__
from balancebeam.observability.interfaces import Balancer, Limiter, Pool
from balancebeam.observability.process_metrics import add_process
from balancebeam.observability.prometheus import Exposition
from balancebeam.upstream.server_set import Server


def metrics_text(balancer: Balancer) -> str:
    """All metrics in the text format of Prometheus, version 0.0.4."""
    to = Exposition()
    _add_balancer(to, balancer)
    for name, frontend in balancer.frontends.items():
        to.gauge(
            "balancebeam_frontend_connections", "Connections of clients that are open.", "frontend"
        ).add(len(frontend.site.channels), name)
        refused = to.counter(
            "balancebeam_unread_requests_total",
            "Requests that could not be read, or were too big or too slow, by what they got.",
            *("frontend", "code"),
        )
        for status, count in sorted(dict(frontend.site.rejected_requests).items()):
            refused.add(count, name, status)
    for name, pool in balancer.pools.items():
        _add_pool(to, name, pool)
        for server in pool.server_set.servers:
            _add_server(to, name, server)
    _add_limits(to, balancer.limiter)
    for path, file in balancer.access_logs.files.items():
        to.counter(
            "balancebeam_access_log_lost_lines_total", "Lines that could not be written.", "file"
        ).add(file.lost, path)
    add_process(to)
    return str(to)


def _add_balancer(to: Exposition, balancer: Balancer) -> None:
    versions = ("version", "python", "twisted")
    to.gauge("balancebeam_build_info", "What is running; always 1.", *versions).add(
        1, __version__, platform.python_version(), twisted_version
    )
    to.gauge("balancebeam_draining", "Whether it lets its clients go, to end.").add(
        balancer.draining
    )
    to.gauge(
        "balancebeam_leaving",
        "Pools and frontends that are configured no more, but have something in progress.",
    ).add(len(balancer.leaving))
    to.counter("balancebeam_reloads_total", "Changes of the settings.").add(balancer.reloads)
    to.counter("balancebeam_reloads_failed_total", "Changes that were refused.").add(
        balancer.reloads_failed
    )
    to.gauge(
        "balancebeam_last_reload_timestamp_seconds",
        "When the settings changed last, in seconds since the epoch; 0 for never.",
    ).add(balancer.reloaded_at)


def _add_pool(to: Exposition, name: str, pool: Pool) -> None:
    dispatcher, links, gone = pool.dispatcher, pool.connections, pool.server_set.draining
    to.counter(
        "balancebeam_requests_total", "Requests, or TCP connections, that came in.", "pool"
    ).add(dispatcher.total_requests, name)
    responses = to.counter(
        "balancebeam_responses_total",
        "Requests that ended, by the status that the client got, none if it left before. "
        "Of TCP connections only those that found no server.",
        *("pool", "code"),
    )
    for status, count in sorted(dict(dispatcher.answered).items()):
        if status or pool.mode != "tcp":
            responses.add(count, name, status or "none")
    to.counter("balancebeam_retries_total", "Requests sent to another server.", "pool").add(
        dispatcher.total_retries, name
    )
    to.gauge("balancebeam_waiting_requests", "Requests that wait for a server.", "pool").add(
        len(dispatcher.queue), name
    )
    to.gauge("balancebeam_server_connections", "Connections to servers, open.", "pool").add(
        len(links.connections), name
    )
    to.gauge("balancebeam_server_connecting", "Connections to servers, begun.", "pool").add(
        len(links.attempts), name
    )
    to.gauge(
        "balancebeam_leaving_servers", "Servers that were removed, but are not done.", "pool"
    ).add(len(gone), name)
    to.gauge("balancebeam_leaving_in_flight", "Requests of removed servers.", "pool").add(
        sum(server.in_flight for server in gone), name
    )


def _add_server(to: Exposition, pool: str, server: Server) -> None:
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
        to.gauge(f"balancebeam_server_{name}", text, *labels).add(value, *whose)
    to.counter("balancebeam_server_requests_total", "Requests it was given.", *labels).add(
        server.total_requests, *whose
    )
    to.counter("balancebeam_server_failures_total", "Requests it failed.", *labels).add(
        server.failed_requests, *whose
    )
    states = to.gauge("balancebeam_server_state", "1 for the state it is in.", *labels, "state")
    for state in ("up", "down", "draining", "maintenance"):
        states.add(server.status == state, *whose, state)
    check = server.last_check
    if check is not None:
        to.gauge("balancebeam_server_check_passed", "How the last check went.", *labels).add(
            check.passed, *whose
        )
        to.gauge(
            "balancebeam_server_check_timestamp_seconds",
            "When it was checked last, in seconds since the epoch.",
            *labels,
        ).add(check.checked_at, *whose)


def _add_limits(to: Exposition, limiter: Limiter) -> None:
    for scope, limits in limiter.scopes.items():
        for limit in limits:
            if limit.settings.dry_run:
                family = to.counter(
                    "balancebeam_limit_dry_run_refused_total",
                    "Requests that a limit on trial would have refused.",
                    *("scope", "limit"),
                )
            else:
                family = to.counter(
                    "balancebeam_limit_refused_total",
                    "Requests that a limit refused.",
                    *("scope", "limit"),
                )
            family.add(limit.rejected, scope, limit.settings.title)
