"""Error rates: which servers respond with 5xx too often."""

from __future__ import annotations

from collections import deque

from attrs import define, frozen

from balancebeam.core.settings import OutlierDetectionSettings


class ErrorRateWindow:
    """
    Counts the responses and errors of one server over a sliding window.

    Memory is bounded by the ticks in a window: one bucket for each.

    Attributes:
        window: Length of the window in seconds.
        responses: Responses within the window.
        errors: Responses with a 5xx status within the window.
    """

    def __init__(self, window: float) -> None:
        self.window = window
        self._buckets: deque[_Bucket] = deque()
        self.responses = 0
        self.errors = 0

    def add(self, error: bool, now: float) -> None:
        """Count one response at `now`, a time of the ticker that never decreases."""
        buckets = self._buckets
        if not buckets or buckets[-1].timestamp != now:
            buckets.append(_Bucket(now))
            while buckets[0].timestamp <= now - self.window:
                expired = buckets.popleft()
                self.responses -= expired.responses
                self.errors -= expired.errors
        buckets[-1].responses += 1
        buckets[-1].errors += error
        self.responses += 1
        self.errors += error

    def clear(self) -> None:
        """Remove all counts."""
        self._buckets.clear()
        self.responses = self.errors = 0


@define
class _Bucket:
    """The counts of one tick."""

    timestamp: float
    responses: int = 0
    errors: int = 0


@frozen
class ErrorRatePolicy:
    """
    Decides whether a server is an outlier, as Envoy's outlier detection does.

    Attributes:
        ratio: Share of errors above which a server is an outlier, from 0 to 1.
        min_requests: Responses in the window below which no verdict is given.
        max_ejected_ratio: Share of all servers that may be ejected as outliers at the same
            time; one server always may.
    """

    ratio: float
    min_requests: int = 20
    max_ejected_ratio: float = 0.5

    @classmethod
    def from_settings(cls, settings: OutlierDetectionSettings) -> ErrorRatePolicy | None:
        """Build the policy of `settings`; `None` if they have no `error_ratio`."""
        if settings.error_ratio is None:
            return None
        return cls(settings.error_ratio, settings.min_requests, settings.max_ejected_ratio)

    def exceeded(self, counts: ErrorRateWindow) -> bool:
        """Whether the share of errors is too large."""
        enough = counts.responses >= self.min_requests
        return enough and counts.errors > self.ratio * counts.responses

    def can_eject(self, ejected: int, servers: int) -> bool:
        """Whether another outlier may be ejected, of `servers` with `ejected` already out."""
        return ejected < max(1, int(self.max_ejected_ratio * servers))
