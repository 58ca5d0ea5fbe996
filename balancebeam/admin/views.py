"""JSON views of servers, as `GET /upstreams` returns them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from typing import Any

from balancebeam.admin.interfaces import Pool
from balancebeam.upstream.server import CheckResult, Server


def server_views(pools: Iterable[Pool]) -> Iterator[dict[str, Any]]:
    """Return a view of every server of `pools`, draining servers last in each."""
    # The servers at the time of the call, each as it is when its view is made.
    servers = [
        (pool, server)
        for pool in pools
        for server in (*pool.server_set.servers, *pool.server_set.draining)
    ]
    return (server_view(pool, server) for pool, server in servers)


def server_view(pool: Pool, server: Server) -> dict[str, Any]:
    """Return the configuration, the state and the counters of `server`."""
    return {
        "pool": pool.settings.name,
        "address": server.name,
        "weight": server.weight,
        "state": "draining" if server.removed else server.status,
        "reason": "removed" if server.removed else server.status_reason,
        "since": format_time(server.status_since) if server.status_since else None,
        "in_flight": server.in_flight,
        "requests": server.total_requests,
        "failures": server.failed_requests,
        "backup": server.backup,
        "tls": pool.uses_tls(server),
        "source": server.source.value,
        "last_check": None if server.last_check is None else _check_view(server.last_check),
    }


def _check_view(check: CheckResult) -> dict[str, Any]:
    return {
        "time": format_time(check.checked_at),
        "passed": check.passed,
        "reason": check.reason,
    }


def format_time(seconds: float) -> str:
    """Format `seconds` since the epoch by RFC 3339, in UTC with milliseconds."""
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
