"""
Timeouts by periodic sweeps, and a clock of that resolution.

A timer per request would cost more than the rest of its accounting. So connections
note the time of their last activity, and a few times per second all of them are
checked.

Invariant: no timeout expires early. `Ticker.now` is advanced by sweeps only, so a
timestamp may be older than its event, by up to the time between two sweeps. Sweep
functions therefore get a time that is behind `Ticker.now` by the largest step of
that clock. The difference between it and a timestamp never exceeds the seconds that
have really passed since the event, and a timeout expires at most one such step and
one interval late.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

ItemT = TypeVar("ItemT")

_log = Logger()

# Most intervals by which one sweep advances `now`. Sweep functions are behind by as much,
# so it is short; but sweeps that are late by up to half an interval lose no time. Time
# beyond it (SIGSTOP, suspend, a clock that was set, a blocked event loop) does not count.
MAX_STEP = 1.5

# The same in seconds, at least: an event loop that is blocked for some 50 ms now and then
# must not slow down the clock where intervals are short.
MIN_MAX_STEP = 0.1

# Intervals per timeout: it is late by a quarter of its length at most, from 0.67 s.
INTERVALS_PER_TIMEOUT = 4 * (MAX_STEP + 1)

# Bounds of the interval in seconds: 25 sweeps per second for the shortest timeouts; with
# long ones as few as keep them to within a second.
MIN_INTERVAL = 0.04
MAX_INTERVAL = 1 / (MAX_STEP + 1)


class Ticker(service.Service):
    """
    Calls sweep functions periodically, and keeps the time that they are given.

    Args:
        clock: the reactor.
        interval: seconds between sweeps.
        perf_counter: returns monotonic seconds, for `lag_samples`.

    Attributes:
        now: seconds since the ticker was created, while it was running. Monotonic,
            cheap to read, advanced once per interval. For timestamps.
        interval: seconds between sweeps.
        lag_samples: by how many seconds the timer of the sweeps was late, each time:
            the lag of the event loop. Emptied by a sweep function.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        interval: float = 1.0,
        perf_counter: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.now = 0.0
        self.interval = interval
        self._clock = clock
        self._last = 0.0
        self.lag_samples: list[float] = []
        self._perf_counter = perf_counter
        # When the next sweep is due, by `perf_counter`.
        self._due_at = 0.0
        # Seconds by which `now` still has to stand still, see `set_interval`.
        self._hold = 0.0
        self._sweeps: list[Callable[[float], object]] = []
        self._loop = LoopingCall(self._sweep_on_time)
        self._loop.clock = clock

    def wall_time(self) -> float:
        """Return the time of day in seconds since the epoch."""
        return self._clock.seconds()

    def add(self, sweep: Callable[[float], object]) -> None:
        """
        Call `sweep(now)` once per interval.

        Args:
            sweep: its argument minus a timestamp (an earlier `Ticker.now`, or the
                argument of an earlier call) is at most the time since that event.
        """
        self._sweeps.append(sweep)

    def remove(self, sweep: Callable[[float], object]) -> None:
        """Do not call `sweep` any more."""
        self._sweeps.remove(sweep)

    def call_later(
        self, seconds: float, function: Callable[..., object], *arguments: object
    ) -> IDelayedCall:
        """
        Call `function` once, with a timer of its own instead of by a sweep.

        For deadlines that clients set, which may be shorter than the time between two sweeps,
        and which few requests have.
        """
        return self._clock.callLater(seconds, function, *arguments)

    def set_interval(self, interval: float) -> None:
        """
        Change the seconds between sweeps, from now on.

        When it gets shorter, sweep functions are behind `now` by less than before, but
        earlier timestamps may be as old as before. `now` stands still for the
        difference.
        """
        if interval != self.interval:
            if self._loop.running:
                # Time since the last sweep counts, however often this is called.
                self._tick()
                self._loop.stop()
                behind = _max_step(self.interval) + self._hold
                self._hold = max(0.0, behind - _max_step(interval))
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
        self._due_at = self._perf_counter() + self.interval
        self._loop.start(self.interval, now=False).addErrback(
            lambda failure: self._log.failure("sweeps stopped", failure)
        )

    def stopService(self) -> Any:
        if self._loop.running:
            self._loop.stop()
        return super().stopService()

    def _sweep_on_time(self) -> None:
        """Measure the lag of the event loop, and sweep."""
        self.lag_samples.append(max(0.0, self._perf_counter() - self._due_at))
        self._tick()
        if self._loop.running:
            # The loop skips the calls that it has missed.
            since_start = self._clock.seconds() - (self._loop.starttime or 0.0)
            self._due_at = self._perf_counter() + self.interval - since_start % self.interval

    def _tick(self) -> None:
        seconds = self._clock.seconds()
        elapsed = seconds - self._last
        self._last = seconds
        max_step = _max_step(self.interval)
        step = min(max(elapsed, 0.0), max_step)
        held = min(step, self._hold)
        self._hold -= held
        self.now += step - held
        now = self.now - max_step - self._hold
        # An exception would end the LoopingCall.
        sweep_each(self._sweeps, lambda sweep: sweep(now))


def sweep_each(items: Iterable[ItemT], check: Callable[[ItemT], object]) -> None:
    """
    Call `check` with each of `items`, which it may add to or remove from.

    An exception is logged, and the other items are checked all the same: a fault in one
    connection, or in one sweep function, must not disable the timeouts of the others.
    """
    for item in list(items):
        try:
            check(item)
        except Exception:
            _log.failure("sweep of {item} failed", item=item)


def _max_step(interval: float) -> float:
    """The seconds by which one sweep advances the clock at most."""
    return max(MIN_MAX_STEP, interval * MAX_STEP)


def sweep_interval(*timeouts: float) -> float:
    """
    Return the seconds between sweeps for `timeouts` in seconds.

    They expire late by at most a quarter of the shortest (0.17 s, if that is longer),
    and never by more than a second.
    """
    return min(MAX_INTERVAL, max(MIN_INTERVAL, min(timeouts) / INTERVALS_PER_TIMEOUT))
