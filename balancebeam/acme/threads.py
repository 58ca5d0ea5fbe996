"""Threads for blocking calls that must not delay the end of the process."""

from __future__ import annotations

import threading
from typing import Callable, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure

T = TypeVar("T")


class DaemonThreads:
    """
    Runs each call in a daemon thread of its own.

    The reactor waits at its end for the threads of its pool, and so for requests that block for
    up to their timeout. The process does not wait for daemon threads.
    """

    def __init__(self, reactor: IReactorFromThreads) -> None:
        """
        Args:
            reactor: Runs the callbacks.
        """
        self._reactor = reactor

    def __call__(self, function: Callable[[], T]) -> Deferred[T]:
        """
        Call `function` in a thread.

        Returns:
            A Deferred with its result or exception, which fires on the reactor thread. It never
            fires if the reactor ends before `function`.

        Raises:
            RuntimeError: No thread can be started.
        """
        result: Deferred[T] = Deferred()

        def run() -> None:
            try:
                value = function()
            except BaseException:
                self._reactor.callFromThread(result.errback, Failure())
            else:
                self._reactor.callFromThread(result.callback, value)

        threading.Thread(target=run, name="acme", daemon=True).start()
        return result
