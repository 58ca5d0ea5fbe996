"""`Expect: 100-continue` and timeouts."""

from __future__ import annotations

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase


class ExpectContinueTests(BalancerTestCase):
    """Which side is late while a client waits for 100 (Continue)."""

    def test_server_sends_no_100(self) -> None:
        """A client that waited for 100 (Continue) got 408 in place of 504."""
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=5, header=5))
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept()
        balancer.advance(7)
        self.assert_error(client.received(), 504)

    def test_only_100_permits_the_body(self) -> None:
        """Any 1xx response ended the wait for 100 (Continue), so the client got 408."""
        balancer = self.balancer(timeouts=Timeouts(upstream=8, idle=5, header=5))
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept().send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        client.received()
        balancer.advance(11)
        self.assert_error(client.received(), 504)

    def test_http_1_0_client_does_not_wait(self) -> None:
        """HTTP/1.0 has no 100 (Continue), but the client was treated as waiting for it."""
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=10, header=10))
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.0\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept()
        balancer.advance(13)
        self.assert_error(client.received(), 408)
