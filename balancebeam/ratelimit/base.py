"""The base class of rate limiters."""

from __future__ import annotations

from abc import ABC, abstractmethod

from attrs import frozen

# The default maximum of keys per limiter: a token bucket with so many 4-byte keys (IPv4
# clients) takes 130 MB on CPython 3.11.
MAX_KEYS = 1_000_000

# Seconds. Sums of times are rounded: a request that is early by less than this is
# admitted.
EPSILON = 1e-6


@frozen
class Budget:
    """
    What is left of a limit for one key.

    Attributes:
        remaining: The number of requests that are allowed now.
        retry_after: Seconds until a request is allowed; 0.0 if one is allowed now.
    """

    remaining: int
    retry_after: float


class RateLimiter(ABC):
    """
    Counts requests by key, and rejects requests over the limit.

    Keys are short `bytes`. Times are in seconds on a clock that never runs backwards.
    A rejected request is not counted. Memory is bounded: a limiter forgets the keys
    whose loss matters least when it is full.
    """

    @abstractmethod
    def admit(self, key: bytes, now: float) -> bool:
        """
        Count a request if it is allowed, and return whether it is.

        It equals `retry_after` and `acquire`, in one call for speed.
        """

    @abstractmethod
    def retry_after(self, key: bytes, now: float) -> float:
        """
        Seconds until a request is allowed, if none is counted in between.

        0.0 if it is allowed now, and only then.
        """

    @abstractmethod
    def acquire(self, key: bytes, now: float) -> None:
        """Count a request, allowed or not."""

    @abstractmethod
    def remaining(self, key: bytes, now: float) -> int:
        """The number of requests that are allowed now."""

    def peek(self, key: bytes, now: float) -> Budget:
        """
        What is left for `key`; changes no state, not even what is cleaned up on the way.

        Overridden by limiters of which `remaining` and `retry_after` free memory.
        """
        return Budget(self.remaining(key, now), self.retry_after(key, now))

    @abstractmethod
    def refund(self, key: bytes) -> None:
        """Undo the last count, which was one of `key`."""

    def release(self, key: bytes) -> None:  # noqa: B027 - most limiters have nothing to do
        """Record the end of a counted request, for limits on concurrency."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """
        Free the memory of a part of the keys that are no longer needed.

        Called one to 25 times a second; it must not block the event loop noticeably.
        """

    @abstractmethod
    def __len__(self) -> int:
        """The number of keys in memory."""
