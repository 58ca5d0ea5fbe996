"""HTTP/1.1 requests that the proxy rejects."""

from __future__ import annotations

import json

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import (
    GET,
    OK,
    head_and_body,
)


class RejectedRequestTests(BalancerTestCase):
    """Requests that the proxy rejects or answers itself."""

    def test_malformed_requests(self) -> None:
        """Each malformed or unsupported request is rejected with its status and a close."""
        long = b"x" * 40000
        many = b"".join(b"X-%d: 1\r\n" % number for number in range(200))
        for status, request in (
            (400, b"GET / HTTP/1.1\r\n\r\n"),
            (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
            (400, b"nonsense\r\n\r\n"),
            (400, b"\x16\x03\x01\x02\x00\x01\x00"),
            (400, b"GET / HTTP/1.1\nHost: a\n\n"),
            (
                400,
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n",
            ),
            (414, b"GET /" + long + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
            (414, b"GET /" + long),
            (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + long + b"\r\n\r\n"),
            (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + long),
            (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + many + b"\r\n"),
            (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
            (501, b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
            (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        ):
            balancer = self.balancer()
            client = balancer.client()
            client.send(request)
            lines = self.assert_error(client.received(), status)
            self.assertIn(b"Connection: close", lines)
            self.assertTrue(client.transport.write_closed, request)
            self.assertEqual(balancer.connectors, [], request)

    def test_response_to_head_has_no_body(self) -> None:
        """Errors in response to HEAD have no body, for unreadable requests too."""
        balancer = self.balancer(servers=0)
        client = balancer.client()
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 503 Service Unavailable", b""))
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 400 Bad Request", b""))

    def test_one_empty_line_before_a_request(self) -> None:
        """One empty line before a request is ignored (RFC 9112, 2.2)."""
        forwarded, _ = self.exchange(b"\r\n" + GET, OK)
        self.assertTrue(forwarded.startswith(b"GET / "))

    def test_two_empty_lines_before_a_request(self) -> None:
        """A second empty line is rejected with 400."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"\r\n\r\n" + GET)
        self.assert_error(client.received(), 400)

    def test_no_server(self) -> None:
        """Without a server, requests are answered with 503 and the fixed error text."""
        balancer = self.balancer(servers=0)
        client = balancer.client()
        client.send(GET)
        _, body = head_and_body(client.received())
        self.assertEqual(json.loads(body), {"status": "error", "data": "error no available server"})
        self.assertFalse(client.transport.closing)

    def test_no_request_is_read_after_a_rejected_one(self) -> None:
        """After a malformed request, neither pipelined nor later requests are parsed."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\n\r\n" + GET)
        self.assertEqual(client.received().count(b"HTTP/1.1 "), 1)
        client.send(GET)
        self.assertEqual(client.received(), b"")
        self.assertEqual(balancer.connectors, [])
