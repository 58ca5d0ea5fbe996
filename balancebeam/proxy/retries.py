"""Retries: whether a request that failed at one server may be sent to another."""

from __future__ import annotations

from collections import deque

from attrs import frozen

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.protocols.http1.grammar import IDEMPOTENT_METHODS

# Seconds over which retries are compared with requests. Finagle's retry budget also
# has a time to live of 10 s.
WINDOW_SECONDS = 10.0

# Retries that are allowed in a window however few requests there are: otherwise a
# server that fails at low traffic would not be retried at all.
MIN_RETRIES = 10

# Failures after which no other server is tried.
_NEVER_RETRIED = (
    *(FailureKind.DEADLINE, FailureKind.STOPPING),
    *(FailureKind.NO_DESCRIPTORS, FailureKind.NO_UPGRADE),
)


@frozen
class RetryPolicy:
    """
    Decides whether a failed attempt may be retried.

    Attributes:
        attempts: The maximum number of servers that are tried for one request.
        on: The failures after which a request is retried; see `RetrySettings`.
    """

    attempts: int = 3
    on: tuple[str, ...] = ("connect", "cut")

    def allows(self, method: bytes, failure: UpstreamFailure, replayable: bool) -> bool:
        """
        Whether a request may be sent again.

        RFC 9110, 9.2.2: "A proxy MUST NOT automatically retry non-idempotent
        requests." A request of which nothing was sent is not retried in that sense.
        Timeouts are not retried by default, because the same load on another server
        does not help a slow one. No request is retried after its deadline, when the balancer
        stops, or without a file descriptor for a connection to any server. A stale idle
        connection is replaced whatever `on` contains: that is a race, and no failure of the
        server. So is a request that an HTTP/2 server has not processed, whatever its method
        (RFC 9113, 8.7).

        Args:
            method: The method of the request.
            failure: How the attempt failed.
            replayable: Whether the body that was sent is still buffered.
        """
        if failure.kind in _NEVER_RETRIED:
            return False
        if failure.kind is FailureKind.REFUSED:
            return replayable
        if failure.nothing_sent:
            return "connect" in self.on
        if failure.kind is not FailureKind.STALE:
            late = failure.kind in (FailureKind.TIMEOUT, FailureKind.STALLED)
            if ("timeout" if late else "cut") not in self.on:
                return False
        return replayable and method in IDEMPOTENT_METHODS


class RetryBudget:
    """
    Limits retries to a share of the requests of the last `WINDOW_SECONDS` seconds.

    Servers that fail under load do not get even more of it. The algorithm is that of
    Finagle's `RetryBudget`: a ratio plus a constant, here `MIN_RETRIES`.

    Attributes:
        ratio: Retries per request.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self._retries = 0
        # Times with the total of requests and of retries until then. The first entry
        # is the newest one that is at least `WINDOW_SECONDS` old.
        self._history: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def record(self, now: float, requests: int) -> None:
        """
        Record the totals of this moment; called at every sweep.

        Args:
            now: The time in seconds.
            requests: The number of requests received until now.
        """
        history = self._history
        history.append((now, requests, self._retries))
        while history[1][0] <= now - WINDOW_SECONDS:
            history.popleft()

    def allows(self, requests: int) -> bool:
        """Whether another retry is allowed after `requests` requests in total."""
        _, requests_then, retries_then = self._history[0]
        allowed = max(MIN_RETRIES, self.ratio * (requests - requests_then))
        return self._retries - retries_then < allowed

    def spend(self) -> None:
        """Count one retry."""
        self._retries += 1
