"""Servers whose responses are errors too often."""

from __future__ import annotations

from collections import deque

from attrs import define, frozen


class ErrorRateWindow:
    """How many responses one server gave, and how many were errors, over `window` seconds."""

    def __init__(self, window: float) -> None:
        self.window = window
        # Timestamp, how many, how many errors: one for each moment of the ticker.
        self._buckets: deque[_Bucket] = deque()
        self.responses = 0
        self.errors = 0

    def add(self, error: bool, now: float) -> None:
        """Count one answer."""
        moments = self._buckets
        if not moments or moments[-1].timestamp != now:
            moments.append(_Bucket(now))
            while moments[0].timestamp <= now - self.window:
                past = moments.popleft()
                self.responses -= past.responses
                self.errors -= past.errors
        moments[-1].responses += 1
        moments[-1].errors += error
        self.responses += 1
        self.errors += error

    def clear(self) -> None:
        """Forget all."""
        self._buckets.clear()
        self.responses = self.errors = 0


@define
class _Bucket:
    timestamp: float
    responses: int = 0
    errors: int = 0


@frozen
class ErrorRatePolicy:
    """
    Whether a server is an outlier, as in Envoy's outlier detection: more than
    a share of `ratio` of its responses were errors, among at least
    `min_requests`. No more than `max_ejected_ratio` of all servers, but always
    one, may be out for that.
    """

    ratio: float
    min_requests: int = 20
    max_ejected_ratio: float = 0.5

    def exceeded(self, counts: ErrorRateWindow) -> bool:
        """Whether too many of the responses were errors."""
        enough = counts.responses >= self.min_requests
        return enough and counts.errors > self.ratio * counts.responses

    def can_eject(self, ejected: int, servers: int) -> bool:
        """Whether one more may go, of so many servers of which `out` are out."""
        return ejected < max(1, int(self.max_ejected_ratio * servers))
