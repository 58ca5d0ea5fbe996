"""Calls in daemon threads."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from balancebeam.acme.threads import DaemonThreads


class DaemonThreadsTests(TestCase):
    """Results on the reactor thread."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.run_in_thread = DaemonThreads(reactor)  # type: ignore[arg-type]

    def test_result(self) -> Deferred[None]:
        """The function runs in a daemon thread, the callback on the reactor thread."""

        def check(thread: threading.Thread) -> None:
            """Check both threads."""
            self.assertTrue(thread.daemon)
            self.assertIsNot(thread, threading.current_thread())
            self.assertIs(threading.current_thread(), threading.main_thread())

        return self.run_in_thread(threading.current_thread).addCallback(check)

    def test_exception(self) -> Deferred[Any]:
        """An exception of the function is the failure."""
        failed: Deferred[Any] = self.run_in_thread(lambda: 1 // 0)
        return self.assertFailure(failed, ZeroDivisionError)
