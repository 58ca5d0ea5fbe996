"""gRPC requests: errors of the proxy, and deadlines."""

from __future__ import annotations

from typing import Any

from balancebeam.core.settings import LimitSettings, RetrySettings
from balancebeam.protocols.grpc import encode_message
from tests.helpers.cases import BalancerTestCase
from tests.helpers.http2_client import Headers, Http2Client, Http2Response, request_fields
from tests.helpers.memory import MemoryBalancer, Peer

CANCEL = 8

RESPONSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def grpc_fields(*extra: tuple[str, str], content_type: str = "application/grpc") -> Headers:
    """Return the fields of a gRPC request."""
    common = (("content-type", content_type), ("te", "trailers"))
    return request_fields("POST", "/a.B/C", *common, *extra)


class GrpcTestCase(BalancerTestCase):
    """Base class: a balancer, and an HTTP/2 client."""

    def connect(self, servers: int = 1, **settings: Any) -> tuple[MemoryBalancer, Http2Client]:
        """Start a balancer, and connect a client."""
        balancer = self.balancer(servers, **settings)
        return balancer, Http2Client(balancer)

    def call(self, client: Http2Client, *extra: tuple[str, str]) -> Http2Response:
        """Send a unary request; return its response, which may arrive later."""
        return client.responses[client.request(grpc_fields(*extra), encode_message(b"hi"))]

    def assert_status(self, response: Http2Response, code: int, text: str = "") -> None:
        """Assert that the response is trailers-only, with this status code and message."""
        self.assertEqual(response.status, "200")
        self.assertEqual(response.fields["content-type"], "application/grpc")
        self.assertEqual(response.fields["grpc-status"], str(code))
        self.assertIn(text, response.fields["grpc-message"])
        self.assertIn("date", response.fields)
        self.assertEqual(response.content, b"")
        self.assertTrue(response.ended)


class ErrorTests(GrpcTestCase):
    """Errors of the proxy are trailers-only responses."""

    def test_unreachable_server(self) -> None:
        """Without a server, the call is UNAVAILABLE; the log has the HTTP status of the error."""
        balancer, client = self.connect()
        response = self.call(client)
        balancer.connectors[0].refuse()
        client.receive()
        self.assert_status(response, 14, "the server could not be reached")
        statuses = balancer.service.default_pool.dispatcher.responses_by_status
        self.assertEqual(dict(statuses), {502: 1})

    def test_no_server(self) -> None:
        """503 is UNAVAILABLE."""
        _, client = self.connect(servers=0)
        self.assert_status(self.call(client), 14, "no available server")

    def test_response_timeout(self) -> None:
        """504 is DEADLINE_EXCEEDED."""
        balancer, client = self.connect()
        response = self.call(client)
        balancer.accept()
        balancer.advance(70)
        client.receive()
        self.assert_status(response, 4, "did not respond in time")

    def test_rate_limit(self) -> None:
        """429 is RESOURCE_EXHAUSTED, and Retry-After is metadata."""
        limit = LimitSettings(1, 60.0)
        balancer, client = self.connect(limits=(limit,))
        self.call(client)
        balancer.accept()
        refused = self.call(client)
        self.assert_status(refused, 8)
        self.assertIn("retry-after", refused.fields)

    def test_rejected_request(self) -> None:
        """400 is INTERNAL, also if the request has no exchange."""
        _, client = self.connect()
        fields = [field for field in grpc_fields() if field[0] != ":authority"]
        stream = client.request([*fields, ("host", "a b")], b"")
        self.assert_status(client.responses[stream], 13)

    def test_too_large_body(self) -> None:
        """413 is RESOURCE_EXHAUSTED, with and without a declared length."""
        balancer, client = self.connect(max_body=10)
        declared = client.start(grpc_fields(("content-length", "11")))
        self.assert_status(client.responses[declared], 8, "too large")
        streamed = client.start(grpc_fields())
        balancer.accept()
        client.send_data(streamed, b"x" * 11)
        self.assert_status(client.responses[streamed], 8, "too large")

    def test_content_types(self) -> None:
        """Message formats and parameters change nothing; gRPC-Web and JSON get HTTP errors."""
        _, client = self.connect(servers=0)
        for content_type, is_grpc in (
            ("application/grpc+proto", True),
            ("application/grpc;a=b", True),
            ("application/grpc-web", False),
            ("application/json", False),
        ):
            stream = client.request(grpc_fields(content_type=content_type), b"x")
            response = client.responses[stream]
            if is_grpc:
                self.assert_status(response, 14)
            else:
                self.assertEqual(response.status, "503")
                self.assertIn(b'"error"', response.content)

    def test_http1_clients(self) -> None:
        """HTTP/1.1 clients get HTTP errors, whatever their content type."""
        balancer = self.balancer(0)
        client = balancer.client()
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc\r\n"
            b"grpc-timeout: 1S\r\nContent-Length: 0\r\n\r\n"
        )
        self.assert_error(client.received(), 503)

    def test_server_lost_within_the_response(self) -> None:
        """After the response has started, its stream is reset."""
        balancer, client = self.connect()
        response = self.call(client)
        server = balancer.accept()
        server.send(RESPONSE_HEAD + b"3\r\nabc\r\n")
        client.receive()
        server.reset()
        client.receive()
        self.assertEqual((response.content, response.reset), (b"abc", 2))

    def test_trailers(self) -> None:
        """The trailers of a server are forwarded, and errors of servers are left alone."""
        balancer, client = self.connect()
        response = self.call(client)
        server = balancer.accept()
        self.assertIn(b"\r\nTE: trailers\r\n", server.received())
        trailers = b"0\r\ngrpc-status: 5\r\ngrpc-message: no%20such\r\nx-id-bin: AAEC\r\n\r\n"
        server.send(RESPONSE_HEAD + b"3\r\nabc\r\n" + trailers)
        client.receive()
        self.assertEqual(
            response.trailers,
            {"grpc-status": "5", "grpc-message": "no%20such", "x-id-bin": "AAEC"},
        )


class DeadlineTests(GrpcTestCase):
    """`grpc-timeout` bounds the whole exchange."""

    def start(self, value: str, **settings: Any) -> tuple[MemoryBalancer, Http2Client, Any]:
        """Send a call with this grpc-timeout; return also its response."""
        balancer, client = self.connect(**settings)
        return balancer, client, self.call(client, ("grpc-timeout", value))

    def assert_exceeded(self, client: Http2Client, response: Http2Response) -> None:
        """Assert that the call has ended with DEADLINE_EXCEEDED."""
        client.receive()
        self.assert_status(response, 4, "deadline")

    def test_before_the_response(self) -> None:
        """A silent server is given up exactly at the deadline, and keeps its place in the pool."""
        balancer, client, response = self.start("250m")
        server = balancer.accept()
        self.assertIn(b"\r\ngrpc-timeout: 250m\r\n", server.received())
        balancer.clock.advance(0.24)
        client.receive()
        self.assertFalse(response.ended)
        balancer.clock.advance(0.02)
        self.assert_exceeded(client, response)
        self.assertTrue(server.transport.aborted)
        self.assertTrue(balancer.servers[0].available)
        statuses = balancer.service.default_pool.dispatcher.responses_by_status
        self.assertEqual(dict(statuses), {504: 1})

    def test_while_connecting(self) -> None:
        """A connection attempt is not awaited longer."""
        balancer, client, response = self.start("1S")
        balancer.clock.advance(1)
        self.assert_exceeded(client, response)
        balancer.accept()

    def test_queued(self) -> None:
        """A queued request leaves the queue."""
        balancer, client = self.connect()
        balancer.servers[0].max_in_flight = 1
        first = self.call(client)
        balancer.accept()
        queued = self.call(client, ("grpc-timeout", "2S"))
        queue = balancer.service.default_pool.dispatcher.queue
        self.assertEqual(len(queue), 1)
        balancer.clock.advance(2)
        self.assert_exceeded(client, queued)
        self.assertEqual(len(queue), 0)
        self.assertFalse(first.ended)

    def test_not_retried(self) -> None:
        """After the deadline, no other server is tried, whatever may be retried otherwise."""
        retries = RetrySettings(on=("connect", "cut", "timeout"))
        balancer, client, response = self.start("1S", servers=2, retries=retries)
        balancer.clock.advance(1)
        self.assert_exceeded(client, response)
        self.assertEqual(len(balancer.connectors), 1)

    def test_within_the_response(self) -> None:
        """A response that has started is reset on both sides."""
        balancer, client, response = self.start("1S")
        server = balancer.accept()
        server.send(RESPONSE_HEAD + b"3\r\nabc\r\n")
        balancer.clock.advance(1)
        client.receive()
        self.assertEqual((response.content, response.reset), (b"abc", CANCEL))
        self.assertTrue(server.transport.aborted)
        self.assertEqual(self.call(client).status, "")

    def test_complete_in_time(self) -> None:
        """A call that ends in time leaves no timer, and its connection is used again."""
        for end in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\ngrpc-status: 0\r\n\r\n",
            RESPONSE_HEAD + b"3\r\nabc\r\n0\r\ngrpc-status: 0\r\n\r\n",
        ):
            balancer, client, response = self.start("5S")
            timers = len(balancer.clock.getDelayedCalls())
            balancer.accept().send(end)
            self.assertEqual(len(balancer.clock.getDelayedCalls()), timers - 1)
            client.receive()
            self.assertTrue(response.ended)
            balancer.clock.advance(6)
            client.receive()
            self.assertIsNone(response.reset)

    def test_cancelled_by_the_client(self) -> None:
        """A call that the client cancels leaves no timer."""
        balancer, client = self.connect()
        stream = client.request(grpc_fields(("grpc-timeout", "5S")), b"")
        server = balancer.accept()
        timers = len(balancer.clock.getDelayedCalls())
        client.reset(stream)
        self.assertEqual(len(balancer.clock.getDelayedCalls()), timers - 1)
        self.assertTrue(server.transport.aborted)

    def test_client_gone(self) -> None:
        """A lost connection leaves no timer; `MemoryBalancer.stop` asserts that."""
        balancer, client, _ = self.start("5S")
        balancer.accept()
        client.peer.reset()

    def test_no_deadline(self) -> None:
        """An invalid value, and one in a request that is not gRPC, is ignored."""
        balancer, client, response = self.start("1x")
        server = balancer.accept()
        self.assertIn(b"grpc-timeout: 1x", server.received())
        other = client.request(request_fields("POST", "/", ("grpc-timeout", "1S")), b"x")
        balancer.clock.advance(2)
        client.receive()
        self.assertFalse(response.ended or client.responses[other].ended)

    def test_long_stream(self) -> None:
        """Without a deadline, a stream is not cut while either side is active."""
        for client_active in (True, False):
            balancer, client = self.connect()
            stream = client.start(grpc_fields())
            server: Peer = balancer.accept()
            server.send(RESPONSE_HEAD)
            for _ in range(6):
                balancer.advance(40)
                if client_active:
                    client.send_data(stream, encode_message(b"ping"))
                else:
                    server.send(b"3\r\nabc\r\n")
                client.receive()
            self.assertFalse(client.responses[stream].ended)
            self.assertIsNone(client.responses[stream].reset)

    def test_silent_stream(self) -> None:
        """A stream on which nothing passes in either direction is reset after the idle timeout."""
        balancer, client = self.connect()
        stream = client.start(grpc_fields())
        balancer.accept().send(RESPONSE_HEAD)
        balancer.advance(70)
        client.receive()
        self.assertEqual(client.responses[stream].reset, CANCEL)
