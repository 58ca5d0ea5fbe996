"""The start of idle and stall timeouts of client connections."""

from __future__ import annotations

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK


class IdleTimeoutTests(BalancerTestCase):
    """The moment from which idle time is counted."""

    def test_idle_time_starts_after_the_response(self) -> None:
        """Idle time was not reset at the end of the response."""
        balancer = self.balancer(timeouts=Timeouts(idle=10, upstream=60, header=10))
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        balancer.advance(30)
        server.send(OK)
        balancer.advance(8)
        self.assertFalse(client.transport.closing)
        balancer.advance(4)
        self.assertTrue(client.transport.closing)

    def test_stall_time_starts_with_the_stall(self) -> None:
        """Stall time was counted from the last activity, so the first stall cut the response."""
        balancer = self.balancer(timeouts=Timeouts(idle=10, upstream=60, header=10))
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n")
        balancer.advance(30)
        client.transport.stalled = True
        server.send(b"x" * 2 * BUFFER_SIZE)
        balancer.advance(8)
        self.assertFalse(client.transport.aborted)
        client.received()
        client.transport.stalled = False
        server.send(b"x" * (999999 - 2 * BUFFER_SIZE))

    def test_stray_line_end_is_no_request(self) -> None:
        """A CRLF after a request counted as a started head, which ended in 408."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        client.send(b"\r\n")
        balancer.advance(30)
        self.assertFalse(client.transport.closing)
        balancer.advance(40)
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")
