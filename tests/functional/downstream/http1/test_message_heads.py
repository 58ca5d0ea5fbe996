"""Heads of requests and responses."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, head_and_body


class MessageHeadTests(BalancerTestCase):
    """Rejected heads, `Via`, and heads in many pieces."""

    def test_rejected_head_request_gets_no_body(self) -> None:
        """The error for a HEAD request that was rejected before it was parsed had a body."""
        long = b"x" * 40000
        for request in (
            b"HEAD / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n",
            b"HEAD /" + long,
            b"\r\nHEAD / HTTP/1.1\r\nHost: a\r\nX: " + long,
            b"HEAD / HTTP/1.1\nHost: a\n\n",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n",
            b"HEAD / HT",
            b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
        ):
            balancer = self.balancer(max_body=10)
            client = balancer.client()
            client.send(request)
            if balancer.connectors:
                balancer.accept()
            balancer.advance(62)
            lines, body = head_and_body(client.received())
            self.assertEqual(lines[0][9:10], b"4", request)
            self.assertEqual(body, b"", request)

    def test_via_names_the_version_of_the_server(self) -> None:
        """`Via` in responses named HTTP/1.1 for HTTP/1.0 servers."""
        for version, via in ((b"1.0", b"1.0"), (b"1.1", b"1.1")):
            _, answered = self.exchange(
                GET, b"HTTP/" + version + b" 200 OK\r\nContent-Length: 0\r\n\r\n"
            )
            self.assertIn(b"\r\nVia: " + via + b" balancebeam\r\n", answered)

    def test_head_in_many_pieces_is_scanned_once(self) -> None:
        """Each piece of a head was scanned from the start of the head, in quadratic time."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        for number in range(100):
            client.send(b"X-%d: 1" % number, b"\r", b"\n")
            self.assertGreater(client.protocol._reader._scan_offset, 20 + 7 * number)
        client.send(b"\r\n", GET)
        balancer.accept().send(OK)
        balancer.peers[-1].send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)
