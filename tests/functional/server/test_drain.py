"""Graceful shutdown, and an immediate stop."""

from __future__ import annotations

import random

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    PoolSettings,
    ServerSettings,
    Settings,
)
from balancebeam.server.balancer import BalancerService
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

APP = PoolSettings("app", (ServerSettings(TcpAddress("10.0.0.1", 80)),))
WEB = FrontendSettings("web", bind=(), pool="app")
SETTINGS = Settings((WEB,), (APP,), drain_timeout=10.0)

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


class DrainTests(SynchronousTestCase):
    """Clients, requests and connections while the balancer drains."""

    def setUp(self) -> None:
        self.start(SETTINGS)

    def start(self, settings: Settings) -> None:
        """Start a balancer in memory."""
        self.balancer = MemoryBalancer.from_settings(settings)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop the balancer, if it runs."""
        if self.balancer.service.running:
            self.balancer.stop()

    def drain(self) -> Deferred[None]:
        """Start to drain; `drained` fires at the end."""
        self.drained = self.balancer.service.drain()
        return self.drained

    def pass_time(self, seconds: float) -> None:
        """Advance the clock, and carry out the closes that the balancer has requested."""
        for _ in range(round(seconds)):
            self.balancer.advance(1)
            self.balancer.finish_closing()

    def complete_request(self, client: Peer) -> bytes:
        """Send a request and its response; returns what the client receives."""
        client.send(GET)
        if not any(server.idle_connections for server in self.balancer.servers):
            self.server = self.balancer.accept()
        else:
            client.received()
        self.server.send(OK)
        return client.received()

    def test_without_clients_it_ends_at_once(self) -> None:
        """Without clients, the drain ends at once, and readiness reports it."""
        self.successResultOf(self.drain())
        self.assertEqual(self.balancer.service.not_ready_reason(), "draining")

    def test_zero_timeout(self) -> None:
        """A drain timeout of 0 does not wait for requests."""
        self.start(evolve(SETTINGS, drain_timeout=0.0))
        self.balancer.client().send(GET)
        self.successResultOf(self.drain())

    def test_idle_clients_are_closed(self) -> None:
        """Idle clients are closed within about a second, new clients a little later."""
        idle, silent = self.balancer.client(), self.balancer.client()
        self.assertIn(b"200 OK", self.complete_request(idle))
        self.pass_time(5)
        new = self.balancer.client()
        self.drain()
        self.pass_time(1)
        self.assertTrue(idle.transport.closed)
        self.assertTrue(silent.transport.closed)
        self.pass_time(2)
        self.assertTrue(new.transport.closed)
        self.successResultOf(self.drained)

    def test_recent_client_may_send_another_request(self) -> None:
        """A client that was active just now gets another response with `Connection: close`."""
        client, fresh = self.balancer.client(), self.balancer.client()
        self.complete_request(client)
        self.drain()
        for peer in (client, fresh):
            peer.send(GET)
            self.server.send(OK)
            response = peer.received()
            self.assertIn(b"200 OK", response)
            self.assertIn(b"Connection: close\r\n", response)
        self.balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_requests_in_flight_finish(self) -> None:
        """A request in flight gets its response, and the connection is closed."""
        client = self.balancer.client()
        client.send(GET)
        server = self.balancer.accept()
        self.drain()
        self.pass_time(5)
        self.assertNoResult(self.drained)
        server.send(OK)
        self.assertIn(b"Connection: close\r\n", client.received())
        self.balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_started_response_is_completed(self) -> None:
        """A response that has started is sent to its end."""
        client = self.balancer.client()
        client.send(GET)
        server = self.balancer.accept()
        server.send(OK[:-3])
        self.drain()
        self.pass_time(3)
        server.send(OK[-3:])
        self.assertTrue(client.received().endswith(b"hello"))
        self.balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_uploads_finish(self) -> None:
        """A request body is received to its end."""
        client = self.balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        server = self.balancer.accept()
        self.drain()
        self.pass_time(3)
        client.send(b"def")
        self.assertTrue(server.received().endswith(b"abcdef"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_tunnels_last_until_the_timeout(self) -> None:
        """Tunnels stay open until the drain timeout, and are closed by the stop."""
        client = self.balancer.client()
        client.send(UPGRADE)
        server = self.balancer.accept()
        server.send(SWITCHED)
        self.drain()
        for _ in range(9):
            self.pass_time(1)
            client.send(b"ping")
            self.assertTrue(server.received().endswith(b"ping"))
        self.assertNoResult(self.drained)
        self.pass_time(2)
        self.successResultOf(self.drained)
        self.assertFalse(client.transport.closed)
        self.stop()
        self.assertTrue(client.transport.closed)

    def open_tunnel(self, settings: Settings) -> None:
        """Start a balancer with a tunnel in progress, and hand over to a new process."""
        self.start(settings)
        self.tunnel = self.balancer.client()
        self.tunnel.send(UPGRADE)
        self.balancer.accept().send(SWITCHED)
        self.drained = self.balancer.service.drain(handing_over=True)

    def test_no_time_limit_after_hot_restart(self) -> None:
        """After a hot restart, connections are not cut at the drain timeout."""
        self.open_tunnel(SETTINGS)
        for _ in range(60):
            self.balancer.advance(1)
        self.assertNoResult(self.drained)
        self.tunnel.reset()
        self.balancer.finish_closing()
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_handover_timeout(self) -> None:
        """After a hot restart, the drain ends at the handover timeout, if there is one."""
        self.open_tunnel(evolve(SETTINGS, handover_timeout=20.0))
        self.pass_time(19)
        self.assertNoResult(self.drained)
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_zero_handover_timeout(self) -> None:
        """A handover timeout of 0 does not wait for connections."""
        self.open_tunnel(evolve(SETTINGS, handover_timeout=0.0))
        self.successResultOf(self.drained)

    def test_tcp_connections_finish(self) -> None:
        """TCP connections are relayed until both sides have closed."""
        self.start(evolve(SETTINGS, frontends=(evolve(WEB, mode="tcp"),)))
        client = self.balancer.client()
        server = self.balancer.accept()
        self.drain()
        self.pass_time(5)
        client.send(b"still")
        self.assertEqual(server.received(), b"still")
        client.half_close()
        server.half_close()
        self.balancer.finish_closing()
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_reload_is_rejected(self) -> None:
        """A reload is rejected while the balancer drains."""
        service = self.balancer.service
        self.balancer.client()
        self.drain()
        error = self.assertRaises(ConfigError, service.reload)
        self.assertIn("draining", str(error))
        self.assertEqual((service.reloads, service.reloads_failed), (0, 1))
        self.flushLoggedErrors()

    def test_immediate_stop_aborts(self) -> None:
        """A stop without a drain aborts client connections."""
        client = self.balancer.client()
        client.send(GET)
        self.balancer.accept()
        self.stop()
        self.assertTrue(client.transport.aborted)

    def test_restart_after_drain(self) -> None:
        """A drained balancer can be started again, and keeps idle connections as before."""
        self.successResultOf(self.drain())
        self.stop()
        self.balancer.service.startService()
        client = self.balancer.client()
        self.assertNotIn(b"Connection: close", self.complete_request(client))
        self.pass_time(5)
        self.assertFalse(client.transport.closed)
        self.assertEqual(self.balancer.service.not_ready_reason(), "")

    def test_requests_of_a_web_tree_are_awaited(self) -> None:
        """Requests of a twisted.web tree, which belong to no frontend, are awaited."""
        # A request of a web tree counts at its server only.
        server = self.balancer.servers[0]
        server.in_flight += 1
        self.drain()
        self.pass_time(3)
        self.assertNoResult(self.drained)
        server.in_flight -= 1
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_drain_before_start(self) -> None:
        """A balancer that was never started is drained at once."""
        settings = evolve(SETTINGS, admin=AdminSettings())
        balancer = BalancerService(settings, Clock(), random.Random(1))
        self.successResultOf(balancer.drain())
