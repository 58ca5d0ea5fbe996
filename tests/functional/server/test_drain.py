"""Letting everybody go, in order, and a service that is stopped at once."""

from __future__ import annotations

import random

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.errors import StartupError
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
    """What becomes of clients when the balancer drains."""

    def setUp(self) -> None:
        self.use(SETTINGS)

    def use(self, settings: Settings) -> None:
        self.balancer = MemoryBalancer.from_settings(settings)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        if self.balancer.service.running:
            self.balancer.stop()

    def drain(self) -> Deferred[None]:
        self.drained = self.balancer.service.drain()
        return self.drained

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.balancer.advance(1)
            self.balancer.finish_closing()

    def answered(self, client: Peer) -> bytes:
        client.send(GET)
        if not any(server.idle_connections for server in self.balancer.servers):
            self.server = self.balancer.accept()
        else:
            client.received()
        self.server.send(OK)
        return client.received()

    def test_with_nobody_it_is_over_at_once(self) -> None:
        self.successResultOf(self.drain())
        self.assertEqual(self.balancer.service.not_ready_reason(), "draining")

    def test_no_time_at_all(self) -> None:
        self.use(evolve(SETTINGS, drain_timeout=0.0))
        self.balancer.client().send(GET)
        self.successResultOf(self.drain())

    def test_idle_clients_are_let_go_within_about_a_second(self) -> None:
        idle, silent = self.balancer.client(), self.balancer.client()
        self.assertIn(b"200 OK", self.answered(idle))
        self.pass_time(5)
        just_come = self.balancer.client()
        self.drain()
        self.pass_time(1)
        self.assertTrue(idle.transport.closed)
        self.assertTrue(silent.transport.closed)
        self.pass_time(2)
        self.assertTrue(just_come.transport.closed)
        self.successResultOf(self.drained)

    def test_who_has_just_asked_may_ask_again(self) -> None:
        client, fresh = self.balancer.client(), self.balancer.client()
        self.answered(client)
        self.drain()
        for one in (client, fresh):
            one.send(GET)
            self.server.send(OK)
            answer = one.received()
            self.assertIn(b"200 OK", answer)
            self.assertIn(b"Connection: close\r\n", answer)
        self.balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_requests_in_flight_finish(self) -> None:
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

    def test_an_answer_that_has_begun_ends_whole(self) -> None:
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

    def test_uploads_end(self) -> None:
        client = self.balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        server = self.balancer.accept()
        self.drain()
        self.pass_time(3)
        client.send(b"def")
        self.assertTrue(server.received().endswith(b"abcdef"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_tunnels_last_until_the_deadline(self) -> None:
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

    def test_connections_last_until_they_end(self) -> None:
        self.use(evolve(SETTINGS, frontends=(evolve(WEB, mode="tcp"),)))
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

    def test_nothing_is_reloaded_meanwhile(self) -> None:
        service = self.balancer.service
        self.balancer.client()
        self.drain()
        failure = self.assertRaises(StartupError, service.reload)
        self.assertIn("it is stopping", str(failure))
        self.assertEqual((service.reloads, service.reloads_failed), (0, 1))
        self.flushLoggedErrors()

    def test_who_stops_it_at_once_need_not_drain(self) -> None:
        client = self.balancer.client()
        client.send(GET)
        self.balancer.accept()
        self.stop()
        self.assertTrue(client.transport.aborted)

    def test_after_a_drain_it_can_be_started_again(self) -> None:
        self.successResultOf(self.drain())
        self.stop()
        self.balancer.service.startService()
        client = self.balancer.client()
        self.assertNotIn(b"Connection: close", self.answered(client))
        self.pass_time(5)
        self.assertFalse(client.transport.closed)
        self.assertEqual(self.balancer.service.not_ready_reason(), "")

    def test_requests_through_a_tree_are_waited_for(self) -> None:
        # What a web door does to a server, as the balancer sees it.
        server = self.balancer.servers[0]
        server.in_flight += 1
        self.drain()
        self.pass_time(3)
        self.assertNoResult(self.drained)
        server.in_flight -= 1
        self.pass_time(2)
        self.successResultOf(self.drained)

    def test_before_it_was_started(self) -> None:
        settings = evolve(SETTINGS, admin=AdminSettings())
        balancer = BalancerService(settings, Clock(), random.Random(1))
        self.successResultOf(balancer.drain())
