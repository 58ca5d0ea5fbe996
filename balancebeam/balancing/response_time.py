"""The server that is likely to answer first."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log

from balancebeam.balancing.interfaces import BackendT
from balancebeam.balancing.least_loaded import LeastLoaded

# Seconds over which what was measured loses its weight, as in Finagle.
DECAY_TIME = 10.0

# A clock may be too coarse to see a quick answer (seconds).
_MIN_SECONDS = 1e-6


class LeastResponseTime(LeastLoaded[BackendT]):
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

    best_reason = "the quickest answers for what is in flight"
    next_reason = "the next quickest answers for what is in flight"

    def __init__(self) -> None:
        super().__init__()
        # Seconds, and when that was so.
        self._averages: dict[BackendT, tuple[float, float]] = {}
        # When those that have requests last answered one, or got the first.
        self._last_response_at: dict[BackendT, float] = {}
        # The slowest answer, as if it had come at time 0; a logarithm.
        self._slowest: float | None = None

    def update(self, servers: Sequence[BackendT]) -> None:
        self._averages = {s: self._averages[s] for s in servers if s in self._averages}
        self._last_response_at = {
            s: t for s, t in self._last_response_at.items() if s in self._averages
        }
        super().update(servers)

    def cost(self, server: BackendT) -> float:
        average = self._averages.get(server)
        requests = (server.in_flight + 1) / server.effective_weight
        if average is None:
            return (self._slowest or 0.0) + log(requests) if server.in_flight else -inf
        seconds, since = average
        return log(seconds * requests) + since / DECAY_TIME

    def request_started(self, server: BackendT, now: float) -> None:
        if server.in_flight == 1:
            self._last_response_at[server] = now
        else:
            known = self._averages.get(server)
            silent = now - self._last_response_at.get(server, now)
            if known is not None and silent > known[0]:
                self._observe(server, silent, now)
        super().request_started(server, now)

    def response_started(self, server: BackendT, seconds: float, now: float) -> None:
        self._observe(server, seconds, now)
        self._last_response_at[server] = now
        super().response_started(server, seconds, now)

    def request_finished(self, server: BackendT, seconds: float | None, now: float) -> None:
        if seconds is not None:
            self._observe(server, seconds, now)
            self._last_response_at[server] = now
        super().request_finished(server, seconds, now)

    def _observe(self, server: BackendT, seconds: float, now: float) -> None:
        if server not in self._entries:
            return
        seconds = max(seconds, _MIN_SECONDS)
        known = self._averages.get(server)
        if known is not None:
            left = exp(min(known[1] - now, 0.0) / DECAY_TIME)
            # A peak counts whole.
            seconds = max(seconds, known[0] * left + seconds * (1 - left))
        self._averages[server] = (seconds, now)
        load = log(seconds) + now / DECAY_TIME
        if self._slowest is None:
            # Now those that have not answered yet can be compared with it.
            self._slowest = load
            super().update(tuple(self._entries))
        self._slowest = max(self._slowest, load)
