"""Servers whose answers are errors too often."""

from __future__ import annotations

from collections import deque

from attrs import define, frozen


class AnswerCounts:
    """How many answers one server gave, and how many were errors, over `window` seconds."""

    def __init__(self, window: float) -> None:
        self.window = window
        # When, how many, how many errors: one for each moment of the ticker.
        self._moments: deque[_Moment] = deque()
        self.answers = 0
        self.errors = 0

    def add(self, error: bool, now: float) -> None:
        """Count one answer."""
        moments = self._moments
        if not moments or moments[-1].when != now:
            moments.append(_Moment(now))
            while moments[0].when <= now - self.window:
                past = moments.popleft()
                self.answers -= past.answers
                self.errors -= past.errors
        moments[-1].answers += 1
        moments[-1].errors += error
        self.answers += 1
        self.errors += error

    def clear(self) -> None:
        """Forget all."""
        self._moments.clear()
        self.answers = self.errors = 0


@define
class _Moment:
    when: float
    answers: int = 0
    errors: int = 0


@frozen
class ErrorRatio:
    """
    Whether a server is an outlier, as in Envoy's outlier detection: more than
    a share of `ratio` of its answers were errors, among at least
    `min_requests`. No more than `max_ejected_ratio` of all servers, but always
    one, may be out for that.
    """

    ratio: float
    min_requests: int = 20
    max_ejected_ratio: float = 0.5

    def exceeded(self, counts: AnswerCounts) -> bool:
        """Whether too many of the answers were errors."""
        enough = counts.answers >= self.min_requests
        return enough and counts.errors > self.ratio * counts.answers

    def may_eject(self, out: int, servers: int) -> bool:
        """Whether one more may go, of so many servers of which `out` are out."""
        return out < max(1, int(self.max_ejected_ratio * servers))
