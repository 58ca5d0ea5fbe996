"""The clock of timeouts, and its sweeps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.ticker import (
    MAX_INTERVAL,
    MAX_STEP,
    MIN_INTERVAL,
    MIN_MAX_STEP,
    Ticker,
    sweep_each,
    sweep_interval,
)

# Seconds by which a sum of many times is rounded at most.
ROUNDING = 1e-9

# Seconds that the event loop is blocked, and whether something happens at the end; and
# sometimes a new interval, as after a reload.
STEPS = st.lists(
    st.tuples(
        st.one_of(st.floats(0.0, 0.1), st.floats(0.0, 3.0), st.sampled_from((0.4, 0.6, 60.0))),
        st.booleans(),
        st.sampled_from((None, None, None, None, MIN_INTERVAL, 0.2, MAX_INTERVAL)),
    ),
    max_size=60,
)


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
        """A sweep is called once per interval, with a time that is behind by a step."""
        for _ in range(3):
            self.clock.advance(1)
        self.assertEqual(self.seen, [1 - MAX_STEP, 2 - MAX_STEP, 3 - MAX_STEP])
        self.assertEqual(self.ticker.now, 3)

    def test_lag_is_measured(self) -> None:
        """A sweep that is late adds its lag, whether it is late by less or more than a period."""
        elapsed = 0.0
        ticker = Ticker(self.clock, 1.0, lambda: elapsed)
        ticker.startService()
        self.addCleanup(ticker.stopService)
        for step in (1.0, 1.25, 0.75, 2.5, 0.5, 1.0):
            elapsed += step
            self.clock.advance(step)
        self.assertEqual(ticker.lag_samples, [0.0, 0.25, 0.0, 1.5, 0.0, 0.0])

    def test_jump_of_the_clock_is_limited(self) -> None:
        """A jump by an hour counts as one and a half intervals."""
        self.clock.advance(3600)
        self.assertEqual(self.ticker.now, MAX_STEP)

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
        first, second = 1 - MAX_STEP, 2 - MAX_STEP
        self.assertEqual(self.seen, [first, first, second, second])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_waiting_for_a_condition(self) -> None:
        """`wait_for` fires with True when the condition holds, with False at the timeout."""
        met = False
        at_once = self.ticker.wait_for(lambda: True, 5)
        self.assertTrue(self.successResultOf(at_once))
        later, never = (self.ticker.wait_for(lambda: met, limit) for limit in (3, 1))
        for _ in range(3):
            self.assertNoResult(never)
            self.clock.advance(1)
        self.assertNoResult(later)
        self.assertFalse(self.successResultOf(never))
        met = True
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(later))
        self.clock.advance(5)

    def test_intervals(self) -> None:
        """Sweeps keep timeouts to within a quarter and a second, but are at most 25 a second."""
        self.assertEqual(sweep_interval(60, 10), 0.4)
        self.assertEqual(sweep_interval(60, 2), 0.2)
        self.assertEqual(sweep_interval(0.001), MIN_INTERVAL)


class SweepEachTests(SynchronousTestCase):
    """Sweeps over the connections of one owner."""

    def test_fault_of_one_item(self) -> None:
        """An exception of one item is logged, and all other items are checked."""
        items, checked = {0: None, 1: None, 2: None}, []

        def check(item: int) -> None:
            checked.append(items.pop(item, item))
            if item == 1:
                raise ZeroDivisionError

        sweep_each(items, check)
        self.assertEqual(len(checked), 3)
        self.assertEqual(items, {})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ExpiryTests(SynchronousTestCase):
    """When a timeout that is applied by sweeps expires."""

    @given(STEPS, st.sampled_from((0.0, 0.05, 0.5, 1.0, 4.0)))
    def test_never_early(
        self, steps: list[tuple[float, bool, float | None]], timeout: float
    ) -> None:
        """No timeout expires early, though sweeps are late and the interval changes."""
        clock = Clock()
        ticker = Ticker(clock, MAX_INTERVAL)
        # Real times and timestamps of events.
        events: list[tuple[float, float]] = []

        def sweep(now: float) -> None:
            for event, timestamp in events:
                if now - timestamp >= timeout + ROUNDING:
                    self.assertGreaterEqual(clock.seconds() - event, timeout)
            # An event of which only a sweep finds out.
            events.append((clock.seconds(), now))

        ticker.add(sweep)
        ticker.startService()
        for seconds, happens, interval in steps:
            # The loop is blocked: timers are late.
            clock.rightNow += seconds
            if happens:
                events.append((clock.seconds(), ticker.now))
            if interval is not None:
                ticker.set_interval(interval)
                events.append((clock.seconds(), ticker.now))
            clock.advance(0)
        ticker.stopService()
        self.assertEqual(self.flushLoggedErrors(), [])

    @given(
        st.floats(0.01, 20.0),
        st.floats(0.0, 1.0),
        st.lists(st.floats(0.0, 0.5), min_size=1, max_size=10),
    )
    def test_lateness_is_bounded(self, timeout: float, offset: float, delays: list[float]) -> None:
        """A timeout is late by a quarter or a second at most, though sweeps are delayed."""
        clock = Clock()
        interval = sweep_interval(timeout)
        ticker = Ticker(clock, interval)
        expired: list[float] = []
        number = 0
        ticker.startService()
        # Any time between two sweeps.
        clock.advance(interval)
        clock.advance(offset * interval * 0.999)
        event, timestamp = clock.seconds(), ticker.now
        ticker.add(
            lambda now: expired.append(clock.seconds()) if now - timestamp >= timeout else None
        )
        while not expired:
            # The next sweep is late by up to half an interval.
            due = clock.getDelayedCalls()[0].getTime()
            late = delays[number % len(delays)] * interval
            number += 1
            clock.advance(due + late - clock.seconds())
        ticker.stopService()
        allowed = max(min(1.0, timeout / 4), MIN_MAX_STEP + interval)
        last_delay = max(delays) * interval
        lateness = expired[0] - event - timeout
        self.assertLessEqual(lateness, allowed + last_delay + ROUNDING)
