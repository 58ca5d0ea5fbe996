"""Half-closed client connections and tunnels."""

from __future__ import annotations

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK
from tests.helpers.upgrade import UPGRADE_REQUEST, UPGRADE_RESPONSE


class HalfClosedTunnelTests(BalancerTestCase):
    """Tunnels of which one direction is closed."""

    def test_client_half_closes_before_the_tunnel_starts(self) -> None:
        """A FIN that came before the 101 was not passed on to the server."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        client.half_close()
        server.send(UPGRADE_RESPONSE)
        self.assertTrue(server.transport.write_closed)
        server.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)

    def test_half_closed_tunnel_times_out(self) -> None:
        """Half-closed tunnels had no timeout."""
        balancer = self.balancer(timeouts=Timeouts(idle=5, upstream=5))
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        server.send(UPGRADE_RESPONSE)
        client.half_close()
        for _ in range(4):
            balancer.advance(3)
            server.send(b"x")
        self.assertFalse(client.transport.closing)
        balancer.advance(8)
        self.assertTrue(client.transport.aborted)

    def test_tunnel_with_both_sides_stalled(self) -> None:
        """A tunnel of which neither side read any more was never closed."""
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=5, header=5))
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        server.send(UPGRADE_RESPONSE)
        client.received()
        client.transport.stalled = server.transport.stalled = True
        server.send(b"x" * 2 * BUFFER_SIZE)
        client.send(b"last words")
        client.half_close()
        balancer.advance(8)
        client.finish_closing()
        self.assertTrue(client.transport.closed)
        balancer.advance(8)
        self.assertTrue(server.transport.aborted)


class HalfClosedClientTests(BalancerTestCase):
    """Clients that have sent FIN and wait for the response."""

    def test_half_closed_client_has_at_least_a_second(self) -> None:
        """The timeout ignored that the ticker is up to one interval late, and fired early."""
        balancer = self.balancer()
        balancer.advance(0.9)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.half_close()
        balancer.advance(1.0)
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
