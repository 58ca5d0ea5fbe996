"""Tracks of counters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.traffic import HISTORY, WINDOW, CounterTrack, window_ratio


class CounterTrackTests(SynchronousTestCase):
    """Rate, history and window of a counter."""

    @given(st.integers(0, 10**9), st.lists(st.integers(0, 10**6), max_size=150))
    def test_window(self, start: int, increments: list[int]) -> None:
        """The history has the last increments, and the window sums the last ten of them."""
        track = CounterTrack(start)
        total = start
        for increment in increments:
            total += increment
            track.sample(total, 1.0)
        self.assertEqual(list(track.history), increments[-HISTORY:])
        self.assertEqual(track.recent, sum(increments[-WINDOW:]))

    def test_rate(self) -> None:
        """The rate is that of the last sample, by the seconds that really passed."""
        track = CounterTrack(100)
        self.assertEqual(track.rate, 0.0)
        track.sample(150, 2.0)
        self.assertEqual(track.rate, 25.0)
        track.sample(150, 1.0)
        self.assertEqual(track.rate, 0.0)

    def test_ratio(self) -> None:
        """The ratio of two counters is that of the window, `None` without any increment."""
        errors, total = CounterTrack(0), CounterTrack(0)
        self.assertIsNone(window_ratio(errors, total))
        errors.sample(1, 1.0)
        total.sample(4, 1.0)
        self.assertEqual(window_ratio(errors, total), 0.25)
