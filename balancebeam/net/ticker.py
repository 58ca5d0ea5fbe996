"""
Time limits by sweeping.

A timer for every request would cost more than the rest of its accounting, so
connections note when they last did something, and a few times a second
somebody looks at all of them.
"""

from __future__ import annotations

from typing import Any, Callable

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

# One sweep never counts for more than this many intervals: a process that was
# stopped, or a clock that was set, must not cost every client its connection.
MAX_STEP = 4


class Ticker(service.Service):
    """
    Keeps `now`, a count of seconds that is cheap to read, and sweeps.

    `now` begins at 0, never runs backwards, and is exact to `interval`
    seconds. Sweeps are called with it.
    """

    _log = Logger()

    def __init__(self, clock: Any, interval: float = 1.0) -> None:
        self.now = 0.0
        self.interval = interval
        self._clock = clock
        self._last = 0.0
        self._sweeps: list[Callable[[float], object]] = []
        self._loop = LoopingCall(self._tick)
        self._loop.clock = clock

    def wall_time(self) -> float:
        """The time of day, in seconds since the epoch."""
        seconds: float = self._clock.seconds()
        return seconds

    def remove(self, sweep: Callable[[float], object]) -> None:
        """Have `sweep` called no more."""
        self._sweeps.remove(sweep)

    def set_interval(self, interval: float) -> None:
        """Sweep so often (in seconds) from now on."""
        if interval != self.interval:
            if self._loop.running:
                # What has passed counts, however often this is called.
                self._tick()
                self._loop.stop()
                self.interval = interval
                self._start_loop()
            self.interval = interval

    def add(self, sweep: Callable[[float], object]) -> None:
        """Have `sweep(now)` called once per interval."""
        self._sweeps.append(sweep)

    def wait_for(self, condition: Callable[[], bool], timeout: float) -> Deferred[bool]:
        """
        Fires when `condition` is true, or when `timeout` seconds are over, with
        what it is then. It is looked at now, and with each sweep.
        """
        deadline = self.now + timeout
        found: Deferred[bool] = Deferred()

        def look(now: float) -> None:
            met = condition()
            if met or now >= deadline:
                self.remove(look)
                found.callback(met)

        self.add(look)
        look(self.now)
        return found

    def startService(self) -> None:
        super().startService()
        self._start_loop()

    def _start_loop(self) -> None:
        self._last = self._clock.seconds()
        self._loop.start(self.interval, now=False).addErrback(
            lambda failure: self._log.failure("the sweeps have stopped", failure)
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
                # A LoopingCall ends for ever with its first exception.
                self._log.failure("while sweeping")


def sweep_interval(*limits: float) -> float:
    """How often to look, so that each of `limits` is kept to about a quarter."""
    return min(1.0, max(0.05, min(limits) / 4))
