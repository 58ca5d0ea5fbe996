"""A balancer, as far as its metrics show it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from balancebeam.ratelimit.limit import Limit
from balancebeam.upstream.server_set import ServerSet


class Spine(Protocol):
    """The way of a pool's requests, and what it has counted."""

    total_requests: int
    total_retries: int

    @property
    def answered(self) -> Mapping[int, int]: ...
    @property
    def waiting(self) -> Sized: ...


class Connections(Protocol):
    """Connections to servers, and attempts at more."""

    @property
    def connections(self) -> Sized: ...
    @property
    def attempts(self) -> Sized: ...


class Pool(Protocol):
    """The servers of a pool, in `mode` "http" or "tcp"."""

    mode: str
    server_set: ServerSet

    @property
    def dispatcher(self) -> Spine: ...
    @property
    def connections(self) -> Connections: ...


class Site(Protocol):
    """The connections of a frontend's clients, and what could not be read, by status."""

    @property
    def channels(self) -> Sized: ...
    @property
    def rejected_requests(self) -> Mapping[int, int]: ...


class Frontend(Protocol):
    """The clients of a frontend."""

    @property
    def site(self) -> Site: ...


class Limiter(Protocol):
    """All limits, by what they are about."""

    @property
    def scopes(self) -> Mapping[str, Iterable[Limit]]: ...


class LogFile(Protocol):
    """A log, and how many of its lines could not be written."""

    lost: int


class AccessLogs(Protocol):
    """The access logs, by path."""

    @property
    def files(self) -> Mapping[str, LogFile]: ...


class Balancer(Protocol):
    """
    A balancer, as far as metrics show it. `reloaded_at` is when its settings
    last changed, in seconds since the epoch; 0 for never.
    """

    draining: bool
    reloads: int
    reloads_failed: int
    reloaded_at: float

    @property
    def pools(self) -> Mapping[str, Pool]: ...
    @property
    def frontends(self) -> Mapping[str, Frontend]: ...
    @property
    def limiter(self) -> Limiter: ...
    @property
    def access_logs(self) -> AccessLogs: ...
    @property
    def leaving(self) -> Sized: ...
