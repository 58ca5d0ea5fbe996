"""Servers that read a request body slowly."""

from __future__ import annotations

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE


class StalledUploadTests(BalancerTestCase):
    """The upstream timeout during an upload."""

    def test_slow_upload_is_no_timeout(self) -> None:
        """An upload that the server reads slowly was cut like a stalled one."""
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=60))
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        client.send(b"x" * 2 * BUFFER_SIZE)
        for _ in range(5):
            balancer.advance(4)
            server.transport.read_some(1000)
        self.assertEqual(client.received(), b"")
        balancer.advance(12)
        self.assert_error(client.received(), 504)
