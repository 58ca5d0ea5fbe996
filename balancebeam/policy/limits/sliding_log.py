"""A limit by remembering when everything was."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from balancebeam.policy.limits.base import MOST_KEYS, Limiter
from balancebeam.policy.limits.shards import PRICELESS, Table

# Times that are over are dropped from a log when there are more than these,
# and more than half of it: moving the rest costs more than keeping them.
_KEPT = 32


class SlidingLog(Limiter):
    """
    At most `requests` in any `per` seconds (without their first instant), exactly.

    Beside its key it takes eight octets for each request that is remembered.
    """

    def __init__(self, requests: int, per: float, most_keys: int = MOST_KEYS) -> None:
        self._requests = requests
        self._per = per
        self._newest = 0.0
        self._logs: Table[array[float]] = Table(most_keys)

    def admit(self, key: bytes, now: float) -> bool:
        if self.remaining(key, now) < 1:
            return False
        self.charge(key, now)
        return True

    def remaining(self, key: bytes, now: float) -> int:
        log = self._logs.shard(key).values.get(key)
        if log is None:
            return self._requests
        over = bisect_right(log, self._past(now))
        if over > _KEPT and 2 * over > len(log):
            del log[:over]
            over = 0
        return self._requests - len(log) + over

    def wait(self, key: bytes, now: float) -> float:
        if self.remaining(key, now) > 0:
            return 0.0
        log = self._logs.shard(key).values[key]
        return log[len(log) - self._requests] + self._per - now

    def charge(self, key: bytes, now: float) -> None:
        # A log is in order, even should time run backwards.
        self._newest = max(self._newest, now)
        shard = self._logs.shard(key)
        log = shard.values.get(key)
        if log is None:
            shard.add(key, array("d", (self._newest,)), self._worth)
        else:
            log.append(self._newest)

    def _past(self, now: float) -> float:
        """Up to when what was is over."""
        return max(now, self._newest) - self._per

    def _worth(self, key: bytes, log: array[float]) -> float:
        """The one that was not used for longest goes first, but none that is limited."""
        past = self._past(self._newest)
        limited = len(log) >= self._requests and log[-self._requests] > past
        return PRICELESS if limited else log[-1]

    def tidy(self, now: float) -> None:
        past = self._past(now)
        self._logs.keep(lambda log: log[-1] > past)

    def __len__(self) -> int:
        return len(self._logs)
