"""Asking servers whether they are well."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived
from zope.interface import implementer

from balancebeam.api import single_pool_settings
from balancebeam.core.addresses import ServerAddress, TcpAddress, UnixAddress
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
from balancebeam.upstream.health.probes import ConnectProbe, HttpProbe, Unhealthy, build_probe
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.health.thresholds import CheckThresholds
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet


class ScriptedProbe:
    """A probe that does what it is told to, and remembers when it was asked."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.asked: list[tuple[float, str]] = []
        self.answers: dict[str, Callable[[], Deferred[str] | str]] = {}
        self.cancelled = 0

    async def check(self, server: Server) -> str:
        self.asked.append((self.clock.seconds(), server.name))
        answer = self.answers.get(server.name, lambda: "fine")()
        return answer if isinstance(answer, str) else await answer

    def hang(self) -> Deferred[str]:
        return Deferred(lambda deferred: self._cancel())

    def _cancel(self) -> None:
        self.cancelled += 1


@implementer(ILogObserver)
class _Observer:
    """Hears what is logged."""

    def __init__(self, hear: Callable[[LogEvent], None]) -> None:
        self._hear = hear

    def __call__(self, event: LogEvent) -> None:
        self._hear(event)


class CheckerServiceTests(SynchronousTestCase):
    """When servers are asked, and what becomes of the answers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.probe = ScriptedProbe(self.clock)
        self.server_set = ServerSet()
        self.ticker = Ticker(self.clock)
        self.said: list[str] = []

    def checker(self, servers: int = 2, **checks: Any) -> CheckerService:
        """A running checker for servers a:1, b:1, ..."""
        for number in range(servers):
            self.server_set.add(ServerSettings(TcpAddress(chr(ord("a") + number), 1)))
        wanted = HealthCheckSettings(**checks)
        self.health = HealthService(
            self.server_set,
            self.ticker,
            OutlierDetectionSettings(),
            CheckThresholds(wanted.fall, wanted.rise),
        )
        checker = CheckerService(self.probe, wanted, self.server_set, self.health, self.clock)
        observer = _Observer(self.observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        for part in (self.ticker, checker):
            part.startService()
            self.addCleanup(self.stop, part)
        return checker

    def stop(self, part: Any) -> None:
        if part.running:
            part.stopService()
        self.assertFalse([c for c in self.clock.getDelayedCalls() if not self.ticker.running])

    def observe(self, event: LogEvent) -> None:
        server = event.get("server")
        if isinstance(server, str) and "reason" in event:
            word = "up" if "is up" in event["log_format"] else "down"
            self.said.append(f"{server} {word}: {event['reason']}")

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)

    def server(self, name: str) -> Server:
        return next(s for s in self.server_set.servers if s.name == name)

    def sicken(self, name: str) -> None:
        def answer() -> str:
            raise Unhealthy("it said no")

        self.probe.answers[name] = answer

    def test_the_first_round_begins_after_one_interval(self) -> None:
        self.checker(interval=10.0)
        self.advance(9.8)
        self.assertEqual(self.probe.asked, [])
        self.advance(1.5)
        self.assertEqual([name for _, name in self.probe.asked], ["a:1", "b:1"])

    def test_a_round_is_spread_over_a_tenth_of_the_interval(self) -> None:
        self.checker(servers=20, interval=10.0)
        self.advance(12)
        times = [when for when, _ in self.probe.asked]
        self.assertEqual(len(times), 20)
        self.assertLessEqual(times[-1] - times[0], 1.0)
        for second in (10.0, 10.5):
            inside = [when for when in times if second - 0.01 <= when < second + 0.49]
            self.assertEqual(len(inside), 10)

    def test_every_interval(self) -> None:
        self.checker(servers=1, interval=2.0)
        self.advance(21)
        self.assertEqual([round(when) for when, _ in self.probe.asked], list(range(2, 22, 2)))

    def test_two_failures_take_it_out_and_two_successes_bring_it_back(self) -> None:
        self.checker(interval=1.0)
        self.sicken("a:1")
        self.advance(1.5)
        self.assertTrue(self.server("a:1").available)
        self.advance(1)
        self.assertFalse(self.server("a:1").available)
        self.assertEqual(self.server("a:1").status, "down")
        self.assertEqual(self.server("a:1").status_reason, "it said no")
        self.assertTrue(self.server("b:1").available)
        self.advance(3)
        del self.probe.answers["a:1"]
        self.advance(1)
        self.assertFalse(self.server("a:1").available)
        self.advance(1)
        self.assertTrue(self.server("a:1").available)
        # Each change is said once, however often it is seen.
        self.assertEqual(self.said, ["a:1 down: it said no", "a:1 up: fine"])

    def test_a_probe_that_hangs(self) -> None:
        self.checker(interval=4.0, timeout=1.0, fall=1)
        self.probe.answers["a:1"] = self.probe.hang
        self.advance(5.5)
        self.assertEqual(self.probe.cancelled, 1)
        self.assertEqual(self.server("a:1").status_reason, "the check took longer than 1 s")
        self.advance(4)
        self.assertEqual([n for _, n in self.probe.asked], ["a:1", "b:1", "a:1", "b:1"])

    def test_a_time_limit_that_comes_wrapped(self) -> None:
        def wrap(deferred: Deferred[str]) -> None:
            deferred.errback(ResponseNeverReceived([Failure(CancelledError())]))

        self.checker(interval=4.0, timeout=1.0, fall=1)
        self.probe.answers["a:1"] = lambda: Deferred(wrap)
        self.advance(5.5)
        self.assertEqual(self.server("a:1").status_reason, "the check took longer than 1 s")

    def test_a_probe_that_takes_longer_than_the_interval(self) -> None:
        self.checker(servers=1, interval=1.0, timeout=2.5, fall=1)
        self.probe.answers["a:1"] = self.probe.hang
        self.advance(7.4)
        # Never two at once.
        self.assertEqual([round(when) for when, _ in self.probe.asked], [1, 4, 7])

    def test_a_probe_that_raises(self) -> None:
        def broken() -> str:
            raise ZeroDivisionError("oh")

        self.checker(interval=1.0)
        self.probe.answers["a:1"] = broken
        self.advance(3.5)
        self.assertEqual(len(self.probe.asked), 6)
        self.assertEqual(self.server("a:1").status_reason, "oh")

    def test_servers_that_come_go_and_are_maintained(self) -> None:
        self.checker(interval=1.0)
        self.server_set.remove(self.server("a:1"))
        self.server_set.add(ServerSettings(TcpAddress("c", 1)))
        self.health.set_admin_state(self.server("b:1"), AdminState.MAINTENANCE)
        self.advance(1.5)
        self.assertEqual([name for _, name in self.probe.asked], ["c:1"])
        self.health.set_admin_state(self.server("b:1"), AdminState.DRAIN)
        self.advance(1)
        self.assertEqual([name for _, name in self.probe.asked], ["c:1", "b:1", "c:1"])

    def test_a_server_that_goes_while_it_is_asked(self) -> None:
        self.checker(servers=1, interval=1.0, fall=1)
        self.probe.answers["a:1"] = self.probe.hang
        self.advance(1.1)
        server = self.server("a:1")
        self.server_set.remove(server)
        self.advance(2)
        self.assertTrue(server.healthy)
        self.assertEqual(self.said, [])

    def test_stopping_ends_all(self) -> None:
        checker = self.checker(servers=20, interval=1.0)
        self.probe.answers["a:1"] = self.probe.hang
        self.advance(1.05)
        checker.stopService()
        self.assertEqual(self.probe.cancelled, 1)
        asked = len(self.probe.asked)
        self.assertLess(asked, 20)
        self.advance(5)
        self.assertEqual(len(self.probe.asked), asked)
        self.assertEqual(self.said, [])

    def test_successes_end_a_cooldown_early(self) -> None:
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

    def test_successes_before_the_failure_do_not_count(self) -> None:
        self.checker(interval=1.0, rise=2)
        self.advance(5)
        server = self.server("a:1")
        failure = UpstreamFailure(FailureKind.UNREACHABLE, "a test", True)
        self.health.request_failed(server, object(), failure)
        self.advance(0.6)
        self.assertFalse(server.available)
        self.advance(1.5)
        self.assertTrue(server.available)

    def test_stopping_in_the_middle_of_a_check_says_nothing(self) -> None:
        checker = self.checker(servers=1, interval=1.0, fall=1)
        self.probe.answers["a:1"] = self.probe.hang
        self.advance(1.1)
        checker.stopService()
        self.assertTrue(self.server("a:1").healthy)
        self.assertEqual(self.said, [])

    def test_all_may_be_out(self) -> None:
        self.checker(interval=1.0)
        self.sicken("a:1")
        self.sicken("b:1")
        self.advance(3)
        self.assertEqual(self.server_set.tiers, ((), (), (), ()))

    def test_the_time_limit(self) -> None:
        self.assertEqual(HealthCheckSettings().effective_timeout, 2.0)
        self.assertEqual(HealthCheckSettings(interval=1.0).effective_timeout, 0.5)
        self.assertEqual(HealthCheckSettings(interval=1.0, timeout=3.0).effective_timeout, 3.0)


SOMEWHERE = TcpAddress("192.0.2.7", 8080)


class ProbeTests(SynchronousTestCase):
    """What a probe sends, and what it takes for an answer."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def ask(self, probe: Any, address: ServerAddress | None = None) -> Deferred[str]:
        return Deferred.fromCoroutine(probe.check(Server(ServerSettings(address or SOMEWHERE))))

    def connect(self) -> tuple[Any, StringTransport]:
        host, port, factory = self.reactor.tcpClients[-1][:3]
        self.assertEqual((host, port), ("192.0.2.7", 8080))
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", host, port))
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def http(self, path: str = "/health?x=1", statuses: tuple[int, int] = (200, 299)) -> HttpProbe:
        return HttpProbe(self.reactor, path, statuses, 2.0)

    def test_the_request(self) -> None:
        asked = self.ask(self.http())
        protocol, transport = self.connect()
        lines = transport.value().split(b"\r\n")
        self.assertEqual(lines[0], b"GET /health?x=1 HTTP/1.1")
        self.assertIn(b"Host: 192.0.2.7:8080", lines)
        self.assertIn(b"Connection: close", lines)
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(asked), "GET /health?x=1 was answered with 204")

    def test_statuses(self) -> None:
        for status, statuses, well in (
            (200, (200, 299), True),
            (299, (200, 299), True),
            (302, (200, 299), False),
            (404, (200, 299), False),
            (503, (200, 299), False),
            (404, (200, 499), True),
            (200, (204, 204), False),
        ):
            asked = self.ask(self.http("/", statuses))
            protocol, _ = self.connect()
            protocol.dataReceived(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
            if well:
                self.successResultOf(asked)
            else:
                self.assertIn(str(status), str(self.failureResultOf(asked, Unhealthy).value))

    def test_a_body_without_end_is_not_read(self) -> None:
        asked = self.ask(self.http())
        protocol, transport = self.connect()
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n...")
        self.successResultOf(asked)
        self.assertTrue(transport.disconnecting)

    def test_addresses_that_cannot_stand_in_a_url(self) -> None:
        for address in (TcpAddress("::1", 7307), TcpAddress("fe80::1%lo", 80)):
            self.ask(self.http(), address)
            self.assertEqual(self.reactor.tcpClients[-1][:2], (address.host, address.port))

    def test_one_informational_response_after_the_other(self) -> None:
        asked = self.ask(self.http())
        protocol, transport = self.connect()
        sent = 0
        while not transport.disconnected and not transport.disconnecting:
            protocol.dataReceived(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10)
            sent += 280
            self.assertLess(sent, 100_000)
        asked.cancel()
        self.failureResultOf(asked)

    def test_refused(self) -> None:
        for probe in (self.http(), ConnectProbe(self.reactor, 2.0)):
            asked = self.ask(probe)
            factory: Any = self.reactor.tcpClients[-1][2]
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            self.failureResultOf(asked, ConnectionRefusedError)

    def test_cancelling_stops_connecting(self) -> None:
        for probe in (self.http(), ConnectProbe(self.reactor, 2.0)):
            asked = self.ask(probe)
            asked.cancel()
            self.failureResultOf(asked)
            self.assertEqual(self.reactor.connectors[-1].stoppedConnecting, True)

    def test_a_connection_is_enough_for_some(self) -> None:
        asked = self.ask(ConnectProbe(self.reactor, 2.0))
        _, transport = self.connect()
        self.assertEqual(self.successResultOf(asked), "it accepts connections")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value(), b"")

    def test_unix_sockets(self) -> None:
        self.ask(self.http(), UnixAddress("/run/app"))
        self.assertEqual(self.reactor.unixClients[-1][0], "/run/app")

    def test_which_probe(self) -> None:
        self.assertIsInstance(build_probe(HealthCheckSettings(), self.reactor), HttpProbe)
        self.assertIsInstance(
            build_probe(HealthCheckSettings(path=None), self.reactor), ConnectProbe
        )


class CheckerServiceTreeTests(SynchronousTestCase):
    """The checker is a service like the others, if it is wanted."""

    def names(self, **options: Any) -> set[str | None]:
        settings = single_pool_settings((ServerSettings(TcpAddress("a", 1)),), bind=(), **options)
        balancer = BalancerService(settings, MemoryReactorClock(), random.Random(1))
        return {child.name for child in balancer.default_pool}

    def test_only_if_it_is_wanted(self) -> None:
        self.assertNotIn("checker", self.names())
        self.assertIn("checker", self.names(active=HealthCheckSettings()))
