"""Reuse of idle upstream connections."""

from __future__ import annotations

from collections.abc import Callable

from balancebeam.core.settings import OutlierDetectionSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, Peer


class ConnectionReuseTests(BalancerTestCase):
    """Connections that must not be reused, or may be stale."""

    def test_closing_connection_is_not_reused(self) -> None:
        """An idle connection with a FIN or unexpected data was reused until it was closed."""
        ends: tuple[Callable[[Peer], None], ...] = (
            Peer.half_close,
            lambda server: server.send(b"x"),
        )
        for end in ends:
            balancer = self.balancer()
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(OK)
            end(server)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            self.assertEqual(len(balancer.connectors), 2)
            balancer.accept().send(OK)
            self.assertEqual(client.received().count(b"hello"), 2)

    def test_unused_idle_connection_may_be_stale(self) -> None:
        """An idle connection that was never used did not count as stale, so its request failed."""
        balancer = self.balancer()
        leaver = balancer.client()
        leaver.send(GET)
        leaver.reset()
        server = balancer.accept()
        client = balancer.client()
        client.send(GET)
        server.half_close()
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_connection_with_unsent_request_is_not_reused(self) -> None:
        """After an early response, a connection with unsent bytes of the request was reused."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        client.send(b"x" * 1000)
        server.send(OK)
        self.assertTrue(server.transport.aborted)
        client.send(GET)
        balancer.accept().send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)

    def test_stale_connections_to_two_servers(self) -> None:
        """The second server gets a new connection as well, after the first one failed."""
        balancer = self.balancer(2, passive=OutlierDetectionSettings(cooldown=0.0))
        clients = [balancer.client(), balancer.client()]
        servers = []
        for client in clients:
            client.send(GET)
            servers.append(balancer.accept())
        for server in servers:
            server.send(OK)
        clients[0].send(GET)
        first, second = servers if servers[0].received().count(b"GET") == 2 else servers[::-1]
        first.half_close()
        balancer.connectors[2].refuse()
        self.assertEqual(second.received().count(b"GET"), 2)
        second.half_close()
        balancer.accept(3).send(OK)
        self.assertEqual(clients[0].received().count(b"hello"), 2)
