"""Calls in daemon threads."""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from balancebeam.acme.threads import DaemonThreads


@implementer(IReactorFromThreads)
class QueueReactor:
    """Runs calls from threads when the test waits for them."""

    def __init__(self) -> None:
        self._calls: queue.Queue[tuple[Any, ...]] = queue.Queue()

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._calls.put((callable, *args))

    def wait(self) -> None:
        """Wait for one call, and run it."""
        call, *arguments = self._calls.get(timeout=20)
        call(*arguments)


class DaemonThreadsTests(SynchronousTestCase):
    """Results on the reactor thread."""

    def setUp(self) -> None:
        self.reactor = QueueReactor()
        self.run_in_thread = DaemonThreads(self.reactor)

    def test_result(self) -> None:
        """The function runs in a daemon thread, the callback on the reactor thread."""
        call = self.run_in_thread(threading.current_thread)
        threads = call.addCallback(lambda thread: (thread, threading.current_thread()))
        self.assertNoResult(threads)
        self.reactor.wait()
        thread, callback_thread = self.successResultOf(threads)
        self.assertTrue(thread.daemon)
        self.assertIsNot(thread, threading.current_thread())
        self.assertIs(callback_thread, threading.current_thread())

    def test_exception(self) -> None:
        """An exception of the function is the failure."""
        call: Deferred[int] = self.run_in_thread(lambda: 1 // 0)
        self.reactor.wait()
        self.failureResultOf(call, ZeroDivisionError)
