"""What holds for every test: none leaves anything behind."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

# Seconds that a search for garbage may take before all that is left over is
# taken for what has come to stay: modules that a test was the first to import.
MAX_COLLECTION_SECONDS = 0.01


def pytest_collection_finish() -> None:
    """Spare what has been imported from being searched for garbage after each test."""
    gc.collect()
    _freeze()


def _collect() -> None:
    """Have failures found that nobody handled."""
    began = time.perf_counter()
    gc.collect()
    if time.perf_counter() - began > MAX_COLLECTION_SECONDS:
        _freeze()


def _freeze() -> None:
    if hasattr(gc, "freeze"):
        # PyPy has no need of it.
        gc.freeze()


@pytest.fixture(autouse=True)
def detect_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """
    Fail a test that leaves a timer, a socket or an unhandled failure behind.

    Trial does so for its own test cases; this serves plain functions too.
    """
    from twisted.internet import reactor

    running: Any = reactor
    errors: list[LogEvent] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if event.get("log_failure") is not None or event.get("isError"):
            errors.append(event)

    before = set(map(id, running.getReaders() + running.getWriters()))
    timers = set(map(id, running.getDelayedCalls()))
    globalLogPublisher.addObserver(observe)
    yield
    _collect()
    globalLogPublisher.removeObserver(observe)
    # The reactor's own waker appears when it is first run.
    before |= set(map(id, running._internalReaders))
    left = [s for s in running.getReaders() + running.getWriters() if id(s) not in before]
    calls = [c for c in running.getDelayedCalls() if id(c) not in timers]
    if not isinstance(request.instance, SynchronousTestCase):
        assert not errors, f"unhandled failures: {[e.get('log_failure', e) for e in errors]}"
    assert not left, f"sockets left behind: {left}"
    assert not calls, f"timers left behind: {calls}"
