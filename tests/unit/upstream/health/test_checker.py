"""The checker service: rounds of checks, and what their results change."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import getConnectError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from zope.interface import implementer

from balancebeam.api import single_pool_settings
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import (
    AdminState,
    HealthCheckSettings,
    OutlierDetectionSettings,
    ServerSettings,
)
from balancebeam.net.ticker import Ticker
from balancebeam.server.balancer import BalancerService
from balancebeam.upstream.health.checker import CheckerService
from balancebeam.upstream.health.errors import Unhealthy
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.health.thresholds import CheckThresholds
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet


class ScriptedProbe:
    """A probe with scripted results that records its checks; by default a check passes."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.checks: list[tuple[float, str]] = []
        self.results: dict[str, Callable[[], Deferred[str] | str]] = {}
        self.cancelled = 0

    async def check(self, server: Server) -> str:
        self.checks.append((self.clock.seconds(), server.name))
        result = self.results.get(server.name, lambda: "fine")()
        return result if isinstance(result, str) else await result

    def hang(self) -> Deferred[str]:
        """A result that never comes."""
        return Deferred(lambda deferred: self._cancel())

    def _cancel(self) -> None:
        self.cancelled += 1


@implementer(ILogObserver)
class _Observer:
    """Passes log events to a function."""

    def __init__(self, receive: Callable[[LogEvent], None]) -> None:
        self._receive = receive

    def __call__(self, event: LogEvent) -> None:
        self._receive(event)


class CheckerServiceTests(SynchronousTestCase):
    """Servers are checked once per interval, and the results change their health."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.probe = ScriptedProbe(self.clock)
        self.server_set = ServerSet()
        self.ticker = Ticker(self.clock)
        self.changes: list[str] = []
        self.details: list[str] = []

    def checker(self, servers: int = 2, **checks: Any) -> CheckerService:
        """A running checker for servers a:1, b:1, ..., with these settings."""
        for number in range(servers):
            self.server_set.add(ServerSettings(TcpAddress(chr(ord("a") + number), 1)))
        settings = HealthCheckSettings(**checks)
        self.health = HealthService(
            self.server_set,
            self.ticker,
            OutlierDetectionSettings(),
            CheckThresholds(settings.fall, settings.rise),
        )
        checker = CheckerService(self.probe, settings, self.server_set, self.health, self.clock)
        observer = _Observer(self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for child in (self.ticker, checker):
            child.startService()
            self.addCleanup(self.stop, child)
        return checker

    def stop(self, child: Any) -> None:
        """Stop a service, which must leave no delayed calls."""
        if child.running:
            child.stopService()
        self.assertFalse([c for c in self.clock.getDelayedCalls() if not self.ticker.running])

    def observe(self, event: LogEvent) -> None:
        """Record a logged change of health, or the details of a failed check."""
        server = event.get("server")
        if isinstance(server, str) and "result" in event:
            self.details.append(f"{server}: {event['result']}")
        if isinstance(server, str) and "reason" in event:
            word = "up" if "is up" in event["log_format"] else "down"
            self.changes.append(f"{server} {word}: {event['reason']}")

    def advance(self, seconds: float) -> None:
        """Advance the clock in steps of 50 ms."""
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)

    def server(self, name: str) -> Server:
        """The server called `name`."""
        return next(s for s in self.server_set.servers if s.name == name)

    def fail_checks(self, name: str) -> None:
        """Make all further checks of the server called `name` fail."""

        def result() -> str:
            raise Unhealthy("status 503")

        self.probe.results[name] = result

    def test_first_failure_is_logged_in_full(self) -> None:
        """The first failed check after a passed one is logged with request and response."""
        self.checker(servers=1, interval=10.0, path="/up", fall=3)
        self.fail_checks("a:1")
        self.advance(10.1)
        self.assertEqual(self.details, ["a:1: GET /up failed: status 503"])
        self.advance(30)
        self.assertEqual((len(self.details), len(self.changes)), (1, 1))
        del self.probe.results["a:1"]
        self.advance(20)
        self.fail_checks("a:1")
        self.advance(20)
        self.assertEqual(len(self.details), 2)

    def test_first_round_starts_after_one_interval(self) -> None:
        """Nothing is checked before one interval has passed."""
        self.checker(interval=10.0)
        self.advance(9.8)
        self.assertEqual(self.probe.checks, [])
        self.advance(1.5)
        self.assertEqual([name for _, name in self.probe.checks], ["a:1", "b:1"])

    def test_round_is_spread_over_a_tenth_of_the_interval(self) -> None:
        """The checks of a round start one after another."""
        self.checker(servers=20, interval=10.0)
        self.advance(12)
        times = [time for time, _ in self.probe.checks]
        self.assertEqual(len(times), 20)
        self.assertLessEqual(times[-1] - times[0], 1.0)
        for second in (10.0, 10.5):
            inside = [time for time in times if second - 0.01 <= time < second + 0.49]
            self.assertEqual(len(inside), 10)

    def test_one_check_per_interval(self) -> None:
        """Each server is checked once per interval."""
        self.checker(servers=1, interval=2.0)
        self.advance(21)
        self.assertEqual([round(time) for time, _ in self.probe.checks], list(range(2, 22, 2)))

    def test_thresholds_change_the_health(self) -> None:
        """Two failed checks take a server out, two passed ones bring it back."""
        self.checker(interval=1.0)
        self.fail_checks("a:1")
        self.advance(1.5)
        self.assertTrue(self.server("a:1").available)
        self.advance(1)
        self.assertFalse(self.server("a:1").available)
        self.assertEqual(self.server("a:1").status, "down")
        self.assertEqual(self.server("a:1").status_reason, "status 503")
        self.assertTrue(self.server("b:1").available)
        self.advance(3)
        del self.probe.results["a:1"]
        self.advance(1)
        self.assertFalse(self.server("a:1").available)
        self.advance(1)
        self.assertTrue(self.server("a:1").available)
        # Each change is logged once.
        self.assertEqual(self.changes, ["a:1 down: status 503", "a:1 up: fine"])

    def test_timeout_fails_a_check(self) -> None:
        """A check without a result is cancelled when its timeout expires, and fails."""
        self.checker(interval=4.0, timeout=1.0, fall=1)
        self.probe.results["a:1"] = self.probe.hang
        self.advance(5.5)
        self.assertEqual(self.probe.cancelled, 1)
        self.assertEqual(
            self.server("a:1").status_reason,
            "did not respond in time: health check timed out after 1 s",
        )
        self.advance(4)
        self.assertEqual([n for _, n in self.probe.checks], ["a:1", "b:1", "a:1", "b:1"])

    def test_timeout_wrapped_by_twisted_web(self) -> None:
        """A timeout within `ResponseNeverReceived` is reported as a timeout."""

        def wrap(deferred: Deferred[str]) -> None:
            deferred.errback(ResponseNeverReceived([Failure(CancelledError())]))

        self.checker(interval=4.0, timeout=1.0, fall=1)
        self.probe.results["a:1"] = lambda: Deferred(wrap)
        self.advance(5.5)
        self.assertEqual(
            self.server("a:1").status_reason,
            "did not respond in time: health check timed out after 1 s",
        )

    def test_checks_of_one_server_do_not_overlap(self) -> None:
        """A round skips a server whose previous check is still running."""
        self.checker(servers=1, interval=1.0, timeout=2.5, fall=1)
        self.probe.results["a:1"] = self.probe.hang
        self.advance(7.4)
        # Never two checks of one server at the same time.
        self.assertEqual([round(time) for time, _ in self.probe.checks], [1, 4, 7])

    def test_error_in_a_probe_fails_the_check(self) -> None:
        """Any exception fails a check, and the rounds continue."""

        def broken() -> str:
            raise ZeroDivisionError("oh")

        self.checker(interval=1.0)
        self.probe.results["a:1"] = broken
        self.advance(3.5)
        self.assertEqual(len(self.probe.checks), 6)
        self.assertEqual(self.server("a:1").status_reason, "oh")

    def test_shortage_of_descriptors_is_no_result(self) -> None:
        """A check that could not open a socket fails no server, and the next one is made."""

        def shortage() -> str:
            raise getConnectError((errno.EMFILE, "Too many open files"))

        self.checker(interval=1.0)
        self.probe.results["a:1"] = shortage
        self.advance(3.5)
        self.assertEqual(len(self.probe.checks), 6)
        self.assertEqual(self.server("a:1").status, "up")
        self.assertIsNone(self.server("a:1").last_check)

    def test_only_current_servers_outside_maintenance_are_checked(self) -> None:
        """Removed servers and servers in maintenance are not checked."""
        self.checker(interval=1.0)
        self.server_set.remove(self.server("a:1"))
        self.server_set.add(ServerSettings(TcpAddress("c", 1)))
        self.health.set_admin_state(self.server("b:1"), AdminState.MAINTENANCE)
        self.advance(1.5)
        self.assertEqual([name for _, name in self.probe.checks], ["c:1"])
        self.health.set_admin_state(self.server("b:1"), AdminState.DRAIN)
        self.advance(1)
        self.assertEqual([name for _, name in self.probe.checks], ["c:1", "b:1", "c:1"])

    def test_result_for_a_removed_server_is_ignored(self) -> None:
        """A server that is removed during its check does not change."""
        self.checker(servers=1, interval=1.0, fall=1)
        self.probe.results["a:1"] = self.probe.hang
        self.advance(1.1)
        server = self.server("a:1")
        self.server_set.remove(server)
        self.advance(2)
        self.assertTrue(server.healthy)
        self.assertEqual(self.changes, [])

    def test_stop_cancels_running_and_scheduled_checks(self) -> None:
        """Stopping the service cancels its checks, and they do not count."""
        checker = self.checker(servers=20, interval=1.0)
        self.probe.results["a:1"] = self.probe.hang
        self.advance(1.05)
        checker.stopService()
        self.assertEqual(self.probe.cancelled, 1)
        count = len(self.probe.checks)
        self.assertLess(count, 20)
        self.advance(5)
        self.assertEqual(len(self.probe.checks), count)
        self.assertEqual(self.changes, [])

    def test_passed_checks_end_an_ejection(self) -> None:
        """`rise` passed checks end an ejection before its cooldown has expired."""
        self.checker(interval=1.0, rise=3)
        server = self.server("a:1")
        failure = UpstreamFailure(FailureKind.UNREACHABLE, "a test", True)
        self.health.request_failed(server, object(), failure)
        self.assertFalse(server.available)
        self.advance(2.5)
        self.assertFalse(server.available)
        self.advance(1)
        self.assertTrue(server.available)
        self.assertEqual(server.ejection.cooldown, 0.0)

    def test_checks_before_an_ejection_do_not_count(self) -> None:
        """Only checks that passed since the ejection end it."""
        self.checker(interval=1.0, rise=2)
        self.advance(5)
        server = self.server("a:1")
        failure = UpstreamFailure(FailureKind.UNREACHABLE, "a test", True)
        self.health.request_failed(server, object(), failure)
        self.advance(0.6)
        self.assertFalse(server.available)
        self.advance(1.5)
        self.assertTrue(server.available)

    def test_cancelled_check_does_not_count(self) -> None:
        """A check that is cancelled by a stop changes nothing."""
        checker = self.checker(servers=1, interval=1.0, fall=1)
        self.probe.results["a:1"] = self.probe.hang
        self.advance(1.1)
        checker.stopService()
        self.assertTrue(self.server("a:1").healthy)
        self.assertEqual(self.changes, [])

    def test_all_servers_can_be_down(self) -> None:
        """Active checks can leave a pool without any server."""
        self.checker(interval=1.0)
        self.fail_checks("a:1")
        self.fail_checks("b:1")
        self.advance(3)
        self.assertEqual(self.server_set.tiers, ((), (), (), ()))

    def test_default_timeout(self) -> None:
        """The timeout is 2 s, or half the interval if that is less."""
        self.assertEqual(HealthCheckSettings().effective_timeout, 2.0)
        self.assertEqual(HealthCheckSettings(interval=1.0).effective_timeout, 0.5)
        self.assertEqual(HealthCheckSettings(interval=1.0, timeout=3.0).effective_timeout, 3.0)


class CheckerServiceTreeTests(SynchronousTestCase):
    """The checker is a child of its pool if active checks are configured."""

    def names(self, **options: Any) -> set[str | None]:
        """Names of the children of a pool with these options."""
        settings = single_pool_settings((ServerSettings(TcpAddress("a", 1)),), bind=(), **options)
        balancer = BalancerService(settings, MemoryReactorClock(), random.Random(1))
        return {child.name for child in balancer.default_pool}

    def test_checker_exists_only_with_active_checks(self) -> None:
        """A pool without active checks has no checker."""
        self.assertNotIn("checker", self.names())
        self.assertIn("checker", self.names(active=HealthCheckSettings()))
