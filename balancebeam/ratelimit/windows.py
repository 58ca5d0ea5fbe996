"""Fixed and sliding windows: limits that count the requests of a window of time."""

from __future__ import annotations

from abc import abstractmethod

from balancebeam.ratelimit.base import EPSILON, MAX_KEYS, Budget, RateLimiter
from balancebeam.ratelimit.sharded_table import (
    NEVER_EVICT,
    SHARD_COUNT,
    SHARD_MASK,
    SHARDS_PER_SWEEP,
    BoundedMap,
)


class _WindowCounts:
    """
    The counts of the current and the previous window, for one shard of the keys.

    Attributes:
        max_keys: The maximum number of keys in a window.
        index: The number of the current window since time 0.
        current: The counts of the current window by key.
        previous: The counts of the previous window by key.
        filled_at: When a request last used up the limit in the current window, by key.
            At most `max_keys` as well.
        previously_filled_at: The same for the previous window.
    """

    __slots__ = (
        "current",
        "filled_at",
        "index",
        "max_keys",
        "previous",
        "previously_filled_at",
    )

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        self.index = -1
        self.current: BoundedMap[int] = BoundedMap(max_keys)
        self.previous: dict[bytes, int] = {}
        self.filled_at: dict[bytes, float] = {}
        self.previously_filled_at: dict[bytes, float] = {}

    def rotate(self, index: int, keep_previous: bool) -> None:
        """
        Start a new window.

        Args:
            index: The number of the window.
            keep_previous: Whether the counts of the window before it are needed.
        """
        if keep_previous and index == self.index + 1:
            self.previous, self.previously_filled_at = self.current.values, self.filled_at
        else:
            self.previous, self.previously_filled_at = {}, {}
        self.filled_at = {}
        self.current = BoundedMap(self.max_keys)
        self.index = index

    def at(self, index: int, keep_previous: bool) -> _WindowCounts:
        """
        The counts that `rotate` would lead to, for reading; these counts stay as they are.

        Args:
            index: The number of the window.
            keep_previous: Whether the counts of the window before it are needed.
        """
        if self.index >= index:
            return self
        counts = _WindowCounts(self.max_keys)
        counts.index, counts.current, counts.filled_at = self.index, self.current, self.filled_at
        counts.rotate(index, keep_previous)
        return counts


class _WindowLimiter(RateLimiter):
    """
    The common part of both algorithms.

    Windows are `window` seconds long and begin at the same time for all keys. If the
    clock runs backwards, the current window stays.

    Attributes:
        keeps_previous: Whether the counts of the previous window are needed.
    """

    keeps_previous = False

    def __init__(self, requests: int, window: float, max_keys: int = MAX_KEYS) -> None:
        self._requests = requests
        self._window = window
        shard_size = max(1, max_keys // SHARD_COUNT)
        self._counts = [_WindowCounts(shard_size) for _ in range(SHARD_COUNT)]
        self._last_swept = 0

    def _counts_at(self, key: bytes, now: float) -> _WindowCounts:
        """The counts of the shard of `key`, with the window of `now` as the current one."""
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

    def remaining(self, key: bytes, now: float) -> int:
        return self._remaining(self._counts_at(key, now), key, now)

    def retry_after(self, key: bytes, now: float) -> float:
        return self._retry_after(self._counts_at(key, now), key, now)

    def peek(self, key: bytes, now: float) -> Budget:
        window = int((now + EPSILON) / self._window)
        counts = self._counts[hash(key) & SHARD_MASK].at(window, self.keeps_previous)
        return Budget(self._remaining(counts, key, now), self._retry_after(counts, key, now))

    def _retry_after(self, counts: _WindowCounts, key: bytes, now: float) -> float:
        if self._remaining(counts, key, now) >= 1:
            return 0.0
        # Not more than the window, by which a sum that is rounded may exceed it.
        return min(self._window, max(EPSILON, self._seconds_until_free(counts, key, now)))

    def refund(self, key: bytes) -> None:
        counts = self._counts[hash(key) & SHARD_MASK].current.values
        count = counts.get(key)
        if count:
            counts[key] = count - 1

    @abstractmethod
    def _remaining(self, counts: _WindowCounts, key: bytes, now: float) -> int:
        """The number of requests that are allowed now, by the counts of the shard of `key`."""

    @abstractmethod
    def _seconds_until_free(self, counts: _WindowCounts, key: bytes, now: float) -> float:
        """Seconds until `key`, which is over its limit, is allowed one request."""

    def _eviction_cost(self, key: bytes, count: int) -> float:
        """Evict the key with the lowest count, but none that is over its limit."""
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


class FixedWindow(_WindowLimiter):
    """
    At most `requests` in each window of `window` seconds.

    Within `window` seconds around the boundary of two windows, up to twice as many
    are admitted.
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

    def _remaining(self, counts: _WindowCounts, key: bytes, now: float) -> int:
        return self._requests - counts.current.values.get(key, 0)

    def _seconds_until_free(self, counts: _WindowCounts, key: bytes, now: float) -> float:
        return (counts.index + 1) * self._window - now


class SlidingWindow(_WindowLimiter):
    """
    At most about `requests` in the last `window` seconds.

    The count of the previous window is weighted with the share of it that the last
    `window` seconds still cover, as if its requests had arrived evenly. This is the
    sliding window counter of Cloudflare's "How we built rate limiting capable of
    scaling to millions of domains".

    In one window it never admits more than `requests`; in any `window` seconds fewer
    than twice as many, and about `requests` if they arrive evenly.

    The weighted count alone would reject a key for up to `window / requests` seconds
    more than `window` after a burst. So the time of the request that used up the limit
    is stored, and a request is admitted `window` seconds after it in any case.
    """

    keeps_previous = True

    def admit(self, key: bytes, now: float) -> bool:
        # `remaining` and `acquire` inlined: this runs for every request.
        counts = self._counts[hash(key) & SHARD_MASK]
        windows = (now + EPSILON) / self._window
        window = int(windows)
        if counts.index < window:
            counts.rotate(window, self.keeps_previous)
        current = counts.current
        count = current.values.get(key, 0)
        used: float = count + 1
        if counts.previous:
            used += counts.previous.get(key, 0) * min(1.0, counts.index + 1 - windows)
        if used + 1 > self._requests:
            if used > self._requests and (count or not self._has_waited(counts, key, now)):
                return False
            self._record_filled(counts, key, now)
        if count or key in current.values:
            current.values[key] = count + 1
        else:
            self._add(counts, key, now)
        return True

    def acquire(self, key: bytes, now: float) -> None:
        if self.remaining(key, now) <= 1:
            self._record_filled(self._counts_at(key, now), key, now)
        super().acquire(key, now)

    def _record_filled(self, counts: _WindowCounts, key: bytes, now: float) -> None:
        """Store that a request of `key` uses up the limit now."""
        filled_at = counts.filled_at
        if key in filled_at or len(filled_at) < counts.max_keys:
            filled_at[key] = now

    def _has_waited(self, counts: _WindowCounts, key: bytes, now: float) -> bool:
        """Whether `key`, without a request in this window, used up the limit a window ago."""
        filled_at = counts.previously_filled_at.get(key)
        return filled_at is not None and now + EPSILON >= filled_at + self._window

    def _add(self, counts: _WindowCounts, key: bytes, now: float) -> None:
        weight = min(1.0, counts.index + 1 - (now + EPSILON) / self._window)
        previous, requests = counts.previous, self._requests

        def eviction_cost(sampled_key: bytes, count: int) -> float:
            used = count + previous.get(sampled_key, 0) * weight
            return used if used + 1 <= requests else NEVER_EVICT

        counts.current.add(key, 1, eviction_cost)

    def _remaining(self, counts: _WindowCounts, key: bytes, now: float) -> int:
        count = counts.current.values.get(key, 0)
        weight = min(1.0, counts.index + 1 - (now + EPSILON) / self._window)
        remaining = int(max(0.0, self._requests - count - counts.previous.get(key, 0) * weight))
        if remaining or count or not self._has_waited(counts, key, now):
            return remaining
        return 1

    def _seconds_until_free(self, counts: _WindowCounts, key: bytes, now: float) -> float:
        count, previous = counts.current.values.get(key, 0), counts.previous.get(key, 0)
        window_end = (counts.index + 1) * self._window
        allowed = self._requests - 1 - count
        if allowed >= 0 and previous:
            # Later in this window the weight of the previous one is small enough.
            free_at = window_end - self._window * allowed / previous
            filled_at = None if count else counts.previously_filled_at.get(key)
        else:
            # In the next window this count is the previous one.
            weight = (self._requests - 1) / count if count else 1.0
            free_at = window_end + self._window * max(0.0, 1 - weight)
            filled_at = counts.filled_at.get(key)
        if filled_at is not None:
            free_at = min(free_at, filled_at + self._window)
        return free_at - now
