"""A limit by remembering when everything was."""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct

from balancebeam.ratelimit.base import EPSILON, MAX_KEYS, RateLimiter
from balancebeam.ratelimit.sharded_table import NEVER_EVICT, ShardedTable

_TIME = Struct("d")

# Times that are over are dropped from a log when there are more than these,
# and more than half of it.
_COMPACT_THRESHOLD = 32


class SlidingLog(RateLimiter):
    """
    At most `requests` in any `window` seconds (without their first microsecond), exactly.

    Beside its key it takes eight octets for each request that is remembered.
    A log is a `bytearray` of numbers, because that is nothing to the garbage
    collector: a million lists would stop everything for a fifth of a second.
    """

    def __init__(self, requests: int, window: float, max_keys: int = MAX_KEYS) -> None:
        self._requests = requests
        self._window = window
        self._newest = 0.0
        self._logs: ShardedTable[bytearray] = ShardedTable(max_keys)

    def admit(self, key: bytes, now: float) -> bool:
        if self.remaining(key, now) < 1:
            return False
        self.acquire(key, now)
        return True

    def remaining(self, key: bytes, now: float) -> int:
        log = self._logs.shard(key).values.get(key)
        if log is None:
            return self._requests
        with memoryview(log).cast("d") as times:
            count = len(times)
            over = bisect_right(times, self._cutoff(now))
        if over > _COMPACT_THRESHOLD and 2 * over > count:
            # The last one stays: a log is never empty.
            dropped = min(over, count - 1)
            del log[: dropped * _TIME.size]
        return self._requests - count + over

    def retry_after(self, key: bytes, now: float) -> float:
        if self.remaining(key, now) > 0:
            return 0.0
        log = self._logs.shard(key).values[key]
        return max(EPSILON, self._time_at(log, -self._requests) + self._window - now)

    def acquire(self, key: bytes, now: float) -> None:
        # A log is in order, even should time run backwards.
        self._newest = max(self._newest, now)
        moment = _TIME.pack(self._newest)
        shard = self._logs.shard(key)
        log = shard.values.get(key)
        if log is None:
            shard.add(key, bytearray(moment), self._eviction_cost)
        else:
            log += moment

    def refund(self, key: bytes) -> None:
        shard = self._logs.shard(key)
        log = shard.values.get(key)
        if log is not None:
            del log[-_TIME.size :]
            if not log:
                # It was all over anyway.
                log += _TIME.pack(-self._window)

    def _time_at(self, log: bytearray, number: int) -> float:
        """The `number`th time in `log`; -1 is the last."""
        moment: float = _TIME.unpack_from(log, len(log) + number * _TIME.size)[0]
        return moment

    def _cutoff(self, now: float) -> float:
        """Up to when what was is over."""
        return max(now, self._newest) - self._window + EPSILON

    def _eviction_cost(self, key: bytes, log: bytearray) -> float:
        """The one that was not used for longest goes first, but none that is limited."""
        limited = len(log) >= self._requests * _TIME.size and self._time_at(
            log, -self._requests
        ) > self._cutoff(self._newest)
        return NEVER_EVICT if limited else self._time_at(log, -1)

    def expire(self, now: float) -> None:
        past = self._cutoff(now)
        self._logs.retain(lambda log: self._time_at(log, -1) > past)

    def __len__(self) -> int:
        return len(self._logs)
