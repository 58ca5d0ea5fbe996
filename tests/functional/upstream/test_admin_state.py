"""Admin states and weights of servers, as requests see them."""

from __future__ import annotations

from balancebeam.core.settings import AdminState
from balancebeam.upstream.server import Server
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer


class AdminStateTests(BalancerTestCase):
    """The admin state is independent of the health of a server."""

    def selected(self, balancer: MemoryBalancer, requests: int) -> list[str]:
        """The addresses that sequential requests connect to."""
        before = len(balancer.connectors)
        for _ in range(requests):
            client = balancer.client()
            client.send(GET)
            client.reset()
        addresses = [str(c.address) for c in balancer.connectors[before:]]
        for connector in balancer.connectors[before:]:
            if connector.state == "connecting":
                connector.refuse()
        return addresses

    def set_state(self, server: Server, balancer: MemoryBalancer, state: AdminState) -> None:
        """Set the admin state of `server`."""
        balancer.service.resource.health.set_admin_state(server, state)

    def test_no_new_requests_in_drain_and_maintenance(self) -> None:
        """Drained servers finish their requests and get no new ones until they are ready."""
        for state, word in ((AdminState.DRAIN, "draining"), (AdminState.MAINTENANCE,) * 2):
            balancer = self.balancer(servers=2)
            client = balancer.client()
            client.send(GET)
            first = balancer.accept()
            server = balancer.servers[0]
            self.set_state(server, balancer, state)
            self.assertEqual(server.status, getattr(word, "value", word))
            self.assertEqual(set(self.selected(balancer, 4)), {"10.0.0.2:80"})
            # The request in flight finishes, and its connection is not kept.
            first.send(OK)
            self.assertIn(b"200 OK", client.received())
            self.assertTrue(first.transport.closing)
            self.set_state(server, balancer, AdminState.READY)
            self.assertEqual(server.status, "up")
            self.assertIn("10.0.0.1:80", self.selected(balancer, 2))

    def test_idle_connections_are_closed(self) -> None:
        """Draining closes idle connections."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        self.set_state(balancer.servers[0], balancer, AdminState.DRAIN)
        self.assertTrue(server.transport.closing)

    def test_pool_can_be_emptied(self) -> None:
        """If the only server is drained, requests are answered with 503."""
        balancer = self.balancer()
        self.set_state(balancer.servers[0], balancer, AdminState.DRAIN)
        client = balancer.client()
        client.send(GET)
        self.assert_error(client.received(), 503)
        self.assertEqual(balancer.connectors, [])

    def test_no_failover_to_a_drained_server(self) -> None:
        """A request is not retried at a server drained meanwhile."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        self.set_state(balancer.servers[1], balancer, AdminState.DRAIN)
        balancer.connectors[0].refuse()
        self.assert_error(client.received(), 502)
        self.assertEqual(len(balancer.connectors), 1)

    def test_no_failover_to_a_removed_server(self) -> None:
        """A request is not retried at a server removed meanwhile."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.service.server_set.remove(balancer.servers[1])
        balancer.connectors[0].refuse()
        self.assert_error(client.received(), 502)

    def test_end_of_maintenance_resets_failures(self) -> None:
        """A server that returns from maintenance is not ejected any more."""
        balancer = self.balancer()
        self.selected(balancer, 1)
        server = balancer.servers[0]
        client = balancer.client()
        client.send(GET)
        balancer.connectors[-1].refuse()
        self.assertTrue(server.ejected)
        self.set_state(server, balancer, AdminState.MAINTENANCE)
        self.set_state(server, balancer, AdminState.READY)
        self.assertFalse(server.ejected)
        self.assertEqual(server.ejection.cooldown, 0)

    def test_weight_change_at_run_time(self) -> None:
        """A weight of 0 stops new requests; another weight applies at once."""
        balancer = self.balancer(servers=2)
        balancer.service.resource.health.set_weight(balancer.servers[0], 0)
        self.assertEqual(set(self.selected(balancer, 4)), {"10.0.0.2:80"})
        balancer.service.resource.health.set_weight(balancer.servers[0], 3)
        self.assertEqual(balancer.servers[0].effective_weight, 3)
