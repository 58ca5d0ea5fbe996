"""
Rates of counters: one sample per second, for a minute.

The counters themselves are read only; requests update nothing for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping

from balancebeam.admin.interfaces import Balancer
from balancebeam.admin.quantiles import Buckets, pool_buckets, server_buckets, window_quantiles
from balancebeam.upstream.server import Server

# Samples of a sparkline, one per second.
HISTORY = 60

# Seconds over which shares, error rates and percentiles are computed. In one second a server
# has too few requests for a steady percentage; an operator sees the effect of a change within
# a few.
WINDOW = 10


class CounterTrack:
    """
    The history of one counter.

    Attributes:
        rate: Increments per second between the last two samples.
        history: The increments of each sample, from the oldest to the newest.
        recent: The sum of the increments in the window.
    """

    __slots__ = ("_total", "history", "rate", "recent")

    def __init__(self, total: int) -> None:
        self._total = total
        self.rate = 0.0
        self.recent = 0
        self.history: deque[int] = deque(maxlen=HISTORY)

    def sample(self, total: int, seconds: float) -> None:
        """Add the increment to `total` within `seconds`."""
        increment, self._total = total - self._total, total
        self.rate = increment / seconds
        self.recent += increment
        if len(self.history) >= WINDOW:
            self.recent -= self.history[-WINDOW]
        self.history.append(increment)


class ServerTrack:
    """
    The history of one server.

    Attributes:
        requests: Requests sent to it.
        failures: Requests that failed at it.
        buckets: The histogram of the time to its first byte at each sample of the window; empty
            arrays without a histogram.
    """

    __slots__ = ("buckets", "failures", "requests")

    def __init__(self, server: Server) -> None:
        self.requests = CounterTrack(server.total_requests)
        self.failures = CounterTrack(server.failed_requests)
        self.buckets: deque[Buckets] = deque(maxlen=WINDOW + 1)

    @property
    def quantiles(self) -> tuple[float | None, float | None]:
        """The median and the 99th percentile of the window in seconds."""
        return window_quantiles(self.buckets)

    @property
    def error_rate(self) -> float | None:
        """The share of failures in the requests of the window; `None` without any request."""
        failures, requests = self.failures.recent, self.requests.recent
        # The failure of a request may be counted in a later sample than the request.
        return min(1.0, failures / requests) if requests else (1.0 if failures else None)


class TrafficSampler:
    """
    Samples the counters of a balancer once per second.

    Attributes:
        servers: The servers of all pools.
        pools: Requests by pool.
        errors: Responses with a status of 500 or more by pool.
        responses: Responses by pool.
        latency: The histogram of the duration of requests at each sample of the window, by pool.
        limits: Rejected requests by scope and position of the limit.
    """

    def __init__(self, balancer: Balancer, seconds: Callable[[], float]) -> None:
        """
        Args:
            balancer: The balancer.
            seconds: A monotonic clock.
        """
        self.servers: dict[Server, ServerTrack] = {}
        self.pools: dict[Hashable, CounterTrack] = {}
        self.errors: dict[Hashable, CounterTrack] = {}
        self.responses: dict[Hashable, CounterTrack] = {}
        self.latency: dict[Hashable, deque[Buckets]] = {}
        self.limits: dict[Hashable, CounterTrack] = {}
        self._balancer = balancer
        self._seconds = seconds
        self._sampled_at = seconds()
        # Makes a track for each counter, so that the first sample has a beginning.
        self._update(1.0)

    def sample(self) -> None:
        """Read all counters; once per second."""
        now = self._seconds()
        elapsed = now - self._sampled_at
        if elapsed > 0:
            self._sampled_at = now
            self._update(elapsed)

    def _update(self, elapsed: float) -> None:
        balancer = self._balancer
        old, self.servers = self.servers, {}
        pools: dict[Hashable, int] = {}
        errors: dict[Hashable, int] = {}
        responses: dict[Hashable, int] = {}
        latency: dict[Hashable, deque[Buckets]] = {}
        for name, pool in balancer.pools.items():
            # Otherwise a sweep folds the samples of the last second too late for this one.
            pool.latency.fold()
            for server in (*pool.server_set.servers, *pool.server_set.draining):
                track = old.get(server)
                if track is None:
                    track = ServerTrack(server)
                else:
                    track.requests.sample(server.total_requests, elapsed)
                    track.failures.sample(server.failed_requests, elapsed)
                track.buckets.append(server_buckets(pool, server))
                self.servers[server] = track
            statuses = pool.dispatcher.responses_by_status
            # By the pool as well: a new one with the name of another starts at zero.
            key = (name, id(pool))
            latency[key] = self.latency.get(key) or deque(maxlen=WINDOW + 1)
            latency[key].append(pool_buckets(pool))
            pools[key] = pool.dispatcher.total_requests
            responses[key] = sum(statuses.values())
            errors[key] = sum(count for status, count in statuses.items() if status >= 500)
        self.latency = latency
        self.pools = _sample_all(self.pools, pools, elapsed)
        self.errors = _sample_all(self.errors, errors, elapsed)
        self.responses = _sample_all(self.responses, responses, elapsed)
        rejected: dict[Hashable, int] = {
            (scope, index, id(limit)): limit.rejected
            for scope, limits in balancer.limiter.scopes.items()
            for index, limit in enumerate(limits)
        }
        self.limits = _sample_all(self.limits, rejected, elapsed)


def _sample_all(
    tracks: Mapping[Hashable, CounterTrack], totals: Mapping[Hashable, int], elapsed: float
) -> dict[Hashable, CounterTrack]:
    """Return the tracks of `totals` after a sample, new ones without; others are dropped."""
    result = {}
    for key, total in totals.items():
        track = tracks.get(key)
        if track is None:
            track = CounterTrack(total)
        else:
            track.sample(total, elapsed)
        result[key] = track
    return result


def window_ratio(errors: CounterTrack, total: CounterTrack) -> float | None:
    """Return the share of `errors` in `total` in the window; `None` without any."""
    return errors.recent / total.recent if total.recent else None
