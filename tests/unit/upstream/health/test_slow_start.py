"""Slow start of recovered servers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.upstream.health.slow_start import SlowStart


class SlowStartTests(SynchronousTestCase):
    """The effective weight of a recovered server grows over time."""

    def test_weight_grows_linearly_from_a_tenth(self) -> None:
        """The weight starts at 10 %, and is full after `seconds`."""
        policy = SlowStart(10.0)
        shares = [
            policy.effective_weight(20, elapsed)
            for elapsed in (0.0, 0.5, 1.0, 5.0, 9.0, 10.0, 99.0)
        ]
        self.assertEqual(shares, [2.0, 2.0, 2.0, 10.0, 18.0, 20.0, 20.0])

    def test_zero_seconds_disable_slow_start(self) -> None:
        """Without slow start the full weight applies at once."""
        self.assertEqual(SlowStart(0.0).effective_weight(3, 0.0), 3.0)
