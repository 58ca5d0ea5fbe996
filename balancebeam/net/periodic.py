"""A call that is repeated while it is needed."""

from __future__ import annotations

from typing import Callable

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure


class PeriodicCall:
    """
    Calls a function periodically between `start` and `stop`, any number of times.

    Args:
        clock: The clock of the calls.
        interval: Seconds between two calls, and before the first one.
        function: Called without arguments. The next call waits for a Deferred that it returns.
        on_failure: Called with the failure of `function`, which ends the calls.
    """

    def __init__(
        self,
        clock: IReactorTime,
        interval: float,
        function: Callable[[], object],
        on_failure: Callable[[Failure], object],
    ) -> None:
        self._clock = clock
        self._interval = interval
        self._function = function
        self._on_failure = on_failure
        self._loop: LoopingCall | None = None

    def start(self) -> None:
        """Begin to call; no effect between `start` and `stop`."""
        if self._loop is None:
            # A LoopingCall that is stopped during a call must not be started again before its end.
            self._loop = LoopingCall(self._function)
            self._loop.clock = self._clock
            self._loop.start(self._interval, now=False).addErrback(self._on_failure)

    def stop(self) -> None:
        """End the calls; no effect when they have ended."""
        loop, self._loop = self._loop, None
        if loop is not None and loop.running:
            loop.stop()
