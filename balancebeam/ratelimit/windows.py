"""Limits by counting in windows of time."""

from __future__ import annotations

from abc import abstractmethod

from balancebeam.ratelimit.base import EPSILON, MAX_KEYS, RateLimiter
from balancebeam.ratelimit.sharded_table import (
    NEVER_EVICT,
    SHARD_COUNT,
    SHARD_MASK,
    SHARDS_PER_SWEEP,
    BoundedMap,
)


class _WindowCounts:
    """Counts of one window and of the one before, for a part of the keys."""

    __slots__ = ("current", "index", "max_keys", "previous")

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        self.index = -1
        self.current: BoundedMap[int] = BoundedMap(max_keys)
        self.previous: dict[bytes, int] = {}

    def rotate(self, index: int, keep_previous: bool) -> None:
        """A new window has begun; with `keep_previous` the last one is still wanted."""
        self.previous = self.current.values if keep_previous and index == self.index + 1 else {}
        self.current = BoundedMap(self.max_keys)
        self.index = index


class _Windows(RateLimiter):
    """
    What both kinds have in common. Windows are `window` seconds long, and the
    same for all keys. Time that runs backwards stands still.
    """

    keeps_previous = False

    def __init__(self, requests: int, window: float, max_keys: int = MAX_KEYS) -> None:
        self._requests = requests
        self._window = window
        most = max(1, max_keys // SHARD_COUNT)
        self._counts = [_WindowCounts(most) for _ in range(SHARD_COUNT)]
        self._last_swept = 0

    def _counts_at(self, key: bytes, now: float) -> _WindowCounts:
        """The counts of `key`'s shard, as they are at `now`."""
        counts = self._counts[hash(key) & SHARD_MASK]
        window = int((now + EPSILON) / self._window)
        if counts.index < window:
            counts.rotate(window, self.keeps_previous)
        return counts

    def acquire(self, key: bytes, now: float) -> None:
        counts = self._counts_at(key, now)
        count = counts.current.values.get(key)
        if count is None:
            self._add(counts, key, now)
        else:
            counts.current.values[key] = count + 1

    def _add(self, counts: _WindowCounts, key: bytes, now: float) -> None:
        counts.current.add(key, 1, self._eviction_cost)

    def retry_after(self, key: bytes, now: float) -> float:
        if self.remaining(key, now) >= 1:
            return 0.0
        return max(EPSILON, self._seconds_until_free(key, now))

    def refund(self, key: bytes) -> None:
        counts = self._counts[hash(key) & SHARD_MASK].current.values
        count = counts.get(key)
        if count:
            counts[key] = count - 1

    @abstractmethod
    def _seconds_until_free(self, key: bytes, now: float) -> float:
        """Seconds until `key`, which is limited, may do one more."""

    def _eviction_cost(self, key: bytes, count: int) -> float:
        return count if count < self._requests else NEVER_EVICT

    def expire(self, now: float) -> None:
        window = int((now + EPSILON) / self._window)
        for _ in range(SHARDS_PER_SWEEP):
            self._last_swept = (self._last_swept + 1) & SHARD_MASK
            counts = self._counts[self._last_swept]
            if counts.index < window and (counts.previous or counts.current.values):
                counts.rotate(window, self.keeps_previous)

    def __len__(self) -> int:
        return sum(
            len(counts.current.values.keys() | counts.previous.keys()) for counts in self._counts
        )


class FixedWindow(_Windows):
    """
    At most `requests` in each window of `window` seconds.

    Around the moment where two windows meet, up to twice as many may come
    within `window` seconds.
    """

    def admit(self, key: bytes, now: float) -> bool:
        counts = self._counts_at(key, now).current
        count = counts.values.get(key)
        if count is None:
            counts.add(key, 1, self._eviction_cost)
        elif count >= self._requests:
            return False
        else:
            counts.values[key] = count + 1
        return True

    def remaining(self, key: bytes, now: float) -> int:
        return self._requests - self._counts_at(key, now).current.values.get(key, 0)

    def _seconds_until_free(self, key: bytes, now: float) -> float:
        return (self._counts_at(key, now).index + 1) * self._window - now


class SlidingWindow(_Windows):
    """
    At most `requests` in about the last `window` seconds: what was counted in the
    window before counts for the part of it that those seconds still cover, as
    if it had come evenly.

    In a window it never admits more than `requests`; in any `window` seconds fewer
    than twice as many, and about `requests` of those who come evenly.
    """

    keeps_previous = True

    def admit(self, key: bytes, now: float) -> bool:
        # As `remaining` and `acquire`, in one: this runs for every request.
        counts = self._counts[hash(key) & SHARD_MASK]
        windows = (now + EPSILON) / self._window
        window = int(windows)
        if counts.index < window:
            counts.rotate(window, self.keeps_previous)
        here = counts.current
        count = here.values.get(key, 0)
        used: float = count + 1
        if counts.previous:
            used += counts.previous.get(key, 0) * min(1.0, counts.index + 1 - windows)
        if used > self._requests:
            return False
        if count or key in here.values:
            here.values[key] = count + 1
        else:
            self._add(counts, key, now)
        return True

    def _add(self, counts: _WindowCounts, key: bytes, now: float) -> None:
        part = min(1.0, counts.index + 1 - (now + EPSILON) / self._window)
        past, requests = counts.previous, self._requests

        def eviction_cost(other: bytes, count: int) -> float:
            used = count + past.get(other, 0) * part
            return used if used + 1 <= requests else NEVER_EVICT

        counts.current.add(key, 1, eviction_cost)

    def remaining(self, key: bytes, now: float) -> int:
        counts = self._counts_at(key, now)
        part = min(1.0, counts.index + 1 - (now + EPSILON) / self._window)
        before = counts.previous.get(key, 0) * part
        return int(max(0.0, self._requests - counts.current.values.get(key, 0) - before))

    def _seconds_until_free(self, key: bytes, now: float) -> float:
        counts = self._counts_at(key, now)
        count, before = counts.current.values.get(key, 0), counts.previous.get(key, 0)
        end = (counts.index + 1) * self._window
        room = self._requests - 1 - count
        if room >= 0 and before:
            # Later in this window what was before counts for little enough.
            return max(0.0, end - self._window * room / before - now)
        # In the next one, this window's count will be what was before.
        part = (self._requests - 1) / count if count else 1.0
        return end + self._window * max(0.0, 1 - part) - now
