"""The queue of a saturated pool: `max_in_flight`, order, limits and timeouts."""

from __future__ import annotations

from typing import Any

from balancebeam.api import Timeouts
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminState, QueueSettings, ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def saturable_servers(count: int, max_in_flight: int) -> tuple[ServerSettings, ...]:
    """Settings of `count` servers with `max_in_flight`."""
    return tuple(
        ServerSettings(TcpAddress(f"10.0.0.{n}", 80), max_in_flight=max_in_flight)
        for n in range(1, count + 1)
    )


class QueueTests(BalancerTestCase):
    """Requests beyond `max_in_flight` are queued, and served when a server is free."""

    def saturated(self, servers: int = 1, **options: Any) -> tuple[MemoryBalancer, list[Peer]]:
        """A balancer all of whose servers have one request, and allow no more."""
        options.setdefault("timeouts", Timeouts(upstream=60))
        balancer = self.balancer(servers=saturable_servers(servers, 1), **options)
        peers = []
        for _ in range(servers):
            balancer.client().send(GET)
            peers.append(balancer.accept())
        return balancer, peers

    def balancer(self, servers: Any = 1, **options: Any) -> MemoryBalancer:
        """A balancer with a number of servers, or with servers that have these settings."""
        if isinstance(servers, int):
            return super().balancer(servers, **options)
        balancer = super().balancer(0, **options)
        for server in servers:
            balancer.service.server_set.add(server)
        return balancer

    def queue_length(self, balancer: MemoryBalancer) -> int:
        """The number of queued requests."""
        return len(balancer.service.resource.queue)

    def test_another_server_gets_the_request(self) -> None:
        """A request is sent to a server with capacity instead of a saturated one."""
        balancer = self.balancer(saturable_servers(3, 1))
        for _ in range(3):
            balancer.client().send(GET)
        self.assertEqual([s.in_flight for s in balancer.servers], [1, 1, 1])
        self.assertEqual(self.queue_length(balancer), 0)

    def test_requests_are_served_in_order(self) -> None:
        """Queued requests are sent in order of arrival, one per free server."""
        balancer, (server,) = self.saturated()
        clients = [balancer.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(GET.replace(b"/ ", b"/%d " % number))
        self.assertEqual(self.queue_length(balancer), 3)
        for number, client in enumerate(clients):
            server.received()
            server.send(OK)
            self.assertTrue(server.received().startswith(b"GET /%d " % number))
            self.assertEqual(balancer.servers[0].in_flight, 1)
            self.assertEqual(client.received(), b"")
        server.send(OK)
        self.assertIn(b"200 OK", clients[-1].received())

    def test_full_queue(self) -> None:
        """A request that finds the queue full is answered with 503."""
        balancer, (server,) = self.saturated(queue=QueueSettings(limit=2))
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        self.assertEqual(self.queue_length(balancer), 2)
        self.assert_error(clients[2].received(), 503)
        for _ in range(3):
            server.send(OK)

    def test_queue_timeout(self) -> None:
        """A request that is queued for longer than the timeout is answered with 503."""
        balancer, (server,) = self.saturated(queue=QueueSettings(timeout=3))
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        balancer.advance(2)
        late.send(GET)
        balancer.advance(2)
        self.assert_error(early.received(), 503)
        self.assertEqual(late.received(), b"")
        server.send(OK, OK)
        self.assertIn(b"200 OK", late.received())

    def test_disconnected_client_leaves_the_queue(self) -> None:
        """A request leaves the queue when its client disconnects; the next one is served."""
        balancer, (server,) = self.saturated()
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        late.send(POST)
        early.reset()
        self.assertEqual(self.queue_length(balancer), 1)
        server.received()
        server.send(OK)
        self.assertTrue(server.received().endswith(b"abc"))
        server.send(OK)
        self.assertIn(b"200 OK", late.received())

    def test_body_received_while_queued(self) -> None:
        """Body bytes that arrive while the request is queued are sent to the server."""
        balancer, (server,) = self.saturated()
        client = balancer.client()
        client.send(POST[:-2])
        client.send(POST[-2:])
        server.received()
        server.send(OK)
        self.assertTrue(server.received().endswith(b"\r\n\r\nabc"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_server_fails_while_requests_are_queued(self) -> None:
        """An ejected server still serves queued requests if it is the only one."""
        balancer, (server,) = self.saturated()
        client = balancer.client()
        client.send(GET)
        server.reset()
        # It is ejected, but the only server.
        balancer.advance(1.5)
        self.assertEqual(self.queue_length(balancer), 0)
        for connector in balancer.connectors[1:]:
            self._accept(balancer, connector)
        self.assertIn(b"200 OK", client.received())

    def _accept(self, balancer: MemoryBalancer, connector: Any) -> None:
        """Accept and answer, if `connector` is connecting."""
        if connector.state == "connecting":
            balancer.accept(balancer.connectors.index(connector)).send(OK)

    def test_ready_server_serves_queued_requests(self) -> None:
        """A server that is set to ready serves the queued requests."""
        balancer, peers = self.saturated(2)
        health = balancer.service.resource.health
        health.set_admin_state(balancer.servers[1], AdminState.DRAIN)
        peers[1].send(OK)
        client = balancer.client()
        client.send(GET)
        self.assertEqual(self.queue_length(balancer), 1)
        health.set_admin_state(balancer.servers[1], AdminState.READY)
        balancer.advance(1.5)
        self.assertEqual(self.queue_length(balancer), 0)
        balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_retry_is_queued_for_other_servers(self) -> None:
        """A retry is queued, and is not sent to the server where it failed."""
        balancer = self.balancer(saturable_servers(2, 1))
        first, second = balancer.client(), balancer.client()
        first.send(GET)
        free_later = balancer.accept()
        second.send(GET)
        balancer.connectors[1].refuse()
        self.assertEqual(self.queue_length(balancer), 1)
        free_later.send(OK)
        free_later.send(OK)
        self.assertIn(b"200 OK", second.received())

    def test_queued_request_fails_over(self) -> None:
        """A request that was queued is retried on another server."""
        balancer, peers = self.saturated(2)
        client = balancer.client()
        client.send(GET)
        self.assertEqual(self.queue_length(balancer), 1)
        peers[0].send(CLOSING)
        peers[1].send(OK)
        balancer.connectors[-1].refuse()
        peers[1].send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_retry_on_a_server_that_was_saturated(self) -> None:
        """A server that was skipped as saturated is a candidate of a retry."""
        balancer = self.balancer(saturable_servers(2, 1))
        balancer.client().send(GET)
        first = balancer.accept()
        # Round robin: the second server's turn, then the first's, which is saturated.
        clients = [balancer.client(), balancer.client()]
        clients[0].send(GET)
        balancer.accept().send(CLOSING)
        clients[1].send(GET)
        balancer.connectors[-1].refuse()
        self.assertEqual(self.queue_length(balancer), 1)
        first.send(OK)
        first.send(OK)
        self.assertIn(b"200 OK", clients[1].received())

    def test_queueing_is_preferred_to_ejected_servers(self) -> None:
        """Requests are queued for an available server rather than sent to an ejected one."""
        balancer = self.balancer(saturable_servers(2, 5))
        balancer.client().send(GET)
        balancer.connectors[0].refuse()
        for _ in range(10):
            balancer.client().send(GET)
        self.assertEqual([server.in_flight for server in balancer.servers], [0, 5])
        self.assertEqual(self.queue_length(balancer), 6)

    def test_new_requests_do_not_overtake(self) -> None:
        """A new request is not sent before a queued one."""
        balancer, (server,) = self.saturated()
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        server.received()
        server.send(OK)
        late.send(GET)
        self.assertEqual(balancer.servers[0].in_flight, 1)
        self.assertEqual(late.received(), b"")
        server.send(OK, OK)
        self.assertIn(b"200 OK", early.received())
        self.assertIn(b"200 OK", late.received())

    def test_queued_retry_does_not_block_the_queue(self) -> None:
        """A queued retry and the request behind it are both served."""
        balancer = self.balancer(saturable_servers(2, 1))
        first, second, third = (balancer.client() for _ in range(3))
        first.send(GET)
        peer = balancer.accept()
        # The second server refuses the second request, which is queued for the first.
        second.send(GET)
        balancer.connectors[1].refuse()
        self.assertEqual(self.queue_length(balancer), 1)
        third.send(GET)
        balancer.advance(1.5)
        self.assertEqual(self.queue_length(balancer), 2)
        # The second server is still ejected, and the first serves both in order.
        balancer.advance(3)
        peer.send(OK)
        peer.send(OK)
        self.assertIn(b"200 OK", second.received())
        peer.send(OK)
        self.assertIn(b"200 OK", third.received())

    def test_pool_stops_with_a_long_queue(self) -> None:
        """Stopping the pool with 1500 queued requests neither recurses nor sends one."""
        balancer, (server,) = self.saturated(queue=QueueSettings(limit=2000))
        for _ in range(1500):
            balancer.client().send(GET)
        self.assertEqual(self.queue_length(balancer), 1500)
        balancer.service.resource.connections.stopService()
        self.assertTrue(server.transport.closing)
        self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_backup_serves_the_overflow(self) -> None:
        """A backup server gets the requests beyond the capacity of the primaries."""
        balancer = self.balancer(
            (*saturable_servers(1, 1), ServerSettings(TcpAddress("10.0.0.9", 80), backup=True))
        )
        for _ in range(2):
            balancer.client().send(GET)
        self.assertEqual(str(balancer.connectors[1].address), "10.0.0.9:80")

    def test_balancer_stops_with_queued_requests(self) -> None:
        """The balancer stops cleanly while requests are queued."""
        balancer, _ = self.saturated()
        balancer.client().send(GET)
        balancer.stop()
