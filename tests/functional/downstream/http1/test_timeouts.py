"""Client timeouts of HTTP/1.1 connections."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK


class DownstreamTimeoutTests(BalancerTestCase):
    """Timeouts while the proxy waits for a client."""

    def test_header_timeout(self) -> None:
        """An incomplete head is rejected with 408, however steadily bytes arrive."""
        balancer = self.balancer()
        client = balancer.client()
        for byte in b"GET / HTTP":
            client.send(bytes([byte]))
            balancer.advance(0.9)
        self.assertEqual(client.received(), b"")
        balancer.advance(3)
        self.assert_error(client.received(), 408)
        self.assertTrue(client.transport.write_closed)
        balancer.advance(4)
        self.assertTrue(client.transport.closing)

    def test_connection_without_a_request(self) -> None:
        """A new connection without bytes is closed silently after the header timeout."""
        balancer = self.balancer()
        client = balancer.client()
        balancer.advance(9)
        self.assertFalse(client.transport.closing)
        balancer.advance(3)
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_idle_timeout(self) -> None:
        """A connection without a further request is closed after the idle timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        balancer.advance(58)
        self.assertFalse(client.transport.closing)
        balancer.advance(4)
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_header_timeout_of_a_later_request(self) -> None:
        """The header timeout of a later request counts from its first byte."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        balancer.advance(30)
        client.send(b"GET")
        balancer.advance(12)
        self.assert_error(client.received(), 408)

    def test_stalled_request_body(self) -> None:
        """A stalled request body is rejected with 408, and its upstream connection is reset."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        balancer.advance(62)
        self.assert_error(client.received(), 408)
        self.assertTrue(server.transport.aborted)

    def test_slow_request_body(self) -> None:
        """A request body may take any time while bytes arrive within the idle timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        server = balancer.accept()
        for byte in b"abcdefghi":
            balancer.advance(40)
            client.send(bytes([byte]))
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_client_that_stops_reading(self) -> None:
        """A client that stops reading its response is reset after the idle timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 2 * BUFFER_SIZE)
        self.assertFalse(server.transport.reading)
        balancer.advance(62)
        self.assertTrue(client.transport.aborted)
        balancer.finish_closing()
        self.assertTrue(server.transport.closed)

    def test_client_that_does_not_read_the_end(self) -> None:
        """A closing connection whose client does not read is reset after the idle timeout."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        balancer.accept().send(OK)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)
        balancer.advance(62)
        self.assertTrue(client.transport.aborted)
