"""pytest hooks and fixtures for all tests: detection of leaked timers, sockets and failures."""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

# Longest collection, in seconds, before the surviving objects are frozen: they are then
# mostly modules that a test was the first to import, and stay until the end.
MAX_COLLECTION_SECONDS = 0.01


def pytest_configure() -> None:
    """Let programs that tests start end by SIGINT: a shell starts background jobs without it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Exclude everything imported so far from the garbage collections after each test."""
    gc.collect()
    _freeze()


def _collect() -> None:
    """
    Collect garbage, so that unhandled failures of discarded Deferreds are logged.

    A collection that takes longer than `MAX_COLLECTION_SECONDS` is followed by a freeze,
    so that later collections do not traverse the same objects again.
    """
    began = time.perf_counter()
    gc.collect()
    if time.perf_counter() - began > MAX_COLLECTION_SECONDS:
        _freeze()


def _freeze() -> None:
    """Move all live objects to the permanent generation, which is never collected."""
    if hasattr(gc, "freeze"):
        # PyPy has no gc.freeze, and does not need it.
        gc.freeze()


@pytest.fixture(autouse=True)
def detect_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Fail a test that leaves a timer, a socket or an unhandled failure behind.

    Trial checks for unhandled failures in its own test cases; this fixture does so for
    plain functions too.
    """
    from twisted.internet import reactor

    running: Any = reactor
    errors: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        """Record events that report an error."""
        if event.get("log_failure") is not None or event.get("isError"):
            errors.append(event)

    before = set(map(id, running.getReaders() + running.getWriters()))
    timers = set(map(id, running.getDelayedCalls()))
    globalLogPublisher.addObserver(observe)
    yield
    _collect()
    globalLogPublisher.removeObserver(observe)
    # The reactor adds its own waker when it first runs.
    before |= set(map(id, running._internalReaders))
    leaked = [s for s in running.getReaders() + running.getWriters() if id(s) not in before]
    calls = [c for c in running.getDelayedCalls() if id(c) not in timers]
    if not isinstance(request.instance, SynchronousTestCase):
        assert not errors, f"unhandled failures: {[e.get('log_failure', e) for e in errors]}"
    assert not leaked, f"sockets left behind: {leaked}"
    assert not calls, f"timers left behind: {calls}"
