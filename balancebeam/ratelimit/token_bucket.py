"""A limit on the rate, with room for bursts."""

from __future__ import annotations

from balancebeam.ratelimit.base import MOST_KEYS, ROUNDING, Limiter
from balancebeam.ratelimit.sharded_table import LAST_SHARD, PRICELESS, Table


class TokenBucket(Limiter):
    """
    A bucket of `burst` tokens, filled with `requests` of them in `per` seconds,
    evenly; each request takes one.

    Never more than `burst` at once, or more than `burst + requests * t / per` in
    any t seconds. A bucket is kept as the moment when it will be full again
    ("theoretical arrival time" in the generic cell rate algorithm, ITU-T
    I.371), which is one number, and a full one need not be kept at all.
    """

    def __init__(
        self, requests: int, per: float, burst: int | None = None, most_keys: int = MOST_KEYS
    ) -> None:
        self._burst = requests if burst is None else burst
        # Seconds in which one token comes in, and in which all but one do.
        self._token = per / requests
        self._most_behind = self._token * (self._burst - 1) + ROUNDING
        self._newest = 0.0
        self._full_at: Table[float] = Table(most_keys)

    def admit(self, key: bytes, now: float) -> bool:
        # As `wait` and `charge`, in one: this runs for every request.
        shard = self._full_at.shards[hash(key) & LAST_SHARD]
        full_at = shard.values.get(key)
        if full_at is None:
            self._newest = now
            shard.add(key, now + self._token, self._worth)
            return True
        if full_at <= now:
            shard.values[key] = now + self._token
            return True
        if full_at - now > self._most_behind:
            return False
        shard.values[key] = full_at + self._token
        return True

    def wait(self, key: bytes, now: float) -> float:
        full_at = self._full_at.shard(key).values.get(key, now)
        behind = full_at - now - self._most_behind
        return 0.0 if behind <= 0 else max(ROUNDING, behind)

    def refund(self, key: bytes) -> None:
        values = self._full_at.shard(key).values
        full_at = values.get(key)
        if full_at is not None:
            values[key] = full_at - self._token

    def charge(self, key: bytes, now: float) -> None:
        self._newest = now
        shard = self._full_at.shard(key)
        full_at = shard.values.get(key)
        if full_at is None:
            shard.add(key, now + self._token, self._worth)
        else:
            shard.values[key] = max(full_at, now) + self._token

    def remaining(self, key: bytes, now: float) -> int:
        missing = max(0.0, self._full_at.shard(key).values.get(key, now) - now)
        return max(0, int((self._most_behind - missing) // self._token + 1))

    def _worth(self, key: bytes, full_at: float) -> float:
        return full_at if full_at - self._newest <= self._most_behind else PRICELESS

    def tidy(self, now: float) -> None:
        self._full_at.keep(lambda full_at: full_at > now)

    def __len__(self) -> int:
        return len(self._full_at)
