"""Requests and responses over HTTP/2, between the `h2` library and HTTP/1.1 servers."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.http2_client import Http2Client, accept_websocket, request_fields
from tests.helpers.memory import DATE_HEADER, OK


class RequestTests(BalancerTestCase):
    """Requests become HTTP/1.1 for the server, and its responses become frames."""

    def test_request_and_response(self) -> None:
        """A request is forwarded as HTTP/1.1, and the response arrives complete."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request(request_fields("GET", "/a?b=1", ("accept", "*/*")))
        server = balancer.accept()
        self.assertEqual(
            server.received(),
            b"GET /a?b=1 HTTP/1.1\r\nHost: example.org\r\naccept: */*\r\n"
            b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n"
            b"X-Forwarded-Host: example.org\r\nVia: 2.0 balancebeam\r\n\r\n",
        )
        server.send(OK)
        client.receive()
        response = client.responses[stream]
        self.assertEqual(response.content, b"hello")
        self.assertTrue(response.ended)
        self.assertEqual(
            response.fields,
            {
                ":status": "200",
                "date": "Thu, 01 Jan 1970 00:00:00 GMT",
                "content-length": "5",
                "via": "1.1 balancebeam",
            },
        )

    def test_many_streams_at_once(self) -> None:
        """Streams are independent: responses arrive in the order of the servers."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        streams = [client.request(request_fields("GET", f"/{number}")) for number in range(5)]
        for number in reversed(range(5)):
            server = balancer.accept(number)
            self.assertIn(b"GET /%d " % number, server.received())
            body = b"%d" % number
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + body)
        client.receive()
        contents = [client.responses[stream].content for stream in streams]
        self.assertEqual(contents, [b"0", b"1", b"2", b"3", b"4"])

    def test_repeated_requests_reuse_the_connection(self) -> None:
        """Repeated requests, with the dynamic table of the client, are the same each time."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        fields = request_fields("GET", "/", ("user-agent", "test"), ("x-token", "a" * 40))
        client.request(fields)
        server = balancer.accept()
        first = server.received()
        server.send(OK)
        for _ in range(4):
            stream = client.request(fields)
            self.assertEqual(server.received(), first)
            server.send(OK)
            client.receive()
            self.assertEqual(client.responses[stream].content, b"hello")
        self.assertEqual(len(balancer.connectors), 1)

    def test_head_204_and_304(self) -> None:
        """Responses without content end with their head."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request(request_fields("HEAD"))
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        client.receive()
        self.assertEqual(client.responses[stream].fields["content-length"], "5")
        self.assertTrue(client.responses[stream].ended)
        for status in ("204 No Content", "304 Not Modified"):
            stream = client.request()
            server.send(b"HTTP/1.1 " + status.encode() + b"\r\n\r\n")
            client.receive()
            self.assertEqual(client.responses[stream].status, status[:3])
            self.assertTrue(client.responses[stream].ended)

    def test_chunked_response_with_trailers(self) -> None:
        """Chunks become DATA frames, and trailers end the stream."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        client.receive()
        response = client.responses[stream]
        self.assertEqual(response.content, b"hello")
        self.assertNotIn("transfer-encoding", response.fields)
        self.assertIn("date", response.fields)
        server.send(b"1\r\n!\r\n0\r\nX-Sum: 1\r\nConnection: x\r\n\r\n")
        client.receive()
        self.assertEqual((response.content, response.trailers), (b"hello!", {"x-sum": "1"}))
        self.assertTrue(response.ended)

    def test_close_delimited_response(self) -> None:
        """The end of the server's connection is END_STREAM."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        server = balancer.accept()
        server.send(b"HTTP/1.0 200 OK\r\n\r\nabc")
        server.half_close()
        client.receive()
        self.assertEqual(client.responses[stream].content, b"abc")
        self.assertTrue(client.responses[stream].ended)

    def test_informational_responses(self) -> None:
        """1xx responses are forwarded before the final one."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        server = balancer.accept()
        server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)
        client.receive()
        response = client.responses[stream]
        self.assertEqual(response.informational, [{":status": "103", "link": "</a>"}])
        self.assertEqual(response.status, "200")

    def test_server_fails_within_the_response(self) -> None:
        """A response that is cut off ends with RST_STREAM, and other streams continue."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        first, second = client.request(), client.request()
        server, other = balancer.accept(0), balancer.accept(1)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        client.receive()
        server.reset()
        other.send(OK)
        client.receive()
        self.assertEqual(client.responses[first].reset, 2)
        self.assertEqual(client.responses[second].content, b"hello")

    def test_no_server(self) -> None:
        """An error of the proxy is a response with a JSON body."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        balancer.connectors[-1].refuse()
        client.receive()
        response = client.responses[stream]
        self.assertEqual(response.status, "502")
        self.assertEqual(response.fields["content-type"], "application/json")
        self.assertIn(b"error", response.content)
        self.assertTrue(response.ended)

    def test_cookie_crumbs_are_joined(self) -> None:
        """Several Cookie fields become one."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.request(request_fields("GET", "/", ("cookie", "a=1"), ("cookie", "b=2")))
        self.assertIn(b"\r\ncookie: a=1; b=2\r\n", balancer.accept().received())

    def test_te_trailers(self) -> None:
        """TE: trailers is forwarded as a connection option."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        client.request(request_fields("GET", "/", ("te", "trailers")))
        self.assertIn(b"TE: trailers\r\nConnection: TE\r\n", balancer.accept().received())


class BodyTests(BalancerTestCase):
    """Request bodies."""

    def test_body_with_length(self) -> None:
        """A body with Content-Length keeps it."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request(request_fields("POST", "/", ("content-length", "3")), b"abc")
        server = balancer.accept()
        forwarded = server.received()
        self.assertIn(b"\r\nContent-Length: 3\r\n", forwarded)
        self.assertTrue(forwarded.endswith(b"\r\n\r\nabc"))
        server.send(OK)
        client.receive()
        self.assertTrue(client.responses[stream].ended)

    def test_body_without_length_is_chunked(self) -> None:
        """A body without Content-Length is chunked, with its trailers."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        client.send_data(stream, b"abc")
        client.h2.send_headers(stream, [("x-sum", "3")], end_stream=True)
        client.flush()
        forwarded = server.received()
        self.assertIn(b"\r\nTransfer-Encoding: chunked\r\n", forwarded)
        self.assertTrue(forwarded.endswith(b"3\r\nabc\r\n0\r\nx-sum: 3\r\n\r\n"), forwarded)
        server.send(OK)
        client.receive()
        self.assertEqual(client.responses[stream].content, b"hello")

    def test_length_that_does_not_match(self) -> None:
        """Content of another length than declared is a stream error, and ends the forwarding."""
        for body, end in ((b"abcd", False), (b"ab", True)):
            balancer = self.balancer()
            client = Http2Client(balancer, strict=False)
            stream = client.start(request_fields("POST", "/", ("content-length", "3")))
            server = balancer.accept()
            client.send_data(stream, body, end)
            self.assertEqual(client.responses[stream].reset, 1)
            self.assertTrue(server.transport.closing)

    def test_expect_continue(self) -> None:
        """100 (Continue) of the server reaches the client, which then sends the body."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        fields = request_fields("POST", "/", ("content-length", "3"), ("expect", "100-continue"))
        stream = client.start(fields)
        server = balancer.accept()
        server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        client.receive()
        self.assertEqual(client.responses[stream].informational, [{":status": "100"}])
        client.send_data(stream, b"abc", end=True)
        self.assertTrue(server.received().endswith(b"abc"))
        server.send(OK)
        client.receive()
        self.assertEqual(client.responses[stream].status, "200")

    def test_early_response(self) -> None:
        """After a response before the end of the body, the body is discarded and cancelled."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        server = balancer.accept()
        server.send(OK)
        client.receive()
        response = client.responses[stream]
        self.assertEqual((response.content, response.ended), (b"hello", True))
        self.assertIsNone(response.reset)
        client.send_data(stream, b"abc")
        balancer.advance(3)
        client.receive()
        self.assertEqual(response.reset, 0)
        # What was on its way is ignored.
        client.send_raw(b"\x00\x00\x03\x00\x00" + stream.to_bytes(4, "big") + b"abc")
        other = client.request()
        balancer.accept().send(OK)
        client.receive()
        self.assertEqual(client.responses[other].content, b"hello")

    def test_body_that_ends_after_an_early_response(self) -> None:
        """A body that ends soon after an early response needs no RST_STREAM."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(request_fields("POST"))
        balancer.accept().send(OK)
        client.receive()
        client.send_data(stream, b"abc", end=True)
        balancer.advance(3)
        client.receive()
        self.assertIsNone(client.responses[stream].reset)
        self.assertFalse(client.peer.protocol.streams)

    def test_body_too_large(self) -> None:
        """A body above the limit gets 413, declared or not."""
        balancer = self.balancer(max_body=10)
        client = Http2Client(balancer)
        declared = client.start(request_fields("POST", "/", ("content-length", "11")))
        self.assertEqual(client.responses[declared].status, "413")
        streamed = client.start(request_fields("POST"))
        client.send_data(streamed, b"x" * 11)
        self.assertEqual(client.responses[streamed].status, "413")
        self.assertIsNone(client.responses[streamed].reset)
        balancer.advance(3)
        client.receive()
        self.assertEqual(client.responses[streamed].reset, 0)
        self.assertEqual(client.responses[declared].reset, 0)

    def test_client_cancels(self) -> None:
        """RST_STREAM of the client abandons the request at the server."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.request()
        server = balancer.accept()
        client.reset(stream)
        self.assertTrue(server.transport.closing)
        self.assertEqual(balancer.servers[0].in_flight, 0)


class WebSocketTests(BalancerTestCase):
    """Extended CONNECT (RFC 8441)."""

    FIELDS = (
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "https"),
        (":path", "/chat"),
        (":authority", "example.org"),
        ("sec-websocket-version", "13"),
    )

    def test_tunnel(self) -> None:
        """The server gets an Upgrade; 101 becomes 200, and both sides can send and end."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(self.FIELDS)
        client.send_data(stream, b"early")
        server = balancer.accept()
        forwarded = server.received()
        self.assertTrue(forwarded.startswith(b"GET /chat HTTP/1.1\r\nHost: example.org\r\n"))
        self.assertIn(b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", forwarded)
        self.assertIn(b"\r\nsec-websocket-key: ", forwarded)
        self.assertTrue(forwarded.endswith(b"\r\n\r\n"), forwarded)
        server.send(accept_websocket(forwarded))
        client.receive()
        response = client.responses[stream]
        self.assertEqual(response.status, "200")
        self.assertEqual(response.fields["sec-websocket-protocol"], "chat")
        self.assertNotIn("sec-websocket-accept", response.fields)
        self.assertEqual(server.received(), b"early")
        client.send_data(stream, b"ping")
        self.assertEqual(server.received(), b"ping")
        server.send(b"pong")
        client.receive()
        self.assertEqual(response.content, b"pong")
        client.send_data(stream, b"", end=True)
        self.assertTrue(server.transport.write_closed)
        server.half_close()
        client.receive()
        self.assertTrue(response.ended)
        self.assertEqual(balancer.servers[0].in_flight, 0)
        channel = client.peer.protocol
        self.assertEqual(len(channel.streams), 0)

    def test_refused_upgrade(self) -> None:
        """Another status than 101 passes unchanged."""
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(self.FIELDS)
        balancer.accept().send(b"HTTP/1.1 403 No\r\n" + DATE_HEADER + b"Content-Length: 0\r\n\r\n")
        client.receive()
        self.assertEqual(client.responses[stream].status, "403")
