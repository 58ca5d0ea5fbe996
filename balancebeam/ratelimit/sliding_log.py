"""Sliding log: an exact limit that stores the time of every counted request."""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct

from balancebeam.ratelimit.base import EPSILON, MAX_KEYS, Budget, RateLimiter
from balancebeam.ratelimit.sharded_table import NEVER_EVICT, ShardedTable

_TIME = Struct("d")

# Expired times are removed from a log when they are more than this many, and more
# than half of the log: removal copies the rest, so it must not happen for each request.
_COMPACT_THRESHOLD = 32


class SlidingLog(RateLimiter):
    """
    At most `requests` in any `window` seconds, exactly; the first microsecond
    (`EPSILON`) of the window does not count.

    Each counted request takes 8 bytes. A log is a `bytearray` of doubles, because the
    garbage collector does not traverse it: with a million lists, a full collection
    blocks the event loop for 0.2 s.
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
            expired = bisect_right(times, self._cutoff(now))
        if expired > _COMPACT_THRESHOLD and 2 * expired > count:
            # The last time stays: a log is never empty.
            dropped = min(expired, count - 1)
            del log[: dropped * _TIME.size]
        return self._requests - count + expired

    def retry_after(self, key: bytes, now: float) -> float:
        if self.remaining(key, now) > 0:
            return 0.0
        return self._seconds_until_free(self._logs.shard(key).values[key], now)

    def peek(self, key: bytes, now: float) -> Budget:
        log = self._logs.shard(key).values.get(key)
        if log is None:
            return Budget(self._requests, 0.0)
        # A copy: expired times stay in the log.
        times = memoryview(bytes(log)).cast("d")
        remaining = self._requests - len(times) + bisect_right(times, self._cutoff(now))
        return Budget(remaining, 0.0 if remaining > 0 else self._seconds_until_free(log, now))

    def _seconds_until_free(self, log: bytearray, now: float) -> float:
        """Seconds until the key of `log`, which is over its limit, is allowed one request."""
        wait = self._time_at(log, -self._requests) + self._window - now
        # Not more than the window, by which a sum that is rounded may exceed it.
        return min(self._window, max(EPSILON, wait))

    def acquire(self, key: bytes, now: float) -> None:
        # A log is sorted, even if the clock runs backwards.
        self._newest = max(self._newest, now)
        packed_time = _TIME.pack(self._newest)
        shard = self._logs.shard(key)
        log = shard.values.get(key)
        if log is None:
            shard.add(key, bytearray(packed_time), self._eviction_cost)
        else:
            log += packed_time

    def refund(self, key: bytes) -> None:
        shard = self._logs.shard(key)
        log = shard.values.get(key)
        if log is not None:
            del log[-_TIME.size :]
            if not log:
                # A log is never empty; this time is expired.
                log += _TIME.pack(-self._window)

    def _time_at(self, log: bytearray, index: int) -> float:
        """The time at a negative `index` in `log`; -1 is the last."""
        time: float = _TIME.unpack_from(log, len(log) + index * _TIME.size)[0]
        return time

    def _cutoff(self, now: float) -> float:
        """The time up to which requests are expired."""
        return max(now, self._newest) - self._window + EPSILON

    def _eviction_cost(self, key: bytes, log: bytearray) -> float:
        """Evict the least recently used key, but no key that is over its limit."""
        limited = len(log) >= self._requests * _TIME.size and self._time_at(
            log, -self._requests
        ) > self._cutoff(self._newest)
        return NEVER_EVICT if limited else self._time_at(log, -1)

    def expire(self, now: float) -> None:
        cutoff = self._cutoff(now)
        self._logs.retain(lambda log: self._time_at(log, -1) > cutoff)

    def __len__(self) -> int:
        return len(self._logs)
