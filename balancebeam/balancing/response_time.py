"""Least response time: the server that is likely to respond first."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log

from balancebeam.balancing.interfaces import BackendT
from balancebeam.balancing.least_loaded import LeastLoaded

# Time constant in seconds with which old measurements decay; the default of Finagle.
DECAY_TIME = 10.0

# The smallest response time in seconds: a coarse clock may measure 0, which has no logarithm.
_MIN_SECONDS = 1e-6


class LeastResponseTime(LeastLoaded[BackendT]):
    """
    Peak-EWMA of the response time, times requests in flight per weight.

    This is Finagle's `PeakEwma`: an exponentially weighted moving average of the time until
    a response starts. A response slower than the average replaces it at once, and then
    decays, as the average does without responses.

    All averages decay at the same rate, so that time does not change their order. The
    costs compared are logarithms of the averages extrapolated to time 0, which need no
    update as time passes.

    A new server gets one request, and counts as the slowest server until it has responded.
    For a server with requests in flight, the time without any response counts as a response
    time.
    """

    best_reason = "least response time and requests in flight"
    next_reason = "next least response time and requests in flight"

    def __init__(self) -> None:
        super().__init__()
        # The average in seconds, and the time at which it had this value.
        self._averages: dict[BackendT, tuple[float, float]] = {}
        # When a server with requests in flight last responded, or got the first of them.
        self._last_response_at: dict[BackendT, float] = {}
        # Logarithm of the slowest response time, extrapolated to time 0.
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
            average = self._averages.get(server)
            silent = now - self._last_response_at.get(server, now)
            if average is not None and silent > average[0]:
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
        """Add a response time to the average of `server`."""
        if server not in self._entries:
            return
        seconds = max(seconds, _MIN_SECONDS)
        average = self._averages.get(server)
        if average is not None:
            decay = exp(min(average[1] - now, 0.0) / DECAY_TIME)
            # A peak replaces the average.
            seconds = max(seconds, average[0] * decay + seconds * (1 - decay))
        self._averages[server] = (seconds, now)
        cost = log(seconds) + now / DECAY_TIME
        if self._slowest is None:
            # Recompute the costs of servers without a response, which were provisional.
            self._slowest = cost
            super().update(tuple(self._entries))
        self._slowest = max(self._slowest, cost)
