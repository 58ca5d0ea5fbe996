"""Whether a request that failed at one server may be tried at another."""

from __future__ import annotations

from collections import deque

from attrs import frozen

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.protocols.http1.grammar import IDEMPOTENT_METHODS

# Seconds over which retries are compared with requests, and how many retries
# are allowed however few requests there are.
WINDOW_SECONDS = 10.0
MIN_RETRIES = 10


@frozen
class RetryPolicy:
    """`attempts` bounds the servers that are tried for one request."""

    attempts: int = 3

    def allows(self, method: bytes, failure: UpstreamFailure, replayable: bool) -> bool:
        """
        RFC 9110, 9.2.2: "A proxy MUST NOT automatically retry non-idempotent
        requests." What never left this machine is not a retry.

        `replayable`: all of the body that was sent is still here. A server
        that is slow is not helped by asking another one the same, and when
        the balancer stops there is no other.
        """
        if failure.kind is FailureKind.STOPPING:
            return False
        if failure.nothing_sent:
            return True
        if failure.kind is FailureKind.TIMEOUT:
            return False
        return replayable and method in IDEMPOTENT_METHODS


class RetryBudget:
    """
    Keeps retries below a share of the requests of the last `WINDOW_SECONDS` seconds,
    so that servers which fail under load do not get even more of it. As in
    Finagle's retry budget, some are always allowed.
    """

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self._retries = 0
        # When, and both counts up to then; the first is the oldest that matters.
        self._history: deque[tuple[float, int, int]] = deque([(0.0, 0, 0)])

    def record(self, now: float, requests: int) -> None:
        """Remember that there were so many `requests` in all up to `now`."""
        past = self._history
        past.append((now, requests, self._retries))
        while past[1][0] <= now - WINDOW_SECONDS:
            past.popleft()

    def allows(self, requests: int) -> bool:
        """Whether one more retry is allowed, after so many `requests` in all."""
        _, requests_then, retries_then = self._history[0]
        allowed = max(MIN_RETRIES, self.ratio * (requests - requests_then))
        return self._retries - retries_then < allowed

    def spend(self) -> None:
        """There is one more retry."""
        self._retries += 1
