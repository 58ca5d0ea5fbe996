"""Lingering close: the response is complete while the request body is not."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import head_and_body


class LingeringCloseTests(BalancerTestCase):
    """When the lingering close starts."""

    def test_lingering_starts_after_the_response_is_flushed(self) -> None:
        """The lingering timeout started before the response was flushed, and cut it."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50000)
        self.assertTrue(client.transport.write_closed)
        balancer.advance(20)
        self.assertFalse(client.transport.closing)
        self.assertEqual(len(head_and_body(client.received())[1]), 50000)
        client.protocol.writeConnectionLost()
        balancer.advance(5)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_lingering_after_a_backlog(self) -> None:
        """After a backlog that was flushed in parts, the lingering close never ended."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n")
        server.send(b"x" * 100000)
        client.received()
        server.send(b"x" * 100000)
        client.transport.read_some(200000)
        client.protocol.writeConnectionLost()
        balancer.advance(5)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)
