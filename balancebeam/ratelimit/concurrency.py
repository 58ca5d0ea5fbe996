"""A limit on what goes on at once."""

from __future__ import annotations

from balancebeam.ratelimit.base import RateLimiter

# Nobody knows when one of them will be over (seconds).
_RETRY_AFTER_ESTIMATE = 1.0


class Concurrent(RateLimiter):
    """At most `requests` at a time. Only keys that have one are kept."""

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
        """What is over is gone at once."""

    def __len__(self) -> int:
        return len(self._counts)
