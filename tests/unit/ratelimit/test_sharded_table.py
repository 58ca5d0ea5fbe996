"""Sharded tables, through the limiters that use them: expiry and eviction."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.ratelimit.base import RateLimiter
from balancebeam.ratelimit.sharded_table import SHARD_COUNT
from balancebeam.ratelimit.windows import SlidingWindow
from tests.helpers.limiters import (
    ALL_ALGORITHMS,
    FULL_SWEEP,
    PARAMETERS,
    Arrival,
    LimitParameters,
    examples_80,
    histories,
    limiter_after,
)


class ExpiryTests(SynchronousTestCase):
    """`expire` frees memory, and changes no decision."""

    @examples_80
    @given(PARAMETERS, histories(), st.lists(st.sampled_from((0, 1, 32, FULL_SWEEP)), min_size=40))
    def test_decisions_do_not_change(
        self, parameters: LimitParameters, history: list[Arrival], sweeps: list[int]
    ) -> None:
        """A limiter that is swept decides as one that is not."""
        for algorithm in ALL_ALGORITHMS:
            swept, reference = parameters.limiter(algorithm), parameters.limiter(algorithm)
            for arrival, count in zip(history, sweeps):
                key, now = arrival.key, arrival.now
                for _ in range(count):
                    swept.expire(now)
                self.assertEqual(swept.remaining(key, now), reference.remaining(key, now))
                self.assertEqual(swept.retry_after(key, now), reference.retry_after(key, now))
                self.assertEqual(
                    swept.admit(key, now), reference.admit(key, now), msg=str(algorithm)
                )

    @examples_80
    @given(PARAMETERS, histories())
    def test_all_memory_is_freed(self, parameters: LimitParameters, history: list[Arrival]) -> None:
        """Some windows after the last request, no key is in memory."""
        now = float(history[-1].time) if history else 0.0
        for algorithm in ALL_ALGORITHMS:
            limiter = limiter_after(parameters, algorithm, history)
            self.assertEqual(len(limiter) > 0, bool(history), msg=str(algorithm))
            for _ in range(2):
                now += float(parameters.window) * (parameters.burst + 1)
                for _ in range(FULL_SWEEP):
                    limiter.expire(now)
            self.assertEqual(len(limiter), 0, msg=str(algorithm))

    @examples_80
    @given(st.integers(1, 100), st.integers(0, 30))
    def test_queries_do_not_keep_a_key(self, requests: int, queries: int) -> None:
        """Calls of `remaining` and `retry_after` do not keep an expired key in memory."""
        for algorithm in ALL_ALGORITHMS:
            limiter = algorithm.build(requests, 10.0, requests, SHARD_COUNT)
            while limiter.admit(b"key", 5.0):
                pass
            for number in range(queries):
                limiter.remaining(b"key", 5.0 + number)
                limiter.retry_after(b"key", 5.0 + number)
                limiter.expire(5.0 + number)
            # Other keys evict it.
            for number in range(600):
                limiter.admit(b"%d" % number, 106.0)
            for _ in range(FULL_SWEEP):
                limiter.expire(107.0)
            self.assertEqual(limiter.remaining(b"key", 107.0), requests, msg=str(algorithm))

    def test_a_sweep_visits_few_shards(self) -> None:
        """A sweep removes a small part of the keys; many sweeps remove all."""
        for algorithm in ALL_ALGORITHMS:
            limiter = algorithm.build(1, 1.0, 1, 100_000)
            for number in range(10_000):
                limiter.admit(b"%d" % number, 0.5)
            lengths = []
            for _ in range(2 * FULL_SWEEP):
                limiter.expire(3.0)
                lengths.append(len(limiter))
            self.assertGreater(lengths[0], 9000, msg=str(algorithm))
            self.assertEqual(lengths[-1], 0, msg=str(algorithm))


class FloodTests(SynchronousTestCase):
    """A flood of keys takes bounded memory, and evicts no key that is over its limit."""

    LIMITED = tuple(b"limited %d" % number for number in range(20))
    IDLE = tuple(b"idle %d" % number for number in range(200))

    def flood(self, limiter: RateLimiter, keys: int, now: float, requests_each: int = 1) -> int:
        """Send requests of so many keys within a second; return the maximum length."""
        max_length = 0
        for number in range(keys):
            key, time = number.to_bytes(4, "big"), now + number / keys
            for _ in range(requests_each):
                limiter.admit(key, time)
            if number % 1000 == 0:
                max_length = max(max_length, len(limiter))
                limiter.expire(time)
        return max(max_length, len(limiter))

    def exhaust(self, limiter: RateLimiter, keys: Sequence[bytes], now: float) -> None:
        """Send requests of all `keys` until each is rejected."""
        for key in keys:
            while limiter.admit(key, now):
                pass

    def count_allowed(self, limiter: RateLimiter, keys: Sequence[bytes], now: float) -> int:
        """How many of `keys` may send a request."""
        return sum(limiter.retry_after(key, now) <= 0 or limiter.admit(key, now) for key in keys)

    def test_limited_keys_stay_limited(self) -> None:
        """A flood evicts idle keys, but no key that is over its limit."""
        for algorithm in ALL_ALGORITHMS:
            for shard_size in (5, 7):
                limiter = algorithm.build(3, 64.0, 3, SHARD_COUNT * shard_size)
                for key in self.IDLE:
                    limiter.admit(key, 9.0)
                self.exhaust(limiter, self.LIMITED, 10.0)
                max_length = self.flood(limiter, 25_000, 10.0)
                self.assertLessEqual(max_length, SHARD_COUNT * shard_size, msg=str(algorithm))
                allowed = self.count_allowed(limiter, self.LIMITED, 11.0)
                self.assertEqual(allowed, 0, msg=str(algorithm))
                evicted = sum(limiter.remaining(key, 11.0) == 3 for key in self.IDLE)
                self.assertGreater(evicted, len(self.IDLE) // 4, msg=str(algorithm))

    def test_keys_limited_by_two_windows_together(self) -> None:
        """A key that two windows together limit does not get its whole limit again."""
        for requests, requests_each in ((2, 1), (10, 6)):
            for shard_size in (5, 7):
                limiter = SlidingWindow(requests, 10.0, SHARD_COUNT * shard_size)
                self.exhaust(limiter, self.LIMITED, 9.0)
                self.exhaust(limiter, self.LIMITED, 15.0)
                self.flood(limiter, 10_000, 15.0, requests_each)
                # By now a second request may be allowed, but not all of them.
                for key in self.LIMITED:
                    self.assertLessEqual(limiter.remaining(key, 16.0), 1)

    def test_previous_window_is_bounded(self) -> None:
        """A flood evicts nothing of the previous window, and both windows are bounded."""
        limiter = SlidingWindow(3, 10.0, SHARD_COUNT * 5)
        self.exhaust(limiter, self.LIMITED, 9.0)
        self.flood(limiter, 10_000, 10.0)
        self.assertEqual(self.count_allowed(limiter, self.LIMITED, 11.0), 0)
        self.assertLessEqual(len(limiter), 2 * SHARD_COUNT * 5)

    def test_full_of_limited_keys(self) -> None:
        """If all keys are over their limit, new keys are not stored."""
        for algorithm in ALL_ALGORITHMS:
            limiter = algorithm.build(1, 64.0, 1, SHARD_COUNT)
            self.flood(limiter, 10_000, 5.0)
            keys = [number.to_bytes(4, "big") for number in range(10_000)]
            limited = [key for key in keys if limiter.retry_after(key, 6.0) > 0]
            self.assertEqual(len(limited), SHARD_COUNT, msg=str(algorithm))
            self.assertEqual(len(limiter), SHARD_COUNT, msg=str(algorithm))
            for number in range(10_000):
                limiter.admit(b"more %d" % number, 7.0)
            self.assertEqual(len(limiter), SHARD_COUNT, msg=str(algorithm))
            self.assertEqual(self.count_allowed(limiter, limited, 8.0), 0, msg=str(algorithm))

    def test_new_keys_are_stored_after_a_flood(self) -> None:
        """When the keys of a flood have expired, new keys are stored again."""
        for algorithm in ALL_ALGORITHMS:
            limiter = algorithm.build(1, 8.0, 1, SHARD_COUNT)
            self.flood(limiter, 5000, 5.0)
            for _ in range(FULL_SWEEP):
                limiter.expire(50.0)
            self.exhaust(limiter, (b"new",), 50.0)
            self.assertGreater(limiter.retry_after(b"new", 51.0), 0.0, msg=str(algorithm))
