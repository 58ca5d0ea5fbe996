"""The tree of services, and what each of its small parts does alone."""

from __future__ import annotations

import random
from typing import Any

from twisted.application.service import IService
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from balancebeam.api import make_balancer, single_pool_settings
from balancebeam.core.addresses import EndpointAddress, TcpAddress, UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import ServerSettings
from balancebeam.net.ticker import Ticker, sweep_interval
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.dispatcher import BalancerResource
from balancebeam.proxy.exchange import Exchange
from balancebeam.ratelimit.limit import Rejection
from balancebeam.routing.route_table import Route, RouteTable
from balancebeam.server.balancer import BalancerService
from balancebeam.server.demo import DemoService
from balancebeam.upstream.resolver import CACHE_TTL, Resolver
from balancebeam.upstream.server_set import ServerSet
from tests.helpers.memory import GET, OK, MemoryBalancer, head_and_body

ONE = (ServerSettings(TcpAddress("10.0.0.1", 80)),)


class ServiceTreeTests(SynchronousTestCase):
    """What there is, under which name."""

    def test_children(self) -> None:
        balancer = BalancerService(single_pool_settings(ONE), Clock(), random.Random(1))
        for name in ("selector", "health", "limiter", "connections", "frontend:web"):
            verifyObject(IService, balancer.getServiceNamed(name))
        self.assertIsInstance(balancer.resource, BalancerResource)
        self.assertTrue(balancer.resource.isLeaf)

    def test_making_touches_nothing(self) -> None:
        clock = Clock()
        BalancerService(single_pool_settings(ONE), clock, random.Random(1))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_defaults(self) -> None:
        self.assertIsInstance(make_balancer(single_pool_settings(ONE)), BalancerService)

    def test_bad_endpoint(self) -> None:
        settings = single_pool_settings(ONE, bind=(EndpointAddress("tcp:http:colour=red"),))
        error = self.assertRaises(ConfigError, BalancerService, settings, Clock(), random.Random(1))
        self.assertIn("--bind", str(error))
        self.assertEqual(error.problems, [str(error)])

    def test_stop_cuts_and_cleans_up(self) -> None:
        balancer = MemoryBalancer(servers=2)
        busy, waiting, idle = (balancer.client() for _ in range(3))
        idle.send(GET)
        balancer.accept().send(OK)
        busy.send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        balancer.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        waiting.send(GET, GET)
        waiting.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        balancer.stop()
        for client in (busy, waiting, idle):
            self.assertTrue(client.transport.closed)

    def test_stop_and_start_again(self) -> None:
        balancer = MemoryBalancer()
        balancer.stop()
        balancer.service.startService()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
        balancer.stop()


class DemoServerTests(SynchronousTestCase):
    """The tiny servers inside the process."""

    def test_they_come_and_go(self) -> None:
        reactor = MemoryReactorClock()
        server_set = ServerSet(ONE)
        demo = DemoService(3, server_set, reactor)
        for _ in range(2):
            demo.startService()
            self.assertEqual(len(server_set.tiers[0]), 4)
            demo.stopService()
            self.assertEqual(
                [str(server.address) for server in server_set.servers], ["10.0.0.1:80"]
            )
            self.assertEqual(len(server_set.tiers[0]), 1)
        self.assertEqual(len(reactor.tcpServers), 6)


class TickerTests(SynchronousTestCase):
    """The count of seconds, and the sweeps."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.ticker = Ticker(self.clock, 1.0)
        self.seen: list[float] = []
        self.ticker.add(self.seen.append)
        self.ticker.startService()
        self.addCleanup(self.ticker.stopService)

    def test_sweeps(self) -> None:
        for _ in range(3):
            self.clock.advance(1)
        self.assertEqual(self.seen, [1, 2, 3])
        self.assertEqual(self.ticker.now, 3)

    def test_jump_counts_for_little(self) -> None:
        self.clock.advance(3600)
        self.assertEqual(self.ticker.now, 4)

    def test_never_backwards(self) -> None:
        self.clock.advance(1)
        self.clock.rightNow -= 0.5
        self.ticker._tick()
        self.assertEqual(self.ticker.now, 1)

    def test_sweep_that_fails_stops_nothing(self) -> None:
        def fail(now: float) -> None:
            raise ZeroDivisionError

        self.ticker.add(fail)
        self.ticker.add(self.seen.append)
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual(self.seen, [1, 1, 2, 2])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_waiting_for_a_condition(self) -> None:
        met = False
        at_once = self.ticker.wait_for(lambda: True, 5)
        self.assertTrue(self.successResultOf(at_once))
        later, never = (self.ticker.wait_for(lambda: met, limit) for limit in (3, 1))
        self.clock.advance(1)
        self.assertNoResult(later)
        self.assertFalse(self.successResultOf(never))
        met = True
        self.clock.advance(1)
        self.assertTrue(self.successResultOf(later))
        self.clock.advance(5)

    def test_intervals(self) -> None:
        self.assertEqual(sweep_interval(60, 10), 1.0)
        self.assertEqual(sweep_interval(60, 2), 0.5)
        self.assertEqual(sweep_interval(0.001), 0.05)


class FakeResolverReactor(Clock):
    """A reactor whose resolver answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, Any]] = []

    @property
    def nameResolver(self) -> Any:
        return self

    def resolveHostName(self, receiver: Any, name: str) -> None:
        self.asked.append((name, receiver))

    def answer(self, *addresses: Any) -> None:
        _, receiver = self.asked.pop(0)
        receiver.resolutionBegan(None)
        for address in addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()


class ResolverTests(SynchronousTestCase):
    """Host names, and for how long their addresses are used."""

    def setUp(self) -> None:
        self.resolver = FakeResolverReactor()
        self.ticker = Ticker(self.resolver)
        self.names = Resolver(self.resolver, self.ticker)

    def test_addresses_need_no_question(self) -> None:
        for address in (TcpAddress("10.0.0.1", 80), TcpAddress("::1", 80), UnixAddress("/x")):
            self.assertEqual(self.names.resolve(address), [address])
        self.assertEqual(self.resolver.asked, [])

    def test_name(self) -> None:
        address = TcpAddress("app.internal", 80)
        found: Any = self.names.resolve(address)
        self.assertNoResult(found)
        self.resolver.answer(IPv6Address("TCP", "::1", 0), IPv4Address("TCP", "10.0.0.1", 0))
        expected = [TcpAddress("::1", 80), TcpAddress("10.0.0.1", 80)]
        self.assertEqual(self.successResultOf(found), expected)
        self.assertEqual(self.names.resolve(address), expected)
        self.ticker.now += CACHE_TTL
        again: Any = self.names.resolve(address)
        self.assertNoResult(again)
        self.resolver.answer()
        self.failureResultOf(again, DNSLookupError)

    def test_balancing_over_names(self) -> None:
        balancer = MemoryBalancer(servers=0)
        self.addCleanup(balancer.stop)
        balancer.service.resource.connections.resolver = self.names
        balancer.service.server_set.add(ServerSettings(TcpAddress("app.internal", 80)))
        client = balancer.client()
        client.send(GET)
        self.resolver.answer(IPv6Address("TCP", "::1", 0), IPv4Address("TCP", "10.0.0.1", 0))
        balancer.connectors[0].refuse()
        self.assertEqual(str(balancer.connectors[1].address), "10.0.0.1:80")
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_name_that_is_not_found_out_in_time(self) -> None:
        balancer = MemoryBalancer(servers=0)
        self.addCleanup(balancer.stop)
        balancer.service.resource.connections.resolver = self.names
        balancer.service.server_set.add(ServerSettings(TcpAddress("slow.internal", 80)))
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        # All of them share one question.
        self.assertEqual(len(self.resolver.asked), 1)
        balancer.advance(6)
        for client in clients:
            self.assertTrue(client.received().startswith(b"HTTP/1.1 504 "))
        self.resolver.answer(IPv4Address("TCP", "10.0.0.1", 0))
        self.assertEqual(balancer.connectors, [])

    def test_stop_while_a_name_is_looked_up(self) -> None:
        balancer = MemoryBalancer(servers=0)
        balancer.service.resource.connections.resolver = self.names
        balancer.service.server_set.add(ServerSettings(TcpAddress("slow.internal", 80)))
        balancer.client().send(GET)
        balancer.stop()
        self.resolver.answer(IPv4Address("TCP", "10.0.0.1", 0))
        self.assertEqual(balancer.connectors, [])

    def test_name_that_is_not_known(self) -> None:
        balancer = MemoryBalancer(servers=0)
        self.addCleanup(balancer.stop)
        balancer.service.resource.connections.resolver = self.names
        balancer.service.server_set.add(ServerSettings(TcpAddress("nobody.internal", 80)))
        client = balancer.client()
        client.send(GET)
        self.resolver.answer()
        self.assertTrue(client.received().startswith(b"HTTP/1.1 502 "))


class RejectingAdmission:
    """A limiter that has had enough."""

    unrestricted = False

    def admit(self, request: Exchange) -> Rejection | None:
        return Rejection(429, f"{request.client} again", 6.2, "limit", "policy")

    def release(self, request: Exchange) -> None:
        raise AssertionError("nothing was admitted")


class ExtensionPointTests(SynchronousTestCase):
    """What later parts plug into."""

    def test_limiter(self) -> None:
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        site = balancer.service.default_frontend.factory
        site.set_route_table(RouteTable(Route(balancer.service.resource, RejectingAdmission())))
        client = balancer.client()
        client.send(GET)
        lines, body = head_and_body(client.received())
        self.assertEqual(lines[0], b"HTTP/1.1 429 Too Many Requests")
        self.assertIn(b"Retry-After: 7", lines)
        self.assertIn(b"RateLimit: limit", lines)
        self.assertIn(b"RateLimit-Policy: policy", lines)
        self.assertIn(b"192.0.2.1 again", body)
        self.assertFalse(client.transport.closing)

    def test_observer(self) -> None:
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        seen: list[tuple[int, bool]] = []

        class RecordingObserver:
            def exchange_finished(self, exchange: Any) -> None:
                seen.append((exchange.status, exchange.finished))

            def request_rejected(self, request: Any) -> None:
                seen.append((request.status, False))

        balancer.service.default_frontend.factory.observer = RecordingObserver()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        client.send(GET)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        client.reset()
        balancer.client().send(b"nonsense\r\n\r\n")
        self.assertEqual(seen, [(200, True), (200, True), (400, False)])


class TrustedProxiesTests(SynchronousTestCase):
    """Whose word is taken."""

    def test_networks(self) -> None:
        trusted = TrustedProxies(("10.0.0.0/8", "2001:db8::/32"))
        for peer, expected in (
            ("10.1.2.3", True),
            ("11.1.2.3", False),
            ("2001:db8::1", True),
            ("::1", False),
            ("unknown", False),
        ):
            for _ in range(2):
                self.assertEqual(trusted.contains(peer), expected, peer)
        self.assertFalse(TrustedProxies(()).contains("10.1.2.3"))
        self.assertRaises(ValueError, TrustedProxies, ("nonsense",))

    def test_memory_is_bounded(self) -> None:
        trusted = TrustedProxies(("10.0.0.0/8",))
        for number in range(10000):
            trusted.contains(f"10.0.{number // 250}.{number % 250}")
        self.assertLessEqual(len(trusted._networks._cache), 4096)
