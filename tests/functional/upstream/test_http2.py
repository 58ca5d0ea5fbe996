"""Requests and responses over HTTP/2 connections to servers, with the `h2` library as server."""

from __future__ import annotations

from typing import Any

from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.helpers.http2_client import Http2Client, request_fields
from tests.helpers.http2_server import Http2Server, Http2ServerTestCase
from tests.helpers.memory import DATE_HEADER, GET, Peer

POST = b"POST /upload HTTP/1.1\r\nHost: example.org\r\n"


class RequestTests(Http2ServerTestCase):
    """The head and the body of requests."""

    def test_request_and_response(self) -> None:
        """A request of HTTP/1.1 becomes HTTP/2, and the response HTTP/1.1 again."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(
            b"GET /a?b=1 HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\nCookie: a=b; c=d\r\n"
            b"Connection: keep-alive, x-hop\r\nX-Hop: 1\r\n\r\n"
        )
        server = Http2Server(balancer)
        self.assertEqual(
            server.requests[1].fields,
            [
                (":method", "GET"),
                (":scheme", "http"),
                (":path", "/a?b=1"),
                (":authority", "example.org"),
                ("accept", "*/*"),
                ("x-forwarded-for", "192.0.2.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "example.org"),
                ("via", "1.1 balancebeam"),
                # The library puts it last.
                ("cookie", "a=b; c=d"),
            ],
        )
        self.assertTrue(server.requests[1].ended)
        server.respond(1)
        self.assertEqual(
            client.received(),
            b"HTTP/1.1 200 OK\r\n" + DATE_HEADER + b"Content-Length: 5\r\n"
            b"Via: 1.1 balancebeam\r\n\r\nhello",
        )

    def test_te_trailers_is_kept(self) -> None:
        """Servers of gRPC require TE: trailers; other values of TE are dropped."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers, gzip\r\nConnection: TE\r\n\r\n")
        server = Http2Server(balancer)
        self.assertEqual(server.requests[1].field("te"), "trailers")
        self.assertIsNone(server.requests[1].field("connection"))
        server.respond(1)

    def test_body_with_trailers(self) -> None:
        """A chunked body becomes DATA, and its trailers HEADERS."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        server = Http2Server(balancer)
        request = server.requests[1]
        self.assertEqual((request.content, request.ended), (b"abc", False))
        self.assertIsNone(request.field("transfer-encoding"))
        client.send(b"2\r\nde\r\n")
        server.receive()
        self.assertEqual(request.content, b"abcde")
        client.send(b"0\r\nX-Sum: 1\r\n\r\n")
        server.receive()
        self.assertEqual((request.trailers, request.ended), ([("x-sum", "1")], True))
        server.respond(1)
        self.assertIn(b"hello", client.received())

    def test_body_with_length(self) -> None:
        """A body that is complete before the connection is sent with END_STREAM."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(POST + b"Content-Length: 3\r\n\r\nabc")
        server = Http2Server(balancer)
        request = server.requests[1]
        self.assertEqual(request.field("content-length"), "3")
        self.assertEqual((request.content, request.ended), (b"abc", True))
        server.respond(1)

    def test_expect_100_continue(self) -> None:
        """The 100 response of the server reaches the client before it sends the body."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        server = Http2Server(balancer)
        self.assertEqual(server.requests[1].field("expect"), "100-continue")
        server.send_headers(1, status="100")
        self.assertEqual(client.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(b"abc")
        server.receive()
        self.assertEqual(server.requests[1].content, b"abc")
        server.respond(1)
        self.assertIn(b"hello", client.received())

    def test_repeated_requests_are_the_same(self) -> None:
        """Memoised header blocks equal the first ones, and credentials are sent too."""
        balancer = self.http2_balancer()
        client = balancer.client()
        request = b"GET /%d HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nAuthorization: Basic %d\r\n\r\n"
        client.send(request % (0, 0))
        server = Http2Server(balancer)
        for number in range(4):
            if number:
                client.send(request % (number, number))
                server.receive()
            fields = dict(server.requests[2 * number + 1].fields)
            self.assertEqual(fields[":path"], f"/{number}")
            self.assertEqual(fields["authorization"], f"Basic {number}")
            self.assertEqual((fields[":authority"], fields["accept"]), ("a", "*/*"))
            server.respond(2 * number + 1)
        self.assertEqual(client.received().count(b"hello"), 4)

    def test_small_dynamic_table_of_the_server(self) -> None:
        """A server that announces another table size can decode all blocks."""
        balancer = self.http2_balancer()
        client = balancer.client()
        client.send(GET)
        server = Http2Server(balancer, settings={SettingCodes.HEADER_TABLE_SIZE: 0})
        server.respond(1)
        client.send(GET)
        server.receive()
        server.respond(3)
        self.assertEqual(client.received().count(b"hello"), 2)


class ResponseTests(Http2ServerTestCase):
    """The head and the content of responses."""

    def start(self, request: bytes = GET, **settings: Any) -> tuple[Peer, Http2Server]:
        """Send a request; return the client and the server, which has received it."""
        balancer = self.http2_balancer(**settings)
        client = balancer.client()
        client.send(request)
        return client, Http2Server(balancer)

    def test_content_in_parts(self) -> None:
        """DATA reaches the client as it arrives, in chunks if its length is unknown."""
        client, server = self.start()
        server.send_headers(1)
        self.assertIn(b"Transfer-Encoding: chunked\r\n", client.received())
        server.send_data(1, b"abc")
        self.assertEqual(client.received(), b"3\r\nabc\r\n")
        server.send_data(1, b"de", end=True)
        self.assertEqual(client.received(), b"2\r\nde\r\n0\r\n\r\n")

    def test_content_without_length_in_one_batch(self) -> None:
        """A complete response without Content-Length is framed for the client."""
        client, server = self.start()
        server.respond(1, length=False)
        self.assertTrue(client.received().endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
        client.send(GET)
        server.receive()
        server.respond(3, None)
        self.assertTrue(client.received().endswith(b"\r\n\r\n0\r\n\r\n"))

    def test_trailers(self) -> None:
        """Trailers reach a client of HTTP/1.1 and of HTTP/2."""
        client, server = self.start()
        server.respond(1, trailers=[("x-sum", "1"), ("content-length", "9")], length=False)
        self.assertTrue(client.received().endswith(b"5\r\nhello\r\n0\r\nx-sum: 1\r\n\r\n"))

    def test_trailers_to_http2(self) -> None:
        """A response of gRPC keeps its trailers, and a trailers-only one is one HEADERS frame."""
        balancer = self.http2_balancer()
        client = Http2Client(balancer)
        streams = [
            client.request(request_fields("POST", "/a.B/C", ("te", "trailers")), b"message")
            for _ in range(2)
        ]
        server = Http2Server(balancer)
        self.assertEqual(server.requests[1].content, b"message")
        server.respond(1, trailers=[("grpc-status", "0")], length=False)
        server.respond(3, None, ("grpc-status", "5"), length=False)
        client.receive()
        first, second = (client.responses[stream] for stream in streams)
        self.assertEqual((first.content, first.trailers), (b"hello", {"grpc-status": "0"}))
        self.assertEqual((second.fields["grpc-status"], second.trailers), ("5", {}))
        self.assertTrue(first.ended and second.ended)

    def test_head_204_and_304(self) -> None:
        """Responses without content end with their head, whatever length they declare."""
        client, server = self.start(GET.replace(b"GET", b"HEAD"))
        server.send_headers(1, ("content-length", "5"), end=True)
        self.assertTrue(client.received().endswith(b"Via: 1.1 balancebeam\r\n\r\n"))
        for number, status in ((3, "204"), (5, "304")):
            client.send(GET)
            server.receive()
            server.send_headers(number, status=status, end=True)
            received = client.received()
            self.assertIn(status.encode(), received)
            self.assertTrue(received.endswith(b"Via: 1.1 balancebeam\r\n\r\n"), received)

    def test_set_cookie_is_not_joined(self) -> None:
        """Several Set-Cookie lines stay apart."""
        client, server = self.start()
        server.respond(1, b"", ("set-cookie", "a=1"), ("set-cookie", "b=2"))
        received = client.received()
        self.assertIn(b"set-cookie: a=1\r\nset-cookie: b=2\r\n", received)

    def test_early_response_ends_the_request(self) -> None:
        """A response before the end of the request resets the stream, not the connection."""
        client, server = self.start(POST + b"Content-Length: 100\r\n\r\nabc")
        server.respond(1, status="413")
        self.assertIn(b"413", client.received())
        server.receive()
        self.assertEqual(server.requests[1].reset, ErrorCodes.CANCEL)
        self.assertFalse(server.peer.transport.closing)

    def test_full_duplex(self) -> None:
        """Messages of a bidirectional stream pass in both directions at once."""
        balancer = self.http2_balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST", "/a.B/Chat"))
        server = Http2Server(balancer)
        server.send_headers(1)
        for number in range(3):
            client.send_data(stream, b"ping%d" % number)
            server.receive()
            self.assertTrue(server.requests[1].content.endswith(b"ping%d" % number))
            server.send_data(1, b"pong%d" % number)
            client.receive()
            self.assertTrue(client.responses[stream].content.endswith(b"pong%d" % number))
        client.send_data(stream, b"", end=True)
        server.receive()
        self.assertTrue(server.requests[1].ended)
        server.send_data(1, b"", end=True)
        client.receive()
        self.assertTrue(client.responses[stream].ended)

    def test_malformed_responses(self) -> None:
        """A malformed response fails its own stream, with PROTOCOL_ERROR."""
        cases: list[list[tuple[str, str]]] = [
            [("server", "a")],
            [(":status", "200"), (":status", "200")],
            [(":status", "200"), (":path", "/")],
            [("server", "a"), (":status", "200")],
            [(":status", "101")],
            [(":status", "20")],
            [(":status", "999")],
            [(":status", "200"), ("Server", "a")],
            [(":status", "200"), ("connection", "close")],
            [(":status", "200"), ("transfer-encoding", "chunked")],
            [(":status", "200"), ("a", "b\r\nc: d")],
            [(":status", "200"), ("a", " b")],
            [(":status", "200"), ("content-length", "x")],
            [(":status", "200"), ("content-length", "1"), ("content-length", "2")],
            [(":status", "200"), ("content-length", "1")],
            [(":status", "200"), ("a", "b" * 70000)],
        ]
        for fields in cases:
            client, server = self.start()
            server.h2.config.validate_outbound_headers = False
            server.h2.config.normalize_outbound_headers = False
            data = server.h2.encoder.encode(fields, huffman=True)
            frames = [(1, data[:16000])] + [
                (9, data[start : start + 16000]) for start in range(16000, len(data), 16000)
            ]
            raw = b""
            for position, (kind, payload) in enumerate(frames):
                flags = 1 if kind == 1 else 0
                if position == len(frames) - 1:
                    flags |= 4
                raw += len(payload).to_bytes(3, "big") + bytes((kind, flags, 0, 0, 0, 1)) + payload
            server.send_raw(raw)
            with self.subTest(fields=str(fields)[:100]):
                self.assert_error(client.received(), 502)
                self.assertEqual(server.requests[1].reset, ErrorCodes.PROTOCOL_ERROR)
                self.assertFalse(server.peer.transport.closing)

    def test_content_of_another_length(self) -> None:
        """More or less DATA than declared is a malformed response."""
        for content in (b"ab", b"abcd"):
            client, server = self.start()
            frame = b"\0\0" + bytes((len(content), 0, 1, 0, 0, 0, 1)) + content
            server.h2.send_headers(1, [(":status", "200"), ("content-length", "3")])
            server.send_raw(server.h2.data_to_send() + frame)
            self.assertEqual(server.requests[1].reset, ErrorCodes.PROTOCOL_ERROR)
            self.assert_error(client.received(), 502)

    def test_too_many_informational_responses(self) -> None:
        """A server cannot send 1xx responses without end."""
        client, server = self.start()
        for _ in range(101):
            server.h2.send_headers(1, [(":status", "103")])
        server.flush()
        self.assertEqual(server.requests[1].reset, ErrorCodes.PROTOCOL_ERROR)
        self.assertIn(b"502 Bad Gateway", client.received())
