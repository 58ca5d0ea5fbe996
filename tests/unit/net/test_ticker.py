"""The clock of timeouts, and its sweeps."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.ticker import Ticker, sweep_interval


class TickerTests(SynchronousTestCase):
    """A running ticker with an interval of one second."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ticker = Ticker(self.clock, 1.0)
        self.seen: list[float] = []
        self.ticker.add(self.seen.append)
        self.ticker.startService()
        self.addCleanup(self.ticker.stopService)

    def test_sweeps(self) -> None:
        """A sweep is called once per interval with the time."""
        for _ in range(3):
            self.clock.advance(1)
        self.assertEqual(self.seen, [1, 2, 3])
        self.assertEqual(self.ticker.now, 3)

    def test_jump_of_the_clock_is_limited(self) -> None:
        """A jump by an hour counts as four intervals."""
        self.clock.advance(3600)
        self.assertEqual(self.ticker.now, 4)

    def test_time_is_monotonic(self) -> None:
        """A clock that is set back does not move the time."""
        self.clock.advance(1)
        self.clock.rightNow -= 0.5
        self.ticker._tick()
        self.assertEqual(self.ticker.now, 1)

    def test_exception_in_a_sweep(self) -> None:
        """An exception is logged; other sweeps and later intervals are not affected."""

        def fail(now: float) -> None:
            raise ZeroDivisionError

        self.ticker.add(fail)
        self.ticker.add(self.seen.append)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.seen, [1, 1, 2, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_waiting_for_a_condition(self) -> None:
        """`wait_for` fires with True when the condition holds, with False at the timeout."""
        met = False
        at_once = self.ticker.wait_for(lambda: True, 5)
        self.assertTrue(self.successResultOf(at_once))
        later, never = (self.ticker.wait_for(lambda: met, limit) for limit in (3, 1))
        self.clock.advance(1)
        self.assertNoResult(later)
        self.assertFalse(self.successResultOf(never))
        met = True
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(later))
        self.clock.advance(5)

    def test_intervals(self) -> None:
        """The interval is a quarter of the shortest timeout, from 0.05 to 1 s."""
        self.assertEqual(sweep_interval(60, 10), 1.0)
        self.assertEqual(sweep_interval(60, 2), 0.5)
        self.assertEqual(sweep_interval(0.001), 0.05)
