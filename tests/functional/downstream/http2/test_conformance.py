"""HTTP/2 conformance: each case of h2spec, by a client that shares no code with the balancer."""

from __future__ import annotations

import re
from typing import Callable, TypeVar

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.downstream.http1.factory import Http1Factory
from tests.helpers.cases import BalancerTestCase
from tests.helpers.h2_conformance import CASES, frames
from tests.helpers.h2_conformance.case import Case
from tests.helpers.h2_conformance.client import Client, ConformanceError
from tests.helpers.h2_conformance.memory import MemoryWire

# Beyond the largest frame: everything that was sent is received at once.
WHOLE = 1 << 24

# Cases of h2spec 2.6; the last is the one that it runs with --strict.
CASE_COUNT = 146 + 1

TestClass = TypeVar("TestClass", bound=type)


def add_cases(tests: TestClass) -> TestClass:
    """Add a test method for each case; its docstring has the RFC's section."""
    for case in CASES:
        method = _test_method(case)
        setattr(tests, method.__name__, method)
    return tests


def _test_method(case: Case) -> Callable[[ConformanceTests], None]:
    def test(self: ConformanceTests) -> None:
        balancer = self.balancer()
        factory = balancer.service.default_frontend.factory
        assert isinstance(factory, Http1Factory)
        factory.context.h2c = True
        case.run(Client(MemoryWire(balancer, self.piece), strict=True))

    words = re.sub(r"\W+", "_", f"{case.identifier} {case.title}").lower()
    test.__name__ = test.__qualname__ = f"test_{words}"
    test.__doc__ = f"{case.section}: {case.title}."
    return test


class ConformanceTests(BalancerTestCase):
    """
    Base class of the tests of all cases.

    Attributes:
        piece: number of bytes that the balancer receives at a time.
    """

    piece = WHOLE


@add_cases
class WholeFrameTests(ConformanceTests):
    """The balancer receives what the client sends at once."""


@add_cases
class FragmentedFrameTests(ConformanceTests):
    """The balancer receives fragments of frames."""

    # Splits frame headers, and leaves enough fragments of the largest frame to matter.
    piece = 7


class SilentWire:
    """A server that sends nothing, or one frame, and then closes the connection or not."""

    def __init__(self, received: list[bytes]) -> None:
        """Return the items of `received` from calls of `receive`."""
        self._received = received

    def send(self, data: bytes) -> None:
        """Ignore what the client sends."""

    def receive(self) -> bytes | None:
        """Return the next item, and then `None`."""
        return self._received.pop(0) if self._received else None


class CaseTests(SynchronousTestCase):
    """The cases themselves."""

    def passed(self, received: list[bytes], strict: bool) -> list[str]:
        """Return the identifiers of the cases that a server passes that sends `received`."""
        identifiers = []
        for case in CASES:
            try:
                case.run(Client(SilentWire(list(received)), strict))
            except ConformanceError:
                continue
            identifiers.append(case.identifier)
        return identifiers

    def test_number_of_cases(self) -> None:
        """Every case is there, under a name of its own."""
        self.assertEqual(len(CASES), CASE_COUNT)
        self.assertEqual(len({case.identifier for case in CASES}), CASE_COUNT)

    def test_silent_server_fails(self) -> None:
        """A server that sends nothing passes no case."""
        self.assertEqual(self.passed([], strict=False), [])

    def test_closing_server_fails(self) -> None:
        """A server that closes every connection passes only the case of an invalid preface."""
        self.assertEqual(self.passed([b""], strict=True), ["http2/3.5/2"])

    def test_wrong_error_code_fails(self) -> None:
        """A strict client accepts no connection error with another code."""
        limit = frames.settings((frames.MAX_CONCURRENT_STREAMS, 1))
        prefaces = limit + frames.frame(frames.SETTINGS, frames.ACK, 0)
        # No case allows this code.
        goaway = frames.goaway(frames.INTERNAL_ERROR)
        passed = self.passed([prefaces, goaway, b""], strict=True)
        # A close is enough in these, or is allowed in place of a response to PING.
        allowed = {"generic/1/1", "generic/2/4", "generic/3.4/1", "generic/3.8/1"}
        allowed |= {"http2/3.5/1", "http2/3.5/2", "http2/5.4.1/1", "http2/7/1", "http2/7/2"}
        self.assertEqual(set(passed), allowed)
