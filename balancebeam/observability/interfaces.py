"""Interfaces through which metrics read a running balancer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sized
from typing import Protocol

from balancebeam.observability.latency import EventLoopLatency, PoolLatency
from balancebeam.ratelimit.limit import Limit
from balancebeam.upstream.server_set import ServerSet


class DispatcherStats(Protocol):
    """
    The dispatcher of a pool.

    Attributes:
        total_requests: Requests, or TCP connections, since the pool was created.
        total_retries: Attempts after the first of a request.
        retries_by_reason: The same by a word for the failure before.
    """

    total_requests: int
    total_retries: int

    @property
    def retries_by_reason(self) -> Mapping[str, int]:
        """The number of retries by the label of the failure before, a word of a fixed set."""

    @property
    def responses_by_status(self) -> Mapping[int, int]:
        """The number of finished requests by status; 0 stands for no response."""

    @property
    def queue(self) -> Sized:
        """The queued requests."""


class ConnectionPoolStats(Protocol):
    """The connections to the servers of a pool."""

    @property
    def connections(self) -> Sized:
        """The open connections."""

    @property
    def attempts(self) -> Sized:
        """The connect attempts in progress."""


class PoolStats(Protocol):
    """
    A pool of servers.

    Attributes:
        mode: "http" or "tcp".
        server_set: The servers.
        latency: The latency histograms.
    """

    mode: str
    server_set: ServerSet
    latency: PoolLatency

    @property
    def dispatcher(self) -> DispatcherStats:
        """The dispatcher of the pool."""

    @property
    def connections(self) -> ConnectionPoolStats:
        """The connections to its servers."""


class FactoryStats(Protocol):
    """The protocol factory of a frontend."""

    @property
    def channels(self) -> Sized:
        """The open client connections."""

    @property
    def byte_counts(self) -> tuple[int, int]:
        """The bytes received from and sent to clients."""

    @property
    def rejected_requests(self) -> Mapping[int, int]:
        """The number of requests rejected before dispatch, by status."""


class TlsStats(Protocol):
    """The TLS handshakes of a frontend."""

    @property
    def completed(self) -> Mapping[tuple[str, bool], int]:
        """The number of completed handshakes by version and whether a session was resumed."""

    @property
    def failed(self) -> Mapping[str, int]:
        """The number of failed handshakes by reason, a word of a fixed set."""


class FrontendStats(Protocol):
    """A frontend."""

    @property
    def tls_factory(self) -> TlsStats:
        """The TLS handshakes of its listeners; none without TLS."""

    @property
    def factory(self) -> FactoryStats:
        """The protocol factory of its listeners."""


class LimiterStats(Protocol):
    """The rate limits of a balancer."""

    @property
    def scopes(self) -> Mapping[str, Iterable[Limit]]:
        """The limits by scope: a frontend, a route or a pool."""


class LogFileStats(Protocol):
    """
    A log file.

    Attributes:
        dropped_lines: Lines that could not be written.
    """

    dropped_lines: int


class CertificateStats(Protocol):
    """The certificates of all frontends with TLS."""

    def expiry_times(self) -> Mapping[tuple[str, str], float]:
        """Return POSIX times by frontend and name of the certificate."""


class AccessLogStats(Protocol):
    """The access logs of a balancer."""

    @property
    def files(self) -> Mapping[str, LogFileStats]:
        """The log files by path."""


class SpanStats(Protocol):
    """
    The spans of traces.

    Attributes:
        exported: Spans that the collector has accepted.
        lost: Spans that were not exported.
    """

    exported: int
    lost: int


class BalancerStats(Protocol):
    """
    A balancer.

    Attributes:
        draining: Whether a graceful shutdown is in progress.
    """

    draining: bool

    @property
    def span_counts(self) -> SpanStats:
        """The numbers of exported and lost spans."""

    @property
    def reloads(self) -> int:
        """The number of successful reloads."""

    @property
    def reloads_failed(self) -> int:
        """The number of rejected reloads."""

    @property
    def reloaded_at(self) -> float:
        """When the last reload succeeded, in seconds since the epoch; 0 for never."""

    @property
    def pools(self) -> Mapping[str, PoolStats]:
        """The pools by name."""

    @property
    def frontends(self) -> Mapping[str, FrontendStats]:
        """The frontends by name."""

    @property
    def limiter(self) -> LimiterStats:
        """The rate limits."""

    @property
    def event_loop(self) -> EventLoopLatency:
        """The lag of the event loop."""

    @property
    def access_logs(self) -> AccessLogStats:
        """The access logs."""

    @property
    def certificates(self) -> CertificateStats:
        """The certificates."""

    @property
    def retired(self) -> Sized:
        """The pools and frontends that a reload removed, and that are still active."""
