"""The sliding log."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.ratelimit.base import EPSILON
from balancebeam.ratelimit.sliding_log import SlidingLog
from tests.helpers import limiter_contract
from tests.helpers.limiters import SLIDING_LOG, admitted_times, max_within


class SlidingLogTests(limiter_contract.LimiterContract):
    """The contract of limiters, with the exact promise."""

    algorithm = SLIDING_LOG

    def check_promise(
        self, requests: int, window: float, burst: int, times: Sequence[float]
    ) -> None:
        """At most `requests` requests in any `window` seconds."""
        _, monotonic = admitted_times(SlidingLog(requests, window), times)
        self.assertLessEqual(max_within(monotonic, window - 2 * EPSILON), requests)

    def test_worst_case_of_sliding_windows(self) -> None:
        """The times that are the worst case of a sliding window do not exceed the limit."""
        times = [9.99] * 10 + [10 + tenths / 10 for tenths in range(100)]
        self.assertEqual(len(admitted_times(SlidingLog(10, 10.0), times)[0]), 10)

    def test_log_stays_sorted(self) -> None:
        """A log stays sorted if the clock runs backwards."""
        limiter = SlidingLog(2, 1.0)
        admitted, _ = admitted_times(limiter, [30.0, 28.9, 30.0, 30.0, 30.9, 31.0, 31.0, 31.0])
        self.assertEqual(admitted, [30.0, 28.9, 31.0, 31.0])

    def test_many_expired_entries(self) -> None:
        """A log from which expired entries are removed keeps the limit."""
        limiter = SlidingLog(80, 10.0)
        admitted, _ = admitted_times(limiter, [step / 16 for step in range(4000)])
        self.assertEqual(max_within(admitted, 10.0), 80)
        self.assertEqual(len(admitted), 2000)
