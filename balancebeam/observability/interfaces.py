"""A balancer, as far as its metrics show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from balancebeam.ratelimit.limit import Limit
from balancebeam.upstream.server_set import ServerSet


class DispatcherStats(Protocol):
    """The way of a pool's requests, and what it has counted."""

    total_requests: int
    total_retries: int

    @property
    def responses_by_status(self) -> Mapping[int, int]: ...
    @property
    def queue(self) -> Sized: ...


class ConnectionPoolStats(Protocol):
    """Connections to servers, and attempts at more."""

    @property
    def connections(self) -> Sized: ...
    @property
    def attempts(self) -> Sized: ...


class PoolStats(Protocol):
    """The servers of a pool, in `mode` "http" or "tcp"."""

    mode: str
    server_set: ServerSet

    @property
    def dispatcher(self) -> DispatcherStats: ...
    @property
    def connections(self) -> ConnectionPoolStats: ...


class FactoryStats(Protocol):
    """The connections of a frontend's clients, and what could not be read, by status."""

    @property
    def channels(self) -> Sized: ...
    @property
    def rejected_requests(self) -> Mapping[int, int]: ...


class FrontendStats(Protocol):
    """The clients of a frontend."""

    @property
    def factory(self) -> FactoryStats: ...


class LimiterStats(Protocol):
    """All limits, by what they are about."""

    @property
    def scopes(self) -> Mapping[str, Iterable[Limit]]: ...


class LogFileStats(Protocol):
    """A log, and how many of its lines could not be written."""

    dropped_lines: int


class AccessLogStats(Protocol):
    """The access logs, by path."""

    @property
    def files(self) -> Mapping[str, LogFileStats]: ...


class BalancerStats(Protocol):
    """
    A balancer, as far as metrics show it. `reloaded_at` is when its settings
    last changed, in seconds since the epoch; 0 for never.
    """

    draining: bool
    reloads: int
    reloads_failed: int
    reloaded_at: float

    @property
    def pools(self) -> Mapping[str, PoolStats]: ...
    @property
    def frontends(self) -> Mapping[str, FrontendStats]: ...
    @property
    def limiter(self) -> LimiterStats: ...
    @property
    def access_logs(self) -> AccessLogStats: ...
    @property
    def retired(self) -> Sized: ...
