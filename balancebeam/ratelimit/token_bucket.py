"""Token bucket: a limit on the rate that allows bursts."""

from __future__ import annotations

from balancebeam.ratelimit.base import EPSILON, MAX_KEYS, RateLimiter
from balancebeam.ratelimit.sharded_table import NEVER_EVICT, SHARD_MASK, ShardedTable


class TokenBucket(RateLimiter):
    """
    A bucket of `burst` tokens that is refilled with `requests` tokens in `window` seconds.

    Tokens are added evenly, and each request takes one. At most `burst` requests are
    admitted at once, and at most `burst + requests * t / window` in any t seconds.

    The state of a bucket is the time when it will be full again, the "theoretical
    arrival time" of the generic cell rate algorithm (ITU-T I.371): one number, and
    none for a full bucket.
    """

    def __init__(
        self, requests: int, window: float, burst: int | None = None, max_keys: int = MAX_KEYS
    ) -> None:
        self._burst = requests if burst is None else burst
        # Seconds in which one token is added, and in which all but one are.
        self._token_interval = window / requests
        self._burst_tolerance = self._token_interval * (self._burst - 1) + EPSILON
        self._newest = 0.0
        self._full_at: ShardedTable[float] = ShardedTable(max_keys)

    def admit(self, key: bytes, now: float) -> bool:
        # `retry_after` and `acquire` inlined: this runs for every request.
        shard = self._full_at.shards[hash(key) & SHARD_MASK]
        full_at = shard.values.get(key)
        if full_at is None:
            self._newest = now
            shard.add(key, now + self._token_interval, self._eviction_cost)
            return True
        if full_at <= now:
            shard.values[key] = now + self._token_interval
            return True
        if full_at - now > self._burst_tolerance:
            return False
        shard.values[key] = full_at + self._token_interval
        return True

    def retry_after(self, key: bytes, now: float) -> float:
        full_at = self._full_at.shard(key).values.get(key, now)
        delay = full_at - now - self._burst_tolerance
        return 0.0 if delay <= 0 else max(EPSILON, delay)

    def refund(self, key: bytes) -> None:
        values = self._full_at.shard(key).values
        full_at = values.get(key)
        if full_at is not None:
            values[key] = full_at - self._token_interval

    def acquire(self, key: bytes, now: float) -> None:
        self._newest = now
        shard = self._full_at.shard(key)
        full_at = shard.values.get(key)
        if full_at is None:
            shard.add(key, now + self._token_interval, self._eviction_cost)
        else:
            shard.values[key] = max(full_at, now) + self._token_interval

    def remaining(self, key: bytes, now: float) -> int:
        refill_time = max(0.0, self._full_at.shard(key).values.get(key, now) - now)
        return max(0, int((self._burst_tolerance - refill_time) // self._token_interval + 1))

    def _eviction_cost(self, key: bytes, full_at: float) -> float:
        """Evict the fullest bucket, but none that is empty."""
        return full_at if full_at - self._newest <= self._burst_tolerance else NEVER_EVICT

    def expire(self, now: float) -> None:
        self._full_at.retain(lambda full_at: full_at > now)

    def __len__(self) -> int:
        return len(self._full_at)
