"""Concurrency limits: a maximum of requests in flight."""

from __future__ import annotations

from balancebeam.ratelimit.base import RateLimiter

# Seconds. When a request in flight will end is unknown; 1 is the smallest value that
# Retry-After can have without an immediate retry.
_RETRY_AFTER_ESTIMATE = 1.0


class Concurrent(RateLimiter):
    """At most `requests` in flight per key. Keys without a request take no memory."""

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._counts: dict[bytes, int] = {}

    def admit(self, key: bytes, now: float) -> bool:
        count = self._counts.get(key, 0)
        if count >= self._requests:
            return False
        self._counts[key] = count + 1
        return True

    def retry_after(self, key: bytes, now: float) -> float:
        return 0.0 if self.remaining(key, now) > 0 else _RETRY_AFTER_ESTIMATE

    def acquire(self, key: bytes, now: float) -> None:
        self._counts[key] = self._counts.get(key, 0) + 1

    def remaining(self, key: bytes, now: float) -> int:
        return self._requests - self._counts.get(key, 0)

    def refund(self, key: bytes) -> None:
        self.release(key)

    def release(self, key: bytes) -> None:
        count = self._counts.pop(key) - 1
        if count:
            self._counts[key] = count

    def expire(self, now: float) -> None:
        """Do nothing: `release` has freed the memory."""

    def __len__(self) -> int:
        return len(self._counts)
