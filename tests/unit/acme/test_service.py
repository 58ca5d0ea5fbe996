"""The ACME service on a virtual clock, with a scripted certificate authority."""

from __future__ import annotations

import random
from typing import Any, Callable

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.acme.certificate import Certificate
from balancebeam.acme.interfaces import HTTP_01, TLS_ALPN_01, AcmeError, Cancellation
from balancebeam.acme.service import (
    MAX_BACKOFF,
    MAX_JOBS,
    MAX_RENEWAL_JITTER,
    MIN_BACKOFF,
    MIN_RENEWAL_DELAY,
    RENEWAL_FRACTION,
    RENEWAL_INFO_INTERVAL,
    AcmeService,
)

LIFETIME = 90 * 24 * 3600.0

BOTH = (HTTP_01, TLS_ALPN_01)


@define
class FixedRandom:
    """A source of always the same number."""

    value: float = 0.5

    def random(self) -> float:
        """Return the number."""
        return self.value


class FakeThreads:
    """Calls run when the test finishes them, in any order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[[], Any], Deferred[Any]]] = []

    def __call__(self, function: Callable[[], Any]) -> Deferred[Any]:
        """Record a call."""
        result: Deferred[Any] = Deferred()
        self.calls.append((function, result))
        return result

    def finish(self, index: int = 0) -> None:
        """Run a recorded call, and deliver its result."""
        function, result = self.calls.pop(index)
        try:
            value = function()
        except Exception:
            result.errback()
        else:
            result.callback(value)


@define
class FakeAuthority:
    """
    Issues certificates without content.

    Attributes:
        now: returns the time.
        orders: host names and types of challenges of all orders.
        error: raised by each call, unless it is `None`.
        renewal: the renewal information.
        questions: number of requests for renewal information.
        cancelled: the arguments of the orders.
        lifetime: seconds.
    """

    now: Callable[[], float]
    orders: list[tuple[str, str]] = field(factory=list)
    error: Exception | None = None
    renewal: float | None = None
    questions: int = 0
    cancelled: list[Cancellation] = field(factory=list)
    lifetime: float = LIFETIME

    def obtain(self, name: str, challenge_type: str, cancelled: Cancellation) -> Certificate:
        """Issue a certificate, or raise `error`."""
        self.orders.append((name, challenge_type))
        self.cancelled.append(cancelled)
        if self.error is not None:
            raise self.error
        number = str(len(self.orders)).encode()
        return Certificate(b"chain" + number, b"key", self.now(), self.now() + self.lifetime)

    def renewal_time(self, certificate: Certificate, cancelled: Cancellation) -> float | None:
        """Return the renewal information, or raise `error`."""
        self.questions += 1
        if self.error is not None:
            raise self.error
        return self.renewal


@define
class MemoryStorage:
    """
    Certificates in memory.

    Attributes:
        certificates: the certificates by name.
        error: raised by `save`, unless it is `None`.
    """

    certificates: dict[str, Certificate] = field(factory=dict)
    error: OSError | None = None

    def load(self, name: str) -> Certificate | None:
        """Return the certificate of `name`."""
        return self.certificates.get(name)

    def save(self, name: str, certificate: Certificate) -> None:
        """Store a certificate, or raise `error`."""
        if self.error is not None:
            raise self.error
        self.certificates[name] = certificate


class ServiceTestCase(SynchronousTestCase):
    """A service with fakes for everything outside; the clock begins at zero."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.threads = FakeThreads()
        self.storage = MemoryStorage()
        self.authority = FakeAuthority(self.clock.seconds)
        self.random = FixedRandom()
        self.received: list[tuple[str, bytes]] = []
        self.service = self.build()

    def build(self) -> AcmeService:
        """Return a service without names."""
        return AcmeService(
            self.authority,
            self.storage,
            lambda name, chain, key: self.received.append((name, chain)),
            self.clock,
            self.random,
            self.threads,
            self.clock.seconds,
        )

    def start(self, *names: str, types: tuple[str, ...] = BOTH) -> None:
        """Start the service with these names."""
        self.service.apply(names, types)
        self.service.startService()

    def next_timer(self) -> float:
        """Return the delay of the only timer."""
        (call,) = self.clock.getDelayedCalls()
        return call.getTime() - self.clock.seconds()

    def advance_to_renewal(self) -> None:
        """Advance the clock to the next order, through requests for renewal information."""
        orders = len(self.authority.orders)
        while len(self.authority.orders) == orders:
            self.clock.advance(self.next_timer())
            self.threads.finish()


class StartTests(ServiceTestCase):
    """Start with and without stored certificates."""

    def test_missing_certificate_is_ordered_at_once(self) -> None:
        """A name without certificate is ordered at the start, then stored and served."""
        self.start("a")
        self.assertEqual(self.received, [])
        self.threads.finish()
        self.assertEqual(self.authority.orders, [("a", HTTP_01)])
        self.assertEqual(self.received, [("a", b"chain1")])
        self.assertEqual(self.storage.certificates["a"].chain, b"chain1")

    def test_stored_certificate_is_served_without_an_order(self) -> None:
        """A stored certificate is served at the start, and nothing is ordered."""
        self.storage.certificates["a"] = Certificate(b"stored", b"key", 0, LIFETIME)
        self.start("a")
        self.assertEqual(self.received, [("a", b"stored")])
        self.assertEqual(self.threads.calls, [])

    def test_expired_certificate_is_renewed_at_once(self) -> None:
        """An expired stored certificate is served until the new one, which is ordered at once."""
        self.storage.certificates["a"] = Certificate(b"stored", b"key", -LIFETIME, -1)
        self.start("a")
        self.clock.advance(0)
        self.threads.finish()
        self.assertEqual(self.received, [("a", b"stored"), ("a", b"chain1")])

    def test_nothing_happens_before_the_start(self) -> None:
        """Names of a service that does not run are not ordered."""
        self.service.apply(["a"], BOTH)
        self.assertEqual(self.threads.calls, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_certificate_that_cannot_be_stored_is_served(self) -> None:
        """A full disk is logged, and does not prevent the use of the certificate."""
        self.storage.error = OSError(28, "No space left on device")
        with capturedLogs() as logs:
            self.start("a")
            self.threads.finish()
        self.assertEqual(self.received, [("a", b"chain1")])
        self.assertEqual(logs[0]["log_level"], LogLevel.error)
        self.assertIn("No space", logs[0]["reason"])

    def test_certificate_of_another_process_is_used(self) -> None:
        """A certificate that was stored meanwhile replaces the order."""
        self.start("a")
        self.storage.certificates["a"] = Certificate(b"other", b"key", 0, LIFETIME)
        self.threads.finish()
        self.assertEqual(self.authority.orders, [])
        self.assertEqual(self.received, [("a", b"other")])

    def test_no_challenge_type_is_an_error(self) -> None:
        """At least one type of challenge has to be available."""
        self.assertRaises(ValueError, self.service.apply, ["a"], ())

    def test_failing_receiver_does_not_stop_renewals(self) -> None:
        """An exception of the receiver is logged, and the renewal stays scheduled."""

        def fail(name: str, chain: bytes, key: bytes) -> None:
            """Raise an error."""
            raise RuntimeError("broken")

        self.service._certificate_obtained = fail
        self.start("a")
        self.threads.finish()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class RenewalTests(ServiceTestCase):
    """The time of renewals."""

    def test_renewal_after_two_thirds_of_the_lifetime(self) -> None:
        """A certificate is renewed after two thirds of its lifetime, and then again."""
        self.random.value = 0.0
        self.start("a")
        self.threads.finish()
        self.advance_to_renewal()
        self.assertAlmostEqual(self.clock.seconds(), LIFETIME * 2 / 3)
        self.advance_to_renewal()
        self.assertAlmostEqual(self.clock.seconds(), LIFETIME * 4 / 3)
        self.assertEqual([chain for _, chain in self.received], [b"chain1", b"chain2", b"chain3"])

    def test_renewal_jitter_is_bounded(self) -> None:
        """The largest random number delays the renewal by 2 % of the lifetime at most."""
        self.random.value = 1 - 1e-9
        self.start("a")
        self.threads.finish()
        self.advance_to_renewal()
        share = self.clock.seconds() / LIFETIME
        self.assertGreater(share, RENEWAL_FRACTION)
        self.assertLessEqual(share, RENEWAL_FRACTION + MAX_RENEWAL_JITTER)

    def test_short_lifetime(self) -> None:
        """A certificate of six hours is renewed before the first renewal information."""
        self.random.value = 0.0
        self.authority.lifetime = 6 * 3600.0
        self.start("a")
        self.threads.finish()
        self.advance_to_renewal()
        self.assertAlmostEqual(self.clock.seconds(), 4 * 3600.0)
        self.assertEqual(self.authority.questions, 0)

    def test_server_moves_the_renewal_forward(self) -> None:
        """A renewal time of the server before two thirds of the lifetime is used."""
        self.authority.renewal = 10 * 24 * 3600.0
        self.start("a")
        self.threads.finish()
        self.advance_to_renewal()
        self.assertAlmostEqual(self.clock.seconds(), 10 * 24 * 3600.0)

    def test_server_does_not_delay_the_renewal(self) -> None:
        """A renewal time of the server after two thirds of the lifetime is not used."""
        self.authority.renewal = LIFETIME
        self.random.value = 0.0
        self.start("a")
        self.threads.finish()
        self.advance_to_renewal()
        self.assertAlmostEqual(self.clock.seconds(), LIFETIME * 2 / 3)

    def test_failed_renewal_information_is_repeated(self) -> None:
        """Without renewal information the renewal stays where it is, and the next is requested."""
        self.start("a")
        self.threads.finish()
        self.authority.error = AcmeError("no route to host")
        self.clock.advance(self.next_timer())
        with capturedLogs() as logs:
            self.threads.finish()
        self.assertEqual(logs[0]["reason"], "no route to host")
        self.assertEqual(self.next_timer(), RENEWAL_INFO_INTERVAL)
        self.authority.error = None
        self.advance_to_renewal()
        self.assertAlmostEqual(self.clock.seconds() / LIFETIME, RENEWAL_FRACTION + 0.01)

    def test_wrong_clock_does_not_order_without_end(self) -> None:
        """A new certificate that has expired by this machine's clock is not replaced at once."""
        self.authority.lifetime = -1.0
        self.start("a")
        self.threads.finish()
        self.assertEqual(self.next_timer(), MIN_RENEWAL_DELAY)

    def test_failed_renewal_leaves_the_certificate(self) -> None:
        """A renewal that fails is repeated, and the current certificate is not replaced."""
        self.start("a")
        self.threads.finish()
        self.authority.error = AcmeError("rate limited")
        self.advance_to_renewal()
        self.assertEqual(len(self.received), 1)
        self.assertEqual(self.next_timer(), MIN_BACKOFF)
        self.authority.error = None
        self.clock.advance(MIN_BACKOFF)
        self.threads.finish()
        self.assertEqual(len(self.received), 2)


class FailureTests(ServiceTestCase):
    """Backoff, and the alternation of challenges."""

    def fail_orders(self, times: int) -> list[float]:
        """Let orders of one name fail; return the delays after them."""
        self.authority.error = AcmeError("refused")
        self.start("a")
        delays = []
        for _ in range(times):
            self.threads.finish()
            delays.append(self.next_timer())
            self.clock.advance(delays[-1])
        return delays

    def test_backoff_doubles_up_to_a_day(self) -> None:
        """The delay is a minute, doubles with each failure, and is a day at most."""
        delays = self.fail_orders(2000)
        self.assertEqual(delays[:4], [60.0, 120.0, 240.0, 480.0])
        self.assertEqual(delays[11:], [MAX_BACKOFF] * 1989)
        self.assertEqual(sorted(delays), delays)

    def test_success_resets_the_backoff(self) -> None:
        """After a success the next failure is followed by the shortest delay."""
        self.fail_orders(5)
        self.authority.error = None
        self.threads.finish()
        self.authority.error = AcmeError("refused")
        self.advance_to_renewal()
        self.assertEqual(self.next_timer(), MIN_BACKOFF)

    def test_challenge_types_alternate_on_failure(self) -> None:
        """Each failure changes the type of challenge, and a renewal starts with the last good."""
        self.fail_orders(3)
        self.authority.error = None
        self.threads.finish()
        self.advance_to_renewal()
        types = [challenge_type for _, challenge_type in self.authority.orders]
        self.assertEqual(types, [HTTP_01, TLS_ALPN_01, HTTP_01, TLS_ALPN_01, TLS_ALPN_01])

    def test_unavailable_challenge_type_is_not_used(self) -> None:
        """Without a plain HTTP listener every order is by tls-alpn-01."""
        self.authority.error = AcmeError("refused")
        self.start("a", types=(TLS_ALPN_01,))
        self.threads.finish()
        self.clock.advance(MIN_BACKOFF)
        self.threads.finish()
        self.assertEqual(self.authority.orders, [("a", TLS_ALPN_01)] * 2)

    def test_failure_is_logged_with_its_reason(self) -> None:
        """The log line has the name, the reason and the delay until the next attempt."""
        self.authority.error = AcmeError("connection refused")
        with capturedLogs() as logs:
            self.start("a")
            self.threads.finish()
        (event,) = logs
        self.assertEqual(event["log_level"], LogLevel.error)
        self.assertEqual(
            (event["name"], event["reason"], event["seconds"]), ("a", "connection refused", 60.0)
        )

    def test_unexpected_exception_is_logged_with_its_traceback(self) -> None:
        """A defect of the client is logged in full, and repeated like other failures."""
        self.authority.error = RuntimeError("defect")
        self.start("a")
        self.threads.finish()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.next_timer(), MIN_BACKOFF)

    def test_failure_of_one_name_does_not_affect_another(self) -> None:
        """Two names are ordered at once; one fails, the other is served."""
        self.start("a", "b")
        self.authority.error = AcmeError("refused")
        self.threads.finish(0)
        self.authority.error = None
        self.threads.finish(0)
        self.assertEqual(self.received, [("b", b"chain2")])

    def test_thread_that_cannot_start_is_a_failure(self) -> None:
        """An exception of the thread function is followed by the backoff."""

        def refuse(function: Callable[[], Any]) -> Deferred[Any]:
            """Raise the error of a machine without free threads."""
            raise RuntimeError("can't start new thread")

        self.service._run_in_thread = refuse
        self.start("a")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.next_timer(), MIN_BACKOFF)


class JitterTests(SynchronousTestCase):
    """Bounds of the random parts of delays."""

    @given(st.integers(0, 2**32), st.integers(1, 15))
    def test_backoff_jitter_is_bounded(self, seed: int, failures: int) -> None:
        """Every delay is within 20 % of its backoff."""
        case = FailureTests()
        case.setUp()
        case.service._random = random.Random(seed)
        for number, delay in enumerate(case.fail_orders(failures)):
            backoff = min(MIN_BACKOFF * 2**number, MAX_BACKOFF)
            self.assertLessEqual(0.8 * backoff, delay + 1e-3)
            self.assertLessEqual(delay, 1.2 * backoff + 1e-3)


class ConcurrencyTests(ServiceTestCase):
    """Limits of concurrent orders."""

    def test_two_orders_at_once(self) -> None:
        """At most two orders run at once; the next begins when one has ended, in order."""
        self.start("a", "b", "c", "d")
        self.assertEqual(len(self.threads.calls), MAX_JOBS)
        self.threads.finish(1)
        self.assertEqual(len(self.threads.calls), MAX_JOBS)
        for _ in range(3):
            self.threads.finish()
        self.assertEqual([name for name, _ in self.authority.orders], ["b", "a", "c", "d"])
        self.assertEqual(self.threads.calls, [])

    def test_repeated_name_is_ordered_once(self) -> None:
        """A name that two frontends have is one certificate."""
        self.start("a", "a")
        self.assertEqual(len(self.threads.calls), 1)


class ChangeTests(ServiceTestCase):
    """Reloads and the stop."""

    def test_added_name_is_ordered(self) -> None:
        """A name that a reload adds is ordered at once; the others are left alone."""
        self.start("a")
        self.threads.finish()
        self.service.apply(["a", "b"], BOTH)
        self.threads.finish()
        self.assertEqual(self.authority.orders, [("a", HTTP_01), ("b", HTTP_01)])
        self.assertEqual([name for name, _ in self.received], ["a", "b"])

    def test_removed_name_has_no_timer(self) -> None:
        """A name that a reload removes is not renewed."""
        self.start("a")
        self.threads.finish()
        self.service.apply([], BOTH)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_queued_name_is_removed(self) -> None:
        """A name that is removed while it is queued is not ordered."""
        self.start("a", "b", "c")
        self.service.apply(["a", "b"], BOTH)
        self.threads.finish()
        self.threads.finish()
        self.assertEqual(self.threads.calls, [])

    def test_removal_during_an_order(self) -> None:
        """The result of the order of a removed name is stored, but not served."""
        self.start("a")
        self.service.apply([], BOTH)
        self.threads.finish()
        self.assertTrue(self.authority.cancelled[0].is_set())
        self.assertEqual(self.received, [])
        self.assertIn("a", self.storage.certificates)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_name_that_returns_during_its_order(self) -> None:
        """A name that is removed and added again waits for its first order, and uses its result."""
        self.start("a")
        self.service.apply([], BOTH)
        self.service.apply(["a"], BOTH)
        self.assertEqual(len(self.threads.calls), 1)
        self.threads.finish()
        self.assertEqual(self.received, [])
        self.threads.finish()
        self.assertEqual(self.received, [("a", b"chain1")])
        self.assertEqual(len(self.authority.orders), 1)

    def test_cancelled_order_delays_others(self) -> None:
        """Orders of removed names count until they end, and then others begin."""
        self.start("a", "b")
        self.service.apply(["c"], BOTH)
        self.assertEqual(len(self.threads.calls), MAX_JOBS)
        self.threads.finish()
        self.threads.finish(1)
        self.assertEqual([name for name, _ in self.received], ["c"])
        self.threads.finish()

    def test_result_after_the_stop(self) -> None:
        """The stop waits for no order, cancels all timers, and ignores results."""
        self.start("a", "b")
        self.threads.finish()
        self.service.stopService()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.threads.finish()
        self.assertEqual([name for name, _ in self.received], ["a"])
        self.assertEqual(self.threads.calls, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_failure_after_the_stop(self) -> None:
        """An order that fails after the stop is neither an error nor repeated."""
        self.start("a")
        self.service.stopService()
        self.authority.error = AcmeError("cancelled")
        with capturedLogs() as logs:
            self.threads.finish()
        self.assertEqual([event["log_level"] for event in logs], [LogLevel.debug])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_start_after_the_stop(self) -> None:
        """A service that is started again serves the stored certificates."""
        self.start("a")
        self.threads.finish()
        self.service.stopService()
        self.service.startService()
        self.assertEqual(self.received, [("a", b"chain1")] * 2)
        self.service.stopService()
