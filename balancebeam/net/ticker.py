"""
Timeouts by periodic sweeps, and a clock of that resolution.

A timer per request would cost more than the rest of its accounting. So connections
note the time of their last activity, and a few times per second all of them are
checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

# Most intervals by which one sweep advances `now`: when the process was stopped (SIGSTOP,
# suspend) or the clock was set, not all clients may time out at once.
MAX_STEP = 4

# Bounds of the interval in seconds: 20 sweeps per second for the shortest timeouts, one
# where all are long.
MIN_INTERVAL = 0.05
MAX_INTERVAL = 1.0


class Ticker(service.Service):
    """
    Calls sweep functions periodically, and keeps the time that they are given.

    Args:
        clock: the reactor.
        interval: seconds between sweeps.

    Attributes:
        now: seconds since the ticker was created, while it was running. Monotonic,
            cheap to read, advanced once per interval.
        interval: seconds between sweeps.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime, interval: float = 1.0) -> None:
        self.now = 0.0
        self.interval = interval
        self._clock = clock
        self._last = 0.0
        self._sweeps: list[Callable[[float], object]] = []
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def wall_time(self) -> float:
        """Return the time of day in seconds since the epoch."""
        return self._clock.seconds()

    def add(self, sweep: Callable[[float], object]) -> None:
        """Call `sweep(now)` once per interval."""
        self._sweeps.append(sweep)

    def remove(self, sweep: Callable[[float], object]) -> None:
        """Do not call `sweep` any more."""
        self._sweeps.remove(sweep)

    def set_interval(self, interval: float) -> None:
        """Change the seconds between sweeps, from now on."""
        if interval != self.interval:
            if self._loop.running:
                # Time since the last sweep counts, however often this is called.
                self._tick()
                self._loop.stop()
                self.interval = interval
                self._start_loop()
            self.interval = interval

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> Deferred[bool]:
        """
        Wait until `condition()` holds. It is tested immediately and at every sweep.

        Args:
            condition: a function without arguments.
            timeout: the longest wait in seconds.

        Returns:
            A Deferred that fires with True as soon as the condition holds, or with
            False after the timeout.
        """
        deadline = self.now + timeout
        result: Deferred[bool] = Deferred()

        def check(now: float) -> None:
            met = condition()
            if met or now >= deadline:
                self.remove(check)
                result.callback(met)

        self.add(check)
        check(self.now)
        return result

    def startService(self) -> None:
        super().startService()
        self._start_loop()

    def _start_loop(self) -> None:
        self._last = self._clock.seconds()
        self._loop.start(self.interval, now=False).addErrback(
            lambda failure: self._log.failure("sweeps stopped", failure)
        )

    def stopService(self) -> Any:
        if self._loop.running:
            self._loop.stop()
        return super().stopService()

    def _tick(self) -> None:
        seconds = self._clock.seconds()
        elapsed = seconds - self._last
        self._last = seconds
        self.now += min(max(elapsed, 0.0), self.interval * MAX_STEP)
        for sweep in list(self._sweeps):
            try:
                sweep(self.now)
            except Exception:
                # An exception would end the LoopingCall.
                self._log.failure("sweep failed")


def sweep_interval(*timeouts: float) -> float:
    """Return an interval in seconds that keeps each of `timeouts` to within a quarter."""
    return min(MAX_INTERVAL, max(MIN_INTERVAL, min(timeouts) / 4))
