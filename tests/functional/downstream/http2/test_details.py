"""Details of HTTP/2: refused WebSockets, the choice of the version, and accounting."""

from __future__ import annotations

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from balancebeam.downstream.http1.channel import Http1Channel
from balancebeam.downstream.http1.factory import Http1Factory
from balancebeam.downstream.http2.channel import Http2Channel
from balancebeam.protocols.http2 import frames as f
from balancebeam.protocols.http2.settings import encode_settings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.http2_client import Http2Client, accept_websocket, request_fields
from tests.helpers.memory import GET, OK, MemoryBalancer

TUNNEL = (
    *((":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https")),
    *((":path", "/chat"), (":authority", "example.org"), ("sec-websocket-version", "13")),
)


class TunnelTests(BalancerTestCase):
    """Servers that do not accept a WebSocket."""

    def _respond(self, response: bytes) -> tuple[str, MemoryBalancer]:
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(TUNNEL)
        server = balancer.accept()
        server.received()
        server.send(response)
        client.receive()
        if client.responses[stream].status == "502":
            self.assertTrue(server.transport.closing)
        self.assertTrue(client.responses[stream].ended)
        self.assertEqual(balancer.servers[0].in_flight, 0)
        return client.responses[stream].status, balancer

    def test_wrong_key(self) -> None:
        """101 without the right Sec-WebSocket-Accept is an invalid response."""
        right = accept_websocket(b"\r\nsec-websocket-key: other\r\n")
        line = right[right.index(b"Sec-WebSocket-Accept") :].partition(b"\r\n")[0]
        for response in (right, right.replace(line + b"\r\n", b"")):
            self.assertEqual(self._respond(response)[0], "502")

    def test_success_instead_of_101(self) -> None:
        """The client would take any 2xx for an accepted WebSocket."""
        large = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(TUNNEL)
        balancer.accept().send(large)
        client.receive()
        self.assertEqual(client.responses[stream].status, "502")
        balancer = self.balancer()
        client = Http2Client(balancer)
        stream = client.start(TUNNEL)
        balancer.accept().send(OK)
        client.receive()
        self.assertEqual(client.responses[stream].status, "502")
        self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_refusal(self) -> None:
        """Other statuses pass, with their content."""
        response = b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno"
        self.assertEqual(self._respond(response)[0], "403")

    def test_content_of_a_tunnel(self) -> None:
        """A tunnel with Content-Length never reaches a server."""
        balancer = self.balancer()
        client = Http2Client(balancer, strict=False)
        stream = client.start([*TUNNEL, ("content-length", "5")])
        self.assertEqual(client.responses[stream].reset, 1)
        self.assertEqual(balancer.connectors, [])


class VersionTests(BalancerTestCase):
    """The first bytes of a connection with `h2c = true`."""

    def _channel(self, *pieces: bytes) -> object:
        balancer = self.balancer()
        factory = balancer.service.default_frontend.factory
        assert isinstance(factory, Http1Factory)
        factory.context.h2c = True
        peer = balancer.client()
        for piece in pieces:
            peer.send(piece)
        return peer.protocol

    def test_every_split_of_the_preface(self) -> None:
        """The preface selects HTTP/2 wherever it is split."""
        data = f.PREFACE + encode_settings(())
        for position in range(1, len(data)):
            channel = self._channel(data[:position], data[position:])
            assert isinstance(channel, Http2Channel)
            self.assertFalse(channel.closing)

    def test_everything_else_is_http1(self) -> None:
        """Methods that begin like the preface, and garbage, are HTTP/1.1."""
        for data in (
            *(b"P", b"PR", b"PRI", b"PRI * HTTP/1.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"),
            *(b"POST / HTTP/1.1\r\n", b"PUT / HTTP/1.1\r\n", b"\x16\x03\x01", b"\0" * 30, GET),
        ):
            channel = self._channel(data, b"x")
            self.assertIsInstance(channel, Http1Channel, data)


class ContentTests(BalancerTestCase):
    """Content of requests, read by h11."""

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=300), max_size=6), st.booleans(), st.booleans())
    def test_content(self, parts: list[bytes], declared: bool, trailers: bool) -> None:
        """Any parts arrive as the same content, with or without length and trailers."""
        balancer = MemoryBalancer()
        try:
            client = Http2Client(balancer)
            content = b"".join(parts)
            extra = [("content-length", str(len(content)))] if declared else []
            stream = client.start(request_fields("POST", "/p", *extra))
            for part in parts:
                client.send_data(stream, part)
            if trailers:
                client.h2.send_headers(stream, [("x-sum", "1")], end_stream=True)
                client.flush()
            else:
                client.send_data(stream, b"", True)
            connection = h11.Connection(h11.SERVER)
            connection.receive_data(balancer.accept().received())
            request = connection.next_event()
            assert isinstance(request, h11.Request)
            self.assertEqual((request.method, request.target), (b"POST", b"/p"))
            received = b""
            event = connection.next_event()
            while isinstance(event, h11.Data):
                received += bytes(event.data)
                event = connection.next_event()
            assert isinstance(event, h11.EndOfMessage), event
            self.assertEqual(received, content)
            expected = [(b"x-sum", b"1")] if trailers and not declared else []
            self.assertEqual(list(event.headers), expected)
            self.assertEqual(connection.trailing_data[0], b"")
        finally:
            balancer.stop()
