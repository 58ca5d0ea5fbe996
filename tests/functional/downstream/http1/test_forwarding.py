"""HTTP/1.1 header lines: which are added, changed, removed and kept; 1xx responses."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import (
    DATE_HEADER,
    GET,
    OK,
    head_and_body,
)


class ForwardingTests(BalancerTestCase):
    """Which header lines are added, changed, removed and kept."""

    def test_request_head(self) -> None:
        """A request keeps its lines byte for byte, and gains forwarding headers and Via."""
        forwarded, _ = self.exchange(
            b"GET /a?b=%20c HTTP/1.1\r\nhost: example.org\r\nX-Odd:  spaced \t\r\n\r\n", OK
        )
        self.assertEqual(
            forwarded,
            b"GET /a?b=%20c HTTP/1.1\r\nhost: example.org\r\nX-Odd:  spaced \t\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
            b"X-Forwarded-Host: example.org\r\nVia: 1.1 balancebeam\r\n\r\n",
        )

    def test_response_head(self) -> None:
        """A response keeps its lines byte for byte, and gains Via."""
        _, received = self.exchange(GET, OK)
        self.assertEqual(
            received,
            b"HTTP/1.1 200 OK\r\n" + DATE_HEADER + b"Content-Length: 5\r\n"
            b"Via: 1.1 balancebeam\r\n\r\nhello",
        )

    def test_date_is_added(self) -> None:
        """A response without Date gains one."""
        _, received = self.exchange(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(DATE_HEADER, received)

    def test_hop_by_hop_headers_are_removed(self) -> None:
        """Connection, the headers it names and other hop-by-hop headers are not forwarded."""
        forwarded, received = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n"
            b"Keep-Alive: timeout=5\r\nTE: gzip\r\nProxy-Authorization: Basic eA==\r\n"
            b"Proxy-Connection: keep-alive\r\nX-Kept: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: max=5\r\n"
            b"X-Kept: 2\r\nContent-Length: 0\r\n\r\n",
        )
        for removed in (b"X-Mine", b"Keep-Alive", b"TE:", b"Proxy-", b"X-Theirs", b"gzip"):
            self.assertNotIn(removed, forwarded + received)
        self.assertIn(b"\r\nX-Kept: 1\r\n", forwarded)
        self.assertIn(b"\r\nX-Kept: 2\r\n", received)
        self.assertIn(b"\r\nConnection: close\r\n", received)

    def test_peer_is_appended_to_x_forwarded_for(self) -> None:
        """X-Forwarded-For becomes one list that ends with the peer; the others are replaced."""
        forwarded, _ = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.1.1.1\r\n"
            b"X-Forwarded-For: 2.2.2.2, 3.3.3.3\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Host: evil\r\n\r\n",
            OK,
        )
        lines, _ = head_and_body(forwarded)
        self.assertIn(b"X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.1", lines)
        self.assertIn(b"X-Forwarded-Proto: http", lines)
        self.assertIn(b"X-Forwarded-Host: a", lines)
        self.assertEqual(forwarded.lower().count(b"x-forwarded-"), 3)

    def test_forwarding_headers_of_a_trusted_proxy_are_kept(self) -> None:
        """X-Forwarded-Proto and -Host of a trusted proxy are forwarded."""
        forwarded, _ = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Host: shop.example\r\n\r\n",
            OK,
            trusted_proxies=("192.0.2.0/24",),
        )
        self.assertIn(b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n", forwarded)

    def test_absolute_form_target(self) -> None:
        """A target in absolute form is forwarded in origin form."""
        forwarded, _ = self.exchange(
            b"GET http://Example.org/x?y HTTP/1.1\r\nHost: example.org\r\n\r\n", OK
        )
        self.assertTrue(forwarded.startswith(b"GET /x?y HTTP/1.1\r\n"), forwarded)

    def test_asterisk_form_target(self) -> None:
        """`OPTIONS *` is forwarded as it is."""
        forwarded, _ = self.exchange(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK)
        self.assertTrue(forwarded.startswith(b"OPTIONS * HTTP/1.1\r\n"))

    def test_max_forwards_of_zero_is_answered_by_the_proxy(self) -> None:
        """OPTIONS and TRACE with `Max-Forwards: 0` reach no server."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 200 OK", b""))
        self.assertTrue(any(line.startswith(b"Allow: ") for line in lines))
        client.send(b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
        self.assert_error(client.received(), 405)
        self.assertEqual(balancer.connectors, [])

    def test_max_forwards_is_decremented(self) -> None:
        """Max-Forwards is forwarded less one."""
        forwarded, _ = self.exchange(b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", OK)
        self.assertIn(b"\r\nMax-Forwards: 2\r\n", forwarded)

    def test_tcp_no_delay_is_set_on_both_sides(self) -> None:
        """Connections to clients and servers have TCP_NODELAY."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        self.assertTrue(client.transport.no_delay)
        self.assertTrue(server.transport.no_delay)
        server.send(OK)


class InformationalResponseTests(BalancerTestCase):
    """1xx responses and Expect."""

    def test_100_continue_is_forwarded(self) -> None:
        """Expect and the server's 100 (Continue) are forwarded."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        server = balancer.accept()
        self.assertIn(b"\r\nExpect: 100-continue\r\n", server.received())
        self.assertEqual(client.received(), b"")
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(client.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"abc")
        self.assertEqual(server.received(), b"abc")
        server.send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_final_response_instead_of_100_continue(self) -> None:
        """A final status instead of 100 (Continue) is forwarded, and the connection is closed."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept().send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        received = client.received()
        self.assertTrue(received.startswith(b"HTTP/1.1 401 No\r\n"))
        self.assertIn(b"\r\nConnection: close\r\n", received)

    def test_early_hints(self) -> None:
        """102 and 103 responses are forwarded before the final one."""
        _, received = self.exchange(
            GET, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK
        )
        self.assertTrue(
            received.startswith(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n"
                b"HTTP/1.1 200 OK\r\n"
            ),
            received,
        )

    def test_no_informational_response_to_http_1_0(self) -> None:
        """An HTTP/1.0 client receives the final response only."""
        _, received = self.exchange(
            b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK
        )
        self.assertTrue(received.startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_flood_of_informational_responses(self) -> None:
        """Too many 1xx responses of a server are answered with 502."""
        _, received = self.exchange(GET, b"HTTP/1.1 102 Processing\r\n\r\n" * 200)
        self.assertIn(b"HTTP/1.1 502 ", received)

    def test_unknown_expectation(self) -> None:
        """An expectation other than 100-continue is rejected with 417."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")
        self.assert_error(client.received(), 417)
