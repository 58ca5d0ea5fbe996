"""Quantiles from histograms."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.quantiles import quantile, window_quantiles
from balancebeam.observability.histogram import BOUNDS


class QuantileTests(SynchronousTestCase):
    """Interpolation within buckets."""

    def test_interpolation(self) -> None:
        """A quantile is linear between the bounds of its bucket."""
        bounds = (1.0, 2.0, 4.0)
        self.assertEqual(quantile(bounds, (0, 10, 0, 0), 0.5), 1.5)
        self.assertEqual(quantile(bounds, (5, 5, 0, 0), 0.5), 1.0)
        self.assertEqual(quantile(bounds, (0, 0, 4, 0), 0.25), 2.5)

    def test_limits(self) -> None:
        """Without samples there is no quantile; above all bounds it is the last bound."""
        self.assertIsNone(quantile((1.0,), (0, 0), 0.5))
        self.assertEqual(quantile((1.0, 2.0), (0, 0, 3), 0.5), 2.0)

    @given(st.lists(st.integers(0, 1000), min_size=17, max_size=17), st.floats(0.01, 0.99))
    def test_bucket(self, counts: list[int], fraction: float) -> None:
        """A quantile is within the bucket that has the sample of this rank."""
        value = quantile(BOUNDS, counts, fraction)
        if not sum(counts):
            self.assertIsNone(value)
            return
        assert value is not None
        ordered = [index for index, count in enumerate(counts) for _ in range(count)]
        rank = fraction * len(ordered)
        bucket = ordered[min(len(ordered) - 1, max(0, -int(-rank // 1) - 1))]
        lower = BOUNDS[bucket - 1] if bucket else 0.0
        upper = BOUNDS[min(bucket, len(BOUNDS) - 1)]
        self.assertGreaterEqual(value, lower - 1e-12)
        self.assertLessEqual(value, upper + 1e-12)

    def test_window(self) -> None:
        """Only what was counted within the window matters."""
        nothing = (0,) * 17
        old = (0, 0, 7, *nothing[3:])
        new = (10, *old[1:])
        self.assertEqual(window_quantiles(deque([old, new])), (0.00025, 0.000495))
        self.assertEqual(window_quantiles(deque([old, old])), (None, None))
        self.assertEqual(window_quantiles(deque([(), ()])), (None, None))
        self.assertEqual(window_quantiles(deque()), (None, None))
