"""The server that is likely to answer first."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log

from balancebeam.balancing.interfaces import C
from balancebeam.balancing.least_loaded import LeastFirst

# Seconds over which what was measured loses its weight, as in Finagle.
TAU = 10.0

# A clock may be too coarse to see a quick answer (seconds).
_SHORTEST = 1e-6


class LeastResponseTime(LeastFirst[C]):
    """
    Peak-EWMA latency times requests in flight, for its share; Finagle's
    `PeakEwma`: the average of the time until an answer begins, in which a
    slow answer counts at once and fades, as all does without new answers.

    All averages fade at the same rate, so their order does not change by
    itself: the logarithm of what an average would have been at time 0 is
    compared, and nothing has to be recomputed as time goes by.

    A new server gets one request, and until that is answered counts as the
    slowest of all. One that has had requests for a while and answers none is
    as slow as that, whatever it was before.
    """

    best = "the quickest answers for what is in flight"
    others = "the next quickest answers for what is in flight"

    def __init__(self) -> None:
        super().__init__()
        # Seconds, and when that was so.
        self._averages: dict[C, tuple[float, float]] = {}
        # When those that have requests last answered one, or got the first.
        self._silent_since: dict[C, float] = {}
        # The slowest answer, as if it had come at time 0; a logarithm.
        self._slowest: float | None = None

    def meet(self, servers: Sequence[C]) -> None:
        self._averages = {s: self._averages[s] for s in servers if s in self._averages}
        self._silent_since = {s: t for s, t in self._silent_since.items() if s in self._averages}
        super().meet(servers)

    def load(self, server: C) -> float:
        average = self._averages.get(server)
        requests = (server.in_flight + 1) / server.share
        if average is None:
            return (self._slowest or 0.0) + log(requests) if server.in_flight else -inf
        seconds, since = average
        return log(seconds * requests) + since / TAU

    def taken(self, server: C, now: float) -> None:
        if server.in_flight == 1:
            self._silent_since[server] = now
        else:
            known = self._averages.get(server)
            silent = now - self._silent_since.get(server, now)
            if known is not None and silent > known[0]:
                self._observe(server, silent, now)
        super().taken(server, now)

    def answered(self, server: C, seconds: float, now: float) -> None:
        self._observe(server, seconds, now)
        self._silent_since[server] = now
        super().answered(server, seconds, now)

    def released(self, server: C, seconds: float | None, now: float) -> None:
        if seconds is not None:
            self._observe(server, seconds, now)
            self._silent_since[server] = now
        super().released(server, seconds, now)

    def _observe(self, server: C, seconds: float, now: float) -> None:
        if server not in self._current:
            return
        seconds = max(seconds, _SHORTEST)
        known = self._averages.get(server)
        if known is not None:
            left = exp(min(known[1] - now, 0.0) / TAU)
            # A peak counts whole.
            seconds = max(seconds, known[0] * left + seconds * (1 - left))
        self._averages[server] = (seconds, now)
        load = log(seconds) + now / TAU
        if self._slowest is None:
            # Now those that have not answered yet can be compared with it.
            self._slowest = load
            super().meet(tuple(self._current))
        self._slowest = max(self._slowest, load)
