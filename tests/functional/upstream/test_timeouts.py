"""Timeouts of upstream connections."""

from __future__ import annotations

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK


class UpstreamTimeoutTests(BalancerTestCase):
    """Timeouts while the proxy waits for a server."""

    def test_response_timeout(self) -> None:
        """Without a response the client receives 504, and no other server is tried."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        balancer.advance(58)
        self.assertEqual(client.received(), b"")
        balancer.advance(4)
        self.assert_error(client.received(), 504)
        self.assertTrue(server.transport.aborted)
        self.assertEqual(len(balancer.connectors), 1)

    def test_timeout_below_one_second(self) -> None:
        """A timeout of half a second expires in time."""
        balancer = self.balancer(timeouts=Timeouts(upstream=0.5))
        client = balancer.client()
        client.send(GET)
        balancer.accept()
        balancer.advance(0.9)
        self.assert_error(client.received(), 504)

    def test_stalled_response_body(self) -> None:
        """A stalled response body ends in a close of the client's connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        balancer.advance(62)
        self.assertTrue(client.received().endswith(b"abc"))
        self.assertTrue(client.transport.closing)

    def test_slow_response_body(self) -> None:
        """A response body may take any time while bytes arrive within the timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for byte in b"abcd":
            balancer.advance(50)
            server.send(bytes([byte]))
        self.assertTrue(client.received().endswith(b"abcd"))

    def test_no_timeout_while_the_request_is_incomplete(self) -> None:
        """The response timeout does not run while the client sends its body."""
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=60))
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        server = balancer.accept()
        balancer.advance(30)
        client.send(b"x")
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_server_that_does_not_read(self) -> None:
        """A server that does not read the request body is given up with 504."""
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=60))
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        client.send(b"x" * 2 * BUFFER_SIZE)
        balancer.advance(7)
        self.assert_error(client.received(), 504)

    def test_idle_connection_is_closed(self) -> None:
        """An idle upstream connection is closed after the idle timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        balancer.advance(62)
        self.assertTrue(server.transport.closing)
        self.assertEqual(balancer.servers[0].idle_connections, {})

    def test_keepalive_of_lasting_connections(self) -> None:
        """An upstream connection that lasts until a sweep has TCP keepalive."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.transport.keep_alive = False
        balancer.advance(2)
        self.assertTrue(server.transport.keep_alive)

    def test_clock_jump(self) -> None:
        """A jump of the clock expires no timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        balancer.clock.advance(86400)
        self.assertEqual(client.received(), b"")
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
