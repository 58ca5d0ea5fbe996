"""The DNS cache."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.settings import ServerSettings
from balancebeam.net.ticker import Ticker
from balancebeam.upstream.resolver import CACHE_TTL, Resolver
from tests.helpers.memory import GET, OK, MemoryBalancer


class FakeResolverReactor(Clock):
    """A reactor whose resolver responds when a test calls `resolve`."""

    def __init__(self) -> None:
        super().__init__()
        self.queries: list[tuple[str, Any]] = []

    @property
    def nameResolver(self) -> Any:
        return self

    def resolveHostName(self, receiver: Any, name: str) -> None:
        self.queries.append((name, receiver))

    def resolve(self, *addresses: Any) -> None:
        """Complete the oldest query."""
        _, receiver = self.queries.pop(0)
        receiver.resolutionBegan(None)
        for address in addresses:
            receiver.addressResolved(address)
        receiver.resolutionComplete()


class ResolverTests(SynchronousTestCase):
    """Host names, and the cache of their addresses."""

    def setUp(self) -> None:
        self.reactor = FakeResolverReactor()
        self.ticker = Ticker(self.reactor)
        self.resolver = Resolver(self.reactor, self.ticker)

    def test_ip_addresses_need_no_query(self) -> None:
        """IP addresses and Unix paths are returned without a query."""
        for address in (TcpAddress("10.0.0.1", 80), TcpAddress("::1", 80), UnixAddress("/x")):
            self.assertEqual(self.resolver.resolve(address), [address])
        self.assertEqual(self.reactor.queries, [])

    def test_name_is_cached(self) -> None:
        """A name is resolved once per `CACHE_TTL`; a name without addresses is an error."""
        address = TcpAddress("app.internal", 80)
        result: Any = self.resolver.resolve(address)
        self.assertNoResult(result)
        self.reactor.resolve(IPv6Address("TCP", "::1", 0), IPv4Address("TCP", "10.0.0.1", 0))
        expected = [TcpAddress("::1", 80), TcpAddress("10.0.0.1", 80)]
        self.assertEqual(self.successResultOf(result), expected)
        self.assertEqual(self.resolver.resolve(address), expected)
        self.ticker.now += CACHE_TTL
        again: Any = self.resolver.resolve(address)
        self.assertNoResult(again)
        self.reactor.resolve()
        self.failureResultOf(again, DNSLookupError)

    def test_next_address_of_a_name(self) -> None:
        """If one address of a name refuses the connection, the next is tried."""
        balancer = MemoryBalancer(servers=0)
        self.addCleanup(balancer.stop)
        balancer.service.resource.connections.resolver = self.resolver
        balancer.service.server_set.add(ServerSettings(TcpAddress("app.internal", 80)))
        client = balancer.client()
        client.send(GET)
        self.reactor.resolve(IPv6Address("TCP", "::1", 0), IPv4Address("TCP", "10.0.0.1", 0))
        balancer.connectors[0].refuse()
        self.assertEqual(str(balancer.connectors[1].address), "10.0.0.1:80")
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_slow_resolution_times_out(self) -> None:
        """Requests to a name that is not resolved in time get 504; no connection follows."""
        balancer = MemoryBalancer(servers=0)
        self.addCleanup(balancer.stop)
        balancer.service.resource.connections.resolver = self.resolver
        balancer.service.server_set.add(ServerSettings(TcpAddress("slow.internal", 80)))
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        # All requests share one query.
        self.assertEqual(len(self.reactor.queries), 1)
        balancer.advance(6)
        for client in clients:
            self.assertTrue(client.received().startswith(b"HTTP/1.1 504 "))
        self.reactor.resolve(IPv4Address("TCP", "10.0.0.1", 0))
        self.assertEqual(balancer.connectors, [])

    def test_stop_during_resolution(self) -> None:
        """A name that is resolved after the stop causes no connection."""
        balancer = MemoryBalancer(servers=0)
        balancer.service.resource.connections.resolver = self.resolver
        balancer.service.server_set.add(ServerSettings(TcpAddress("slow.internal", 80)))
        balancer.client().send(GET)
        balancer.stop()
        self.reactor.resolve(IPv4Address("TCP", "10.0.0.1", 0))
        self.assertEqual(balancer.connectors, [])

    def test_unknown_name(self) -> None:
        """A request to a server whose name is unknown gets 502."""
        balancer = MemoryBalancer(servers=0)
        self.addCleanup(balancer.stop)
        balancer.service.resource.connections.resolver = self.resolver
        balancer.service.server_set.add(ServerSettings(TcpAddress("unknown.internal", 80)))
        client = balancer.client()
        client.send(GET)
        self.reactor.resolve()
        self.assertTrue(client.received().startswith(b"HTTP/1.1 502 "))
