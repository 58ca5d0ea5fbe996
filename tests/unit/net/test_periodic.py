"""Periodic calls on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.periodic import PeriodicCall


class PeriodicCallTests(SynchronousTestCase):
    """A call every 10 s."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []
        self.failures: list[Any] = []
        self.result: Any = None
        clock: Any = self.clock
        self.periodic = PeriodicCall(clock, 10, self.call, self.failures.append)

    def call(self) -> Any:
        """Record the time of a call."""
        self.calls.append(self.clock.seconds())
        return self.result

    def test_interval(self) -> None:
        """The first call is after one interval; a second start changes nothing."""
        self.periodic.start()
        self.clock.advance(5)
        self.periodic.start()
        self.clock.pump([5, 10])
        self.assertEqual(self.calls, [10, 20])

    def test_stop_and_start(self) -> None:
        """No timer is left after `stop`, and the interval begins anew at `start`."""
        self.periodic.stop()
        self.periodic.start()
        self.clock.advance(9)
        for _ in range(2):
            self.periodic.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.periodic.start()
        self.clock.pump([9, 1])
        self.assertEqual(self.calls, [19])

    def test_restart_during_a_call(self) -> None:
        """A call that has not ended does not prevent a stop and a new start."""
        self.result = Deferred()
        self.periodic.start()
        self.clock.pump([10, 10])
        self.assertEqual(self.calls, [10])
        self.periodic.stop()
        self.periodic.start()
        self.clock.advance(10)
        self.assertEqual(self.calls, [10, 30])

    def test_failure(self) -> None:
        """A failure is reported, and ends the calls until the next start."""
        self.result = Deferred()
        self.periodic.start()
        self.clock.advance(10)
        self.result.errback(ValueError())
        self.clock.advance(10)
        self.assertEqual((len(self.failures), self.calls), (1, [10]))
        self.failures[0].trap(ValueError)
        self.periodic.stop()
        self.result = None
        self.periodic.start()
        self.clock.advance(10)
        self.assertEqual(self.calls, [10, 30])
