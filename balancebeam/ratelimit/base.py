"""What limiters have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

# Keys of which one limiter knows at most, unless it is told otherwise.
MAX_KEYS = 1_000_000

# Seconds. Sums of times are rounded; who comes this much early is in time.
EPSILON = 1e-6


class RateLimiter(ABC):
    """
    Counts what is done under a key, and says when more may be done.

    Keys are short `bytes`; `now` is in seconds, on a clock that does not run
    backwards. A request that is refused is not counted.
    """

    @abstractmethod
    def admit(self, key: bytes, now: float) -> bool:
        """Whether one more is allowed now; if so it is counted. `retry_after` and `acquire` in one."""

    @abstractmethod
    def retry_after(self, key: bytes, now: float) -> float:
        """
        Seconds until one more is allowed, if there is none in between; 0.0 if
        it is allowed now, and only then.
        """

    @abstractmethod
    def acquire(self, key: bytes, now: float) -> None:
        """Count one."""

    @abstractmethod
    def remaining(self, key: bytes, now: float) -> int:
        """How many more are allowed now."""

    @abstractmethod
    def refund(self, key: bytes) -> None:
        """Undo what was counted last, which was under `key`."""

    def release(self, key: bytes) -> None:  # noqa: B027 - most limiters have nothing to do
        """One that was counted is over. Only a limit on what goes on at once cares."""

    @abstractmethod
    def expire(self, now: float) -> None:
        """Give back memory that is not needed any more; called about once a second, and quick."""

    @abstractmethod
    def __len__(self) -> int:
        """How many keys are known."""
