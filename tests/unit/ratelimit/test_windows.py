"""Fixed and sliding windows."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.ratelimit.base import EPSILON
from balancebeam.ratelimit.windows import FixedWindow, SlidingWindow
from tests.helpers import limiter_contract
from tests.helpers.limiters import (
    FIXED_WINDOW,
    SLIDING_WINDOW,
    admitted_times,
    max_in_one_window,
    max_within,
)


class FixedWindowTests(limiter_contract.LimiterContract):
    """The contract of limiters, with the promise about each window."""

    algorithm = FIXED_WINDOW

    def check_promise(
        self, requests: int, window: float, burst: int, times: Sequence[float]
    ) -> None:
        """At most `requests` requests in each window."""
        _, monotonic = admitted_times(FixedWindow(requests, window), times)
        self.assertLessEqual(max_in_one_window(monotonic, window), requests)

    def test_boundary_of_two_windows(self) -> None:
        """Around the boundary of two windows, twice the limit is admitted."""
        times = [9.9] * 10 + [10.0] * 10
        self.assertEqual(len(admitted_times(FixedWindow(10, 10.0), times)[0]), 20)


class SlidingWindowTests(limiter_contract.LimiterContract):
    """The contract of limiters, with the promise about any time of a window's length."""

    algorithm = SLIDING_WINDOW

    def check_promise(
        self, requests: int, window: float, burst: int, times: Sequence[float]
    ) -> None:
        """At most `requests` in each window, and fewer than twice as many in any."""
        _, monotonic = admitted_times(SlidingWindow(requests, window), times)
        self.assertLessEqual(max_in_one_window(monotonic, window), requests)
        self.assertLess(max_within(monotonic, window - 2 * EPSILON), 2 * requests)

    def test_boundary_of_two_windows(self) -> None:
        """Around the boundary of two windows, no more than the limit is admitted."""
        times = [9.9] * 10 + [10.0] * 10
        self.assertEqual(len(admitted_times(SlidingWindow(10, 10.0), times)[0]), 10)

    def test_worst_case(self) -> None:
        """The worst case is one request less than twice the limit."""
        times = [9.99] * 10 + [10 + tenths / 10 for tenths in range(100)]
        self.assertEqual(len(admitted_times(SlidingWindow(10, 10.0), times)[0]), 19)
