"""The tree of services: names, start and stop, extension points, demo servers."""

from __future__ import annotations

import random
from typing import Any

from twisted.application.service import IService
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Admission, AdmissionRequest
from balancebeam.api import make_balancer, single_pool_settings
from balancebeam.core.addresses import EndpointAddress, TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import ServerSettings
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.ratelimit.limit import Rejection
from balancebeam.routing.route_table import RouteTable
from balancebeam.server.balancer import BalancerService
from balancebeam.server.demo import DemoService
from balancebeam.upstream.server_set import ServerSet
from balancebeam.web.resource import BalancerResource
from tests.helpers.memory import GET, OK, MemoryBalancer, head_and_body

ONE = (ServerSettings(TcpAddress("10.0.0.1", 80)),)


class ServiceTreeTests(SynchronousTestCase):
    """Names, start and stop of the services."""

    def test_named_children(self) -> None:
        """Children have names; the pool's children are found by their short names."""
        balancer = BalancerService(single_pool_settings(ONE), Clock(), random.Random(1))
        for name in ("selector", "health", "limiter", "connections", "frontend:web"):
            verifyObject(IService, balancer.getServiceNamed(name))
        self.assertIsInstance(balancer.resource, BalancerResource)
        self.assertTrue(balancer.resource.isLeaf)

    def test_construction_has_no_side_effects(self) -> None:
        """Building a balancer schedules no timer."""
        clock = Clock()
        BalancerService(single_pool_settings(ONE), clock, random.Random(1))
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_make_balancer_defaults(self) -> None:
        """`make_balancer` needs only settings."""
        self.assertIsInstance(make_balancer(single_pool_settings(ONE)), BalancerService)

    def test_invalid_endpoint_description(self) -> None:
        """An invalid endpoint description is reported before the start."""
        settings = single_pool_settings(ONE, bind=(EndpointAddress("tcp:http:colour=red"),))
        error = self.assertRaises(ConfigError, BalancerService, settings, Clock(), random.Random(1))
        self.assertIn("--bind", str(error))
        self.assertEqual(error.problems, [str(error)])

    def test_stop_closes_all_connections(self) -> None:
        """A stop closes busy, waiting and idle client connections."""
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

    def test_start_after_stop(self) -> None:
        """A stopped balancer can be started again."""
        balancer = MemoryBalancer()
        balancer.stop()
        balancer.service.startService()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
        balancer.stop()


class DemoServerTests(SynchronousTestCase):
    """Demo servers inside the process."""

    def test_start_and_stop(self) -> None:
        """The start adds demo servers to a pool, the stop removes them."""
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


class RejectingAdmission(Admission):
    """An admission that rejects every request."""

    def __init__(self) -> None:
        super().__init__((), AccessList(), lambda: 0.0)
        self.unrestricted = False

    def admit(self, request: AdmissionRequest) -> Rejection | None:
        return Rejection(429, f"{request.client} again", 6.2, "limit", "policy")

    def release(self, request: AdmissionRequest) -> None:
        raise AssertionError("no request was admitted")


class ExtensionPointTests(SynchronousTestCase):
    """Admissions and observers that an application supplies."""

    def test_admission(self) -> None:
        """A rejection of an admission is a complete response with its rate limit headers."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        factory = balancer.service.default_frontend.factory
        factory.set_route_table(
            RouteTable(RouteTarget(balancer.service.resource, RejectingAdmission()))
        )
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
        """An observer gets finished and rejected requests."""
        balancer = MemoryBalancer()
        self.addCleanup(balancer.stop)
        seen: list[tuple[int, bool]] = []

        class RecordingObserver:
            """Records the status of every request, and whether it is complete."""

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
