"""The http door, as transcripts: what clients and servers say to each other."""

from __future__ import annotations

import json

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import (
    BUFFER_SIZE,
    DATE_HEADER,
    GET,
    OK,
    MemoryBalancer,
    Peer,
    head_and_body,
)


class ForwardingTests(BalancerTestCase):
    """What changes on the way, and what does not."""

    def test_request(self) -> None:
        forwarded, _ = self.exchange(
            b"GET /a?b=%20c HTTP/1.1\r\nhost: example.org\r\nX-Odd:  spaced \t\r\n\r\n", OK
        )
        self.assertEqual(
            forwarded,
            b"GET /a?b=%20c HTTP/1.1\r\nhost: example.org\r\nX-Odd:  spaced \t\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n"
            b"X-Forwarded-Host: example.org\r\nVia: 1.1 balancebeam\r\n\r\n",
        )

    def test_response(self) -> None:
        _, answered = self.exchange(GET, OK)
        self.assertEqual(
            answered,
            b"HTTP/1.1 200 OK\r\n" + DATE_HEADER + b"Content-Length: 5\r\n"
            b"Via: 1.1 balancebeam\r\n\r\nhello",
        )

    def test_date_is_added(self) -> None:
        _, answered = self.exchange(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        self.assertIn(DATE_HEADER, answered)

    def test_hop_by_hop_fields_stop(self) -> None:
        forwarded, answered = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\n"
            b"Keep-Alive: timeout=5\r\nTE: gzip\r\nProxy-Authorization: Basic eA==\r\n"
            b"Proxy-Connection: keep-alive\r\nX-Kept: 1\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: max=5\r\n"
            b"X-Kept: 2\r\nContent-Length: 0\r\n\r\n",
        )
        for gone in (b"X-Mine", b"Keep-Alive", b"TE:", b"Proxy-", b"X-Theirs", b"gzip"):
            self.assertNotIn(gone, forwarded + answered)
        self.assertIn(b"\r\nX-Kept: 1\r\n", forwarded)
        self.assertIn(b"\r\nX-Kept: 2\r\n", answered)
        self.assertIn(b"\r\nConnection: close\r\n", answered)

    def test_forwarded_for_is_one_list_that_the_peer_ends(self) -> None:
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

    def test_trusted_proxy_is_believed(self) -> None:
        forwarded, _ = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Host: shop.example\r\n\r\n",
            OK,
            trusted_proxies=("192.0.2.0/24",),
        )
        self.assertIn(b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n", forwarded)

    def test_absolute_form(self) -> None:
        forwarded, _ = self.exchange(
            b"GET http://Example.org/x?y HTTP/1.1\r\nHost: example.org\r\n\r\n", OK
        )
        self.assertTrue(forwarded.startswith(b"GET /x?y HTTP/1.1\r\n"), forwarded)

    def test_options_star(self) -> None:
        forwarded, _ = self.exchange(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", OK)
        self.assertTrue(forwarded.startswith(b"OPTIONS * HTTP/1.1\r\n"))

    def test_max_forwards_ends_here(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 200 OK", b""))
        self.assertTrue(any(line.startswith(b"Allow: ") for line in lines))
        client.send(b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
        self.assert_error(client.received(), 405)
        self.assertEqual(balancer.connectors, [])

    def test_max_forwards_is_counted_down(self) -> None:
        forwarded, _ = self.exchange(b"TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 3\r\n\r\n", OK)
        self.assertIn(b"\r\nMax-Forwards: 2\r\n", forwarded)

    def test_nagle_is_off_on_both_sides(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        self.assertTrue(client.transport.no_delay)
        self.assertTrue(server.transport.no_delay)
        server.send(OK)


class PersistentConnectionTests(BalancerTestCase):
    """Connections that go on, on both sides."""

    def test_one_connection_serves_many_requests(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        for _ in range(5):
            self.assertTrue(server.received().startswith(b"GET / HTTP/1.1\r\n"))
            server.send(OK)
            self.assertTrue(client.received().endswith(b"hello"))
            client.send(GET)
        server.send(OK)
        self.assertEqual(len(balancer.connectors), 1)

    def test_the_connection_used_last_is_used_next(self) -> None:
        balancer = self.balancer()
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        servers = [balancer.accept(number) for number in range(3)]
        for server in servers:
            server.received()
            server.send(OK)
        clients[0].send(GET)
        self.assertEqual([len(s.received()) > 0 for s in servers], [False, False, True])
        servers[2].send(OK)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
        client.send(b"".join(request % n for n in range(5)))
        server = balancer.accept()
        for number in range(5):
            self.assertTrue(server.received().startswith(b"GET /%d " % number))
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
            self.assertTrue(client.received().endswith(b"\r\n\r\n%d" % number))

    def test_pipelined_errors_do_not_recurse(self) -> None:
        balancer = self.balancer(servers=0)
        client = balancer.client()
        client.send(GET * 3000)
        self.assertEqual(client.received().count(b"HTTP/1.1 503 "), 3000)

    def test_pipelined_requests_behind_a_body(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"\r\n\r\nabc"))
        server.send(OK)
        self.assertTrue(server.received().startswith(b"GET / "))
        server.send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)

    def test_connection_close(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        balancer.accept().send(OK)
        self.assertIn(b"\r\nConnection: close\r\n", client.received())
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_server_that_closes_is_not_used_again(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertNotIn(b"close", client.received())
        client.send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        balancer.accept().send(OK)

    def test_idle_connection_that_the_server_closed(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        server.half_close()
        balancer.finish_closing()
        client.send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        balancer.accept().send(OK)

    def test_http_1_0_client(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        server = balancer.accept()
        forwarded = server.received()
        self.assertIn(b"\r\nHost: 127.0.0.1:1100\r\n", b"\r\n" + forwarded)
        self.assertTrue(forwarded.startswith(b"GET / HTTP/1.1\r\n"))
        self.assertIn(b"\r\nVia: 1.0 balancebeam\r\n", forwarded)
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual(body, b"abc")
        self.assertNotIn(b"Transfer-Encoding: chunked", lines)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_http_1_0_keep_alive(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        balancer.accept().send(OK)
        self.assertIn(b"\r\nConnection: keep-alive\r\n", client.received())
        self.assertFalse(client.transport.closing)

    def test_http_1_0_server(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nabc")
        server.send(b"def")
        server.half_close()
        lines, body = head_and_body(client.received())
        self.assertEqual(lines[0], b"HTTP/1.1 200 OK")
        self.assertEqual(body, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        self.assertFalse(client.transport.closing)
        self.assertTrue(server.transport.closing)


class BodyFramingTests(BalancerTestCase):
    """Bodies both ways, and how they are framed."""

    def test_chunked_request_is_framed_anew(self) -> None:
        forwarded, _ = self.exchange(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"003;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\nContent-Length: 9\r\n\r\n",
            OK,
        )
        self.assertTrue(
            forwarded.endswith(
                b"\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\nX-Sum: 5\r\n\r\n"
            ),
            forwarded,
        )

    def test_chunked_response_with_trailers(self) -> None:
        _, answered = self.exchange(
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n",
        )
        lines, body = head_and_body(answered)
        self.assertIn(b"Trailer: X-Sum", lines)
        self.assertEqual(body, b"3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n")

    def test_body_in_pieces(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"\r\n\r\nab"))
        client.send(b"cd", b"ef")
        self.assertEqual(server.received(), b"cdef")
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"gh", b"ijkl")
        self.assertTrue(client.received().endswith(b"\r\n\r\nghijkl"))

    def test_head_in_pieces(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(*(GET[i : i + 1] for i in range(len(GET))))
        server = balancer.accept()
        self.assertIn(b"X-Forwarded-For", server.received())
        server.send(*(OK[i : i + 1] for i in range(len(OK))))
        self.assertTrue(client.received().endswith(b"\r\n\r\nhello"))

    def test_responses_without_a_body(self) -> None:
        cases = (
            (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
            (b"HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
            (b"GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"),
            (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n"),
        )
        for method, response in cases:
            balancer = self.balancer()
            client = balancer.client()
            for _ in range(2):
                client.send(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n")
                server = balancer.peers[-1] if balancer.connectors[1:] else None
                if server is None or server is client:
                    server = server_of(balancer)
                server.send(response)
                lines, body = head_and_body(client.received())
                self.assertEqual(body, b"", response)
                self.assertEqual(lines[0], response.split(b"\r\n")[0])
                self.assertEqual(b"Content-Length: 99" in lines, b"99" in response)
                self.assertNotIn(b"Transfer-Encoding: chunked", lines)
            self.assertEqual(len(balancer.connectors), 1, response)

    def test_close_delimited_response_to_http_1_0(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        server.half_close()
        lines, body = head_and_body(client.received())
        self.assertEqual(body, b"abc")
        self.assertIn(b"Connection: close", lines)
        self.assertTrue(client.transport.closing)

    def test_early_response(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        server.send(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 403 No", b"no"))
        self.assertIn(b"Connection: close", lines)
        # The rest of the body is listened to, and goes nowhere.
        self.assertTrue(client.transport.write_closed)
        self.assertFalse(client.transport.closing)
        client.send(b"def")
        self.assertTrue(server.transport.aborted)
        client.half_close()
        self.assertTrue(client.transport.closing)

    def test_full_duplex(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nA\r\n")
        self.assertTrue(client.received().endswith(b"\r\n\r\n1\r\nA\r\n"))
        server.received()
        client.send(b"1\r\nb\r\n0\r\n\r\n")
        self.assertEqual(server.received(), b"1\r\nb\r\n0\r\n\r\n")
        server.send(b"1\r\nB\r\n0\r\n\r\n")
        self.assertEqual(client.received(), b"1\r\nB\r\n0\r\n\r\n")

    def test_cut_body_with_a_length(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        server.half_close()
        self.assertTrue(client.received().endswith(b"\r\n\r\nabc"))
        self.assertTrue(client.transport.closing)

    def test_cut_chunked_body_has_no_last_chunk(self) -> None:
        for end in (Peer.half_close, Peer.reset):
            balancer = self.balancer()
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            end(server)
            self.assertTrue(client.received().endswith(b"\r\n\r\n3\r\nabc\r\n"))
            self.assertTrue(client.transport.closing)

    def test_cut_body_that_ends_with_the_connection_is_a_reset(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        server.reset()
        self.assertTrue(client.transport.aborted)

    def test_cut_of_a_close_delimited_response_to_http_1_1(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        server.reset()
        self.assertTrue(client.received().endswith(b"\r\n\r\n3\r\nabc\r\n"))
        self.assertTrue(client.transport.closing)

    def test_body_too_large(self) -> None:
        for request in (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890",
        ):
            balancer = self.balancer(max_body=10)
            client = balancer.client()
            client.send(request)
            lines = self.assert_error(client.received(), 413)
            self.assertIn(b"Connection: close", lines)
            self.assertEqual(balancer.connectors, [])

    def test_body_that_breaks_off_in_nonsense(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        server = balancer.accept()
        client.send(b"+1\r\nb\r\n")
        self.assert_error(client.received(), 400)
        self.assertTrue(server.transport.aborted)
        self.assertNotIn(b"0\r\n\r\n", server.received())


def server_of(balancer: MemoryBalancer) -> Peer:
    """The server that the newest connection goes to; accepts it if need be."""
    if balancer.connectors[-1].state == "connecting":
        return balancer.accept()
    return balancer.peers[-1]


class InformationalResponseTests(BalancerTestCase):
    """1xx responses."""

    def test_continue_is_passed_on(self) -> None:
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

    def test_final_answer_instead_of_continue(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
        )
        balancer.accept().send(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
        answered = client.received()
        self.assertTrue(answered.startswith(b"HTTP/1.1 401 No\r\n"))
        self.assertIn(b"\r\nConnection: close\r\n", answered)

    def test_early_hints(self) -> None:
        _, answered = self.exchange(
            GET, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK
        )
        self.assertTrue(
            answered.startswith(
                b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n"
                b"HTTP/1.1 200 OK\r\n"
            ),
            answered,
        )

    def test_none_to_http_1_0(self) -> None:
        _, answered = self.exchange(
            b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK
        )
        self.assertTrue(answered.startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_flood(self) -> None:
        _, answered = self.exchange(GET, b"HTTP/1.1 102 Processing\r\n\r\n" * 200)
        self.assertIn(b"HTTP/1.1 502 ", answered)

    def test_other_expectations(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\n\r\n")
        self.assert_error(client.received(), 417)


class RejectedRequestTests(BalancerTestCase):
    """Requests that go nowhere."""

    def test_statuses(self) -> None:
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

    def test_head_gets_no_body(self) -> None:
        balancer = self.balancer(servers=0)
        client = balancer.client()
        client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 503 Service Unavailable", b""))
        client.send(b"HEAD / HTTP/1.1\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 400 Bad Request", b""))

    def test_one_empty_line_before_a_request(self) -> None:
        forwarded, _ = self.exchange(b"\r\n" + GET, OK)
        self.assertTrue(forwarded.startswith(b"GET / "))

    def test_more_empty_lines(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"\r\n\r\n" + GET)
        self.assert_error(client.received(), 400)

    def test_no_server(self) -> None:
        balancer = self.balancer(servers=0)
        client = balancer.client()
        client.send(GET)
        _, body = head_and_body(client.received())
        self.assertEqual(json.loads(body), {"status": "error", "data": "error no available server"})
        self.assertFalse(client.transport.closing)

    def test_later_request_after_a_bad_one_is_not_read(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\n\r\n" + GET)
        self.assertEqual(client.received().count(b"HTTP/1.1 "), 1)
        client.send(GET)
        self.assertEqual(client.received(), b"")
        self.assertEqual(balancer.connectors, [])


class BackpressureTests(BalancerTestCase):
    """A slow side slows the other down, and costs a bounded buffer."""

    def test_client_that_does_not_read(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        sent = 0
        while server.transport.reading:
            server.send(b"x" * 10000)
            sent += 10000
        self.assertLess(sent, 2 * BUFFER_SIZE)
        client.transport.stalled = False
        client.received()
        self.assertTrue(server.transport.reading)
        server.send(b"x" * (1000000 - sent))
        self.assertEqual(len(client.received()), 1000000 - sent)
        client.send(GET)
        server.send(OK)

    def test_server_that_does_not_read(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        sent = 0
        while client.transport.reading:
            client.send(b"x" * 10000)
            sent += 10000
        self.assertLess(sent, 2 * BUFFER_SIZE)
        server.transport.stalled = False
        server.received()
        self.assertTrue(client.transport.reading)
        client.send(b"x" * (1000000 - sent))
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_body_while_connecting(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        sent = 0
        while client.transport.reading:
            client.send(b"x" * 10000)
            sent += 10000
        self.assertLess(sent, 2 * BUFFER_SIZE)
        server = balancer.accept()
        self.assertTrue(client.transport.reading)
        client.send(b"x" * (200000 - sent))
        self.assertEqual(head_and_body(server.received())[1], b"x" * 200000)
        server.send(OK)

    def test_pipelining_client_that_does_not_read(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.transport.stalled = True
        client.send(GET)
        server = balancer.accept()
        big = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
        server.send(big)
        server.received()
        for _ in range(10):
            client.send(GET)
        self.assertEqual(server.received(), b"")
        client.transport.stalled = False
        client.received()
        self.assertTrue(server.received().startswith(b"GET / "))
        for _ in range(10):
            server.send(OK)
        self.assertEqual(client.received().count(b"hello"), 10)

    def test_client_that_pipelines_without_end(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        sent = 0
        while client.transport.reading:
            client.send(GET * 100)
            sent += 100
        self.assertLess(sent * len(GET), 2 * BUFFER_SIZE)
        for _ in range(sent + 1):
            server.send(OK)
        self.assertTrue(client.transport.reading)
        self.assertEqual(client.received().count(b"hello"), sent + 1)


class ClientDisconnectTests(BalancerTestCase):
    """Clients that go."""

    def test_client_that_leaves_stops_its_request(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.reset()
        self.assertTrue(server.transport.aborted)

    def test_client_that_leaves_while_a_server_is_connected(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        client.reset()
        server = balancer.accept()
        self.assertEqual(server.received(), b"")
        other = balancer.client()
        other.send(GET)
        self.assertEqual(len(balancer.connectors), 1)
        server.send(OK)

    def test_client_that_leaves_in_its_body(self) -> None:
        for end in (Peer.half_close, Peer.reset):
            balancer = self.balancer()
            client = balancer.client()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            server = balancer.accept()
            end(client)
            balancer.finish_closing()
            self.assertTrue(server.transport.closed)

    def test_client_that_has_said_all(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET + GET)
        client.half_close()
        server = balancer.accept()
        server.send(OK)
        server.send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_client_that_has_said_all_and_waits_in_vain(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.half_close()
        balancer.advance(3)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(server.transport.aborted)

    def test_idle_client_that_ends(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.half_close()
        self.assertTrue(client.transport.closing)
