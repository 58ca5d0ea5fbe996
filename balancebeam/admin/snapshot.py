"""
The snapshot of the balancer for the admin page: one JSON text, made once for all viewers.

Fields of servers have the names of `GET /upstreams`. Rates are per second, durations in seconds.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attrs import asdict

from balancebeam import __version__
from balancebeam.admin.interfaces import Balancer, Pool
from balancebeam.admin.quantiles import window_quantiles
from balancebeam.admin.responses import array_pieces
from balancebeam.admin.state_changes import StateChange
from balancebeam.admin.traffic import WINDOW, TrafficSampler, window_ratio
from balancebeam.admin.views import format_time, server_view
from balancebeam.observability.process_metrics import resident_bytes, start_time
from balancebeam.upstream.server import Server

_DAY = 86400.0

_encode = json.JSONEncoder(separators=(",", ":")).encode

# Fields of a server that the page does not show in its table; `GET /upstreams` has them.
_OMITTED = ("tls", "last_check")


class SnapshotBuilder:
    """Builds snapshots of a balancer from its state and the samples of its traffic."""

    def __init__(
        self,
        balancer: Balancer,
        sampler: TrafficSampler,
        wall_time: Callable[[], float] = time.time,
        cpu_time: Callable[[], float] = time.process_time,
    ) -> None:
        """
        Args:
            balancer: The balancer.
            sampler: The samples of its counters.
            wall_time: Returns the time of day in seconds since the epoch.
            cpu_time: Returns the CPU seconds of the process.
        """
        self._balancer = balancer
        self._sampler = sampler
        self._wall_time = wall_time
        self._cpu_time = cpu_time
        self._last_cpu = (wall_time(), cpu_time())

    def pieces(self) -> Iterator[str]:
        """
        Make a snapshot as JSON without line breaks, in pieces of one pool or server at most.

        docs/admin-api.rst lists the fields.
        """
        balancer = self._balancer
        pools = list(balancer.pools.items())
        head = {
            "time": format_time(self._wall_time()),
            "window": WINDOW,
            "process": self._process(),
        }
        yield _encode(head)[:-1]
        yield ',"pools":'
        yield from array_pieces((self._pool(name, pool) for name, pool in pools), _encode)
        yield ',"servers":'
        servers = (server for _, pool in pools for server in self._servers(pool))
        yield from array_pieces(servers, _encode)
        yield ',"limits":' + _encode(self._limits())
        yield ',"frontends":' + _encode(self._frontends())
        changes = [change_view(change) for change in reversed(balancer.state_changes.recent)]
        yield ',"changes":' + _encode(changes) + "}"

    def _servers(self, pool: Pool) -> Iterator[dict[str, Any]]:
        requests = self._recent_requests(pool)
        for server in (*pool.server_set.servers, *pool.server_set.draining):
            yield self._server(pool, server, requests)

    def _process(self) -> dict[str, Any]:
        balancer, now = self._balancer, self._wall_time()
        started_at = start_time()
        then, used_then = self._last_cpu
        used = self._cpu_time()
        if now - then >= 0.5:
            # Several requests of one second do not shorten the interval.
            self._last_cpu = (now, used)
        return {
            "version": __version__,
            "uptime": None if started_at is None else max(0, round(now - started_at)),
            "rss": resident_bytes(),
            "cpu": round((used - used_then) / (now - then), 3) if now > then else None,
            "reloads": balancer.reloads,
            "reloads_failed": balancer.reloads_failed,
            "reloaded_at": format_time(balancer.reloaded_at) if balancer.reloaded_at else None,
            "draining": balancer.draining,
            "not_ready": balancer.not_ready_reason(),
            "retired": len(balancer.retired),
        }

    def _recent_requests(self, pool: Pool) -> int:
        """Return the requests sent to the servers of `pool` in the window."""
        servers = (*pool.server_set.servers, *pool.server_set.draining)
        tracks = self._sampler.servers
        return sum(tracks[server].requests.recent for server in servers if server in tracks)

    def _pool(self, name: str, pool: Pool) -> dict[str, Any]:
        sampler, key = self._sampler, (name, id(pool))
        requests = sampler.pools.get(key)
        ratio = None
        if requests is not None:
            ratio = window_ratio(sampler.errors[key], sampler.responses[key])
        median, high = window_quantiles(sampler.latency.get(key, deque()))
        servers = pool.server_set.servers
        return {
            "name": name,
            "mode": pool.mode,
            "algorithm": pool.settings.algorithm,
            "servers": len(servers),
            "available": sum(server.available for server in servers),
            "requests": pool.dispatcher.total_requests,
            "rate": 0.0 if requests is None else round(requests.rate, 1),
            "history": [] if requests is None else list(requests.history),
            "error_rate": _rounded(ratio, 4),
            "retries": pool.dispatcher.total_retries,
            "queued": len(pool.dispatcher.queue),
            "in_flight": sum(server.in_flight for server in (*servers, *pool.server_set.draining)),
            "connections": len(pool.connections.connections),
            "p50": _rounded(median, 6),
            "p99": _rounded(high, 6),
        }

    def _server(self, pool: Pool, server: Server, pool_requests: int) -> dict[str, Any]:
        view = server_view(pool, server)
        for name in _OMITTED:
            del view[name]
        track = self._sampler.servers.get(server)
        view["available"] = server.available
        view["idle"] = len(server.idle_connections)
        if track is None:
            # Added since the last sample.
            return {**view, **_NO_TRAFFIC}
        requests = track.requests
        view["rate"] = round(requests.rate, 1)
        view["share"] = round(requests.recent / pool_requests, 4) if pool_requests else None
        view["error_rate"] = _rounded(track.error_rate, 4)
        median, high = track.quantiles
        view["p50"], view["p99"] = _rounded(median, 6), _rounded(high, 6)
        view["history"] = list(requests.history)
        return view

    def _limits(self) -> list[dict[str, Any]]:
        views = []
        for scope, limits in self._balancer.limiter.scopes.items():
            for index, limit in enumerate(limits):
                track = self._sampler.limits.get((scope, index, id(limit)))
                settings = limit.settings
                views.append(
                    {
                        "scope": scope,
                        "name": settings.title,
                        "algorithm": settings.algorithm,
                        "requests": settings.requests,
                        "window": None if limit.concurrent else settings.window,
                        "key": settings.key,
                        "dry_run": settings.dry_run,
                        "rejected": limit.rejected,
                        "rejected_last_minute": 0 if track is None else sum(track.history),
                    }
                )
        return views

    def _frontends(self) -> list[dict[str, Any]]:
        balancer, now = self._balancer, self._wall_time()
        certificates: dict[str, list[dict[str, Any]]] = {}
        for (frontend, name), expires_at in balancer.certificates.expiry_times().items():
            certificates.setdefault(frontend, []).append(
                {
                    "name": name,
                    "not_after": format_time(expires_at),
                    "days_left": int((expires_at - now) // _DAY),
                }
            )
        views = []
        for settings in balancer.settings.frontends:
            frontend_stats = balancer.frontends.get(settings.name)
            if frontend_stats is None:
                continue
            factory = frontend_stats.factory
            views.append(
                {
                    "name": settings.name,
                    "mode": settings.mode,
                    "bind": [str(address) for address in settings.bind],
                    "pool": None if settings.redirect_https else settings.pool,
                    "tls": settings.tls is not None,
                    "connections": len(factory.channels),
                    "max_connections": settings.max_connections or None,
                    "rejected": sum(factory.rejected_requests.values()),
                    "certificates": certificates.get(settings.name, []),
                }
            )
        return views


_NO_TRAFFIC: Mapping[str, Any] = {
    "rate": 0.0,
    "share": None,
    "error_rate": None,
    "p50": None,
    "p99": None,
    "history": [],
}


def change_view(change: StateChange) -> dict[str, Any]:
    """Return the JSON object of a state change, as the event `change` has it."""
    view = asdict(change)
    view["time"] = format_time(change.time)
    view["address"] = view.pop("server")
    return view


def change_json(change: StateChange) -> bytes:
    """Return a state change as JSON without line breaks."""
    return _encode(change_view(change)).encode()


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
