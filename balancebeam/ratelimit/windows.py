"""Limits by counting in windows of time."""

from __future__ import annotations

from abc import abstractmethod

from balancebeam.ratelimit.base import MOST_KEYS, ROUNDING, Limiter
from balancebeam.ratelimit.sharded_table import LAST_SHARD, PRICELESS, SHARDS, TIDIED, Shard


class _Counts:
    """Counts of one window and of the one before, for a part of the keys."""

    __slots__ = ("most", "now", "past", "window")

    def __init__(self, most: int) -> None:
        self.most = most
        self.window = -1
        self.now: Shard[int] = Shard(most)
        self.past: dict[bytes, int] = {}

    def roll(self, window: int, keep: bool) -> None:
        """A new window has begun; with `keep` the last one is still wanted."""
        self.past = self.now.values if keep and window == self.window + 1 else {}
        self.now = Shard(self.most)
        self.window = window


class _Windows(Limiter):
    """
    What both kinds have in common. Windows are `per` seconds long, and the
    same for all keys. Time that runs backwards stands still.
    """

    keeps_past = False

    def __init__(self, requests: int, per: float, most_keys: int = MOST_KEYS) -> None:
        self._requests = requests
        self._per = per
        most = max(1, most_keys // SHARDS)
        self._counts = [_Counts(most) for _ in range(SHARDS)]
        self._tidied = 0

    def _at(self, key: bytes, now: float) -> _Counts:
        """The counts of `key`'s shard, as they are at `now`."""
        counts = self._counts[hash(key) & LAST_SHARD]
        window = int((now + ROUNDING) / self._per)
        if counts.window < window:
            counts.roll(window, self.keeps_past)
        return counts

    def charge(self, key: bytes, now: float) -> None:
        counts = self._at(key, now)
        count = counts.now.values.get(key)
        if count is None:
            self._add(counts, key, now)
        else:
            counts.now.values[key] = count + 1

    def _add(self, counts: _Counts, key: bytes, now: float) -> None:
        counts.now.add(key, 1, self._worth)

    def wait(self, key: bytes, now: float) -> float:
        if self.remaining(key, now) >= 1:
            return 0.0
        return max(ROUNDING, self._until_free(key, now))

    def refund(self, key: bytes) -> None:
        counts = self._counts[hash(key) & LAST_SHARD].now.values
        count = counts.get(key)
        if count:
            counts[key] = count - 1

    @abstractmethod
    def _until_free(self, key: bytes, now: float) -> float:
        """Seconds until `key`, which is limited, may do one more."""

    def _worth(self, key: bytes, count: int) -> float:
        return count if count < self._requests else PRICELESS

    def tidy(self, now: float) -> None:
        window = int((now + ROUNDING) / self._per)
        for _ in range(TIDIED):
            self._tidied = (self._tidied + 1) & LAST_SHARD
            counts = self._counts[self._tidied]
            if counts.window < window and (counts.past or counts.now.values):
                counts.roll(window, self.keeps_past)

    def __len__(self) -> int:
        return sum(len(counts.now.values.keys() | counts.past.keys()) for counts in self._counts)


class FixedWindow(_Windows):
    """
    At most `requests` in each window of `per` seconds.

    Around the moment where two windows meet, up to twice as many may come
    within `per` seconds.
    """

    def admit(self, key: bytes, now: float) -> bool:
        counts = self._at(key, now).now
        count = counts.values.get(key)
        if count is None:
            counts.add(key, 1, self._worth)
        elif count >= self._requests:
            return False
        else:
            counts.values[key] = count + 1
        return True

    def remaining(self, key: bytes, now: float) -> int:
        return self._requests - self._at(key, now).now.values.get(key, 0)

    def _until_free(self, key: bytes, now: float) -> float:
        return (self._at(key, now).window + 1) * self._per - now


class SlidingWindow(_Windows):
    """
    At most `requests` in about the last `per` seconds: what was counted in the
    window before counts for the part of it that those seconds still cover, as
    if it had come evenly.

    In a window it never admits more than `requests`; in any `per` seconds fewer
    than twice as many, and about `requests` of those who come evenly.
    """

    keeps_past = True

    def admit(self, key: bytes, now: float) -> bool:
        # As `remaining` and `charge`, in one: this runs for every request.
        counts = self._counts[hash(key) & LAST_SHARD]
        windows = (now + ROUNDING) / self._per
        window = int(windows)
        if counts.window < window:
            counts.roll(window, self.keeps_past)
        here = counts.now
        count = here.values.get(key, 0)
        used: float = count + 1
        if counts.past:
            used += counts.past.get(key, 0) * min(1.0, counts.window + 1 - windows)
        if used > self._requests:
            return False
        if count or key in here.values:
            here.values[key] = count + 1
        else:
            self._add(counts, key, now)
        return True

    def _add(self, counts: _Counts, key: bytes, now: float) -> None:
        part = min(1.0, counts.window + 1 - (now + ROUNDING) / self._per)
        past, requests = counts.past, self._requests

        def worth(other: bytes, count: int) -> float:
            used = count + past.get(other, 0) * part
            return used if used + 1 <= requests else PRICELESS

        counts.now.add(key, 1, worth)

    def remaining(self, key: bytes, now: float) -> int:
        counts = self._at(key, now)
        part = min(1.0, counts.window + 1 - (now + ROUNDING) / self._per)
        before = counts.past.get(key, 0) * part
        return int(max(0.0, self._requests - counts.now.values.get(key, 0) - before))

    def _until_free(self, key: bytes, now: float) -> float:
        counts = self._at(key, now)
        count, before = counts.now.values.get(key, 0), counts.past.get(key, 0)
        end = (counts.window + 1) * self._per
        room = self._requests - 1 - count
        if room >= 0 and before:
            # Later in this window what was before counts for little enough.
            return max(0.0, end - self._per * room / before - now)
        # In the next one, this window's count will be what was before.
        part = (self._requests - 1) / count if count else 1.0
        return end + self._per * max(0.0, 1 - part) - now
