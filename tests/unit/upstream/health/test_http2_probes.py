"""Health checks over HTTP/2, with the `h2` library as server."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import HealthCheckSettings, ServerSettings
from balancebeam.protocols.grpc_health import encode_check
from balancebeam.upstream.health.http2_check import CheckFailed
from balancebeam.upstream.health.probes import Unhealthy, build_probe
from balancebeam.upstream.server import Server

SERVING = b"\0\0\0\0\2\x08\1"
NOT_SERVING = b"\0\0\0\0\2\x08\2"


class Http2ProbeTests(SynchronousTestCase):
    """A probe sends one request with prior knowledge, and judges the response."""

    def start(self, checks: HealthCheckSettings, **server: Any) -> Deferred[str]:
        """Start a check, whose connection the library serves."""
        reactor = MemoryReactorClock()
        settings = ServerSettings(TcpAddress("192.0.2.7", 8080), protocol="h2", **server)
        check = Deferred.fromCoroutine(build_probe(checks, reactor).check(Server(settings)))
        factory: Any = reactor.tcpClients[-1][2]
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 8080))
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.fields: dict[Any, Any] = {}
        self.content = b""
        self.ended = False
        self.receive()
        return check

    def receive(self) -> None:
        """Process what the probe has sent."""
        data = self.transport.value()
        self.transport.clear()
        for event in self.h2.receive_data(data) if data else ():
            if isinstance(event, RequestReceived):
                self.fields = dict(event.headers)
            elif isinstance(event, DataReceived):
                self.content += event.data
            elif isinstance(event, StreamEnded):
                self.ended = True

    def respond(
        self, status: str = "200", content: bytes = b"", trailers: dict[str, str] | None = None
    ) -> None:
        """Send a response, with `trailers` or, without content, as trailers-only."""
        fields = [(":status", status)]
        if content:
            self.h2.send_headers(1, fields)
            self.h2.send_data(1, content, end_stream=not trailers)
            if trailers:
                self.h2.send_headers(1, list(trailers.items()), end_stream=True)
        else:
            self.h2.send_headers(1, [*fields, *(trailers or {}).items()], end_stream=True)
        self.flush()

    def flush(self) -> None:
        """Send what the library has to send."""
        self.protocol.dataReceived(self.h2.data_to_send())

    def test_path(self) -> None:
        """The path is requested over HTTP/2, and its status decides."""
        check = self.start(HealthCheckSettings(path="/health"))
        self.assertEqual(
            (self.fields[":method"], self.fields[":path"], self.fields[":scheme"]),
            ("GET", "/health", "http"),
        )
        self.assertEqual(self.fields[":authority"], "192.0.2.7:8080")
        self.assertTrue(self.ended)
        self.respond("204")
        self.assertEqual(self.successResultOf(check), "GET /health was answered with 204")
        self.assertTrue(self.transport.disconnecting)

    def test_other_status(self) -> None:
        """Another status is unhealthy, and the message is that of HTTP/1.1."""
        check = self.start(HealthCheckSettings(path="/health"))
        self.respond("503", b"down")
        failure = self.failureResultOf(check, Unhealthy)
        self.assertEqual(str(failure.value), "GET /health was answered with 503")
        self.assertIn("expected a status from 200 to 299", failure.value.detail)

    def test_proxy_header(self) -> None:
        """The PROXY header precedes the preface."""
        reactor = MemoryReactorClock()
        settings = ServerSettings(TcpAddress("192.0.2.7", 1), protocol="h2", proxy_protocol=1)
        check = Deferred.fromCoroutine(
            build_probe(HealthCheckSettings(), reactor).check(Server(settings))
        )
        factory: Any = reactor.tcpClients[-1][2]
        protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 1))
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.assertTrue(transport.value().startswith(b"PROXY UNKNOWN\r\nPRI * HTTP/2.0\r\n"))
        protocol.connectionLost(Failure(ConnectionDone()))
        self.failureResultOf(check, CheckFailed)

    def test_server_without_http2(self) -> None:
        """A response of HTTP/1.1 is a failure with a clear text."""
        check = self.start(HealthCheckSettings())
        self.protocol.dataReceived(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        failure = self.failureResultOf(check, CheckFailed)
        self.assertEqual(str(failure.value), "server sent no HTTP/2")

    def test_failures(self) -> None:
        """A reset, GOAWAY, invalid frames and a close each fail the check once."""
        ends = (
            lambda: self.h2.reset_stream(1, 2),
            lambda: self.h2.close_connection(1),
            lambda: self.protocol.dataReceived(b"\0\0\4\0\0\0\0\0\2abcd"),
            lambda: self.protocol.dataReceived(b"\xff" * 9),
        )
        for end in ends:
            check = self.start(HealthCheckSettings())
            self.flush()
            end()
            self.flush()
            self.failureResultOf(check, CheckFailed)
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def test_cancelled(self) -> None:
        """A check that takes too long closes its connection."""
        check = self.start(HealthCheckSettings())
        check.cancel()
        self.assertTrue(self.transport.disconnected or self.transport.disconnecting)
        self.failureResultOf(check)

    def test_grpc(self) -> None:
        """A service that is SERVING is healthy."""
        check = self.start(HealthCheckSettings(path=None, grpc="my.Service"))
        self.assertEqual(
            (self.fields[":method"], self.fields[":path"], self.fields["content-type"]),
            ("POST", "/grpc.health.v1.Health/Check", "application/grpc"),
        )
        self.assertEqual(self.fields["te"], "trailers")
        self.assertEqual(self.content, b"\0\0\0\0\x0c\x0a\x0amy.Service")
        self.assertTrue(self.ended)
        self.respond("200", SERVING, {"grpc-status": "0"})
        text = "gRPC health check was answered with SERVING"
        self.assertEqual(self.successResultOf(check), text)

    def test_grpc_unhealthy(self) -> None:
        """Anything else is not healthy, and the reason is in the text."""
        cases: list[tuple[str, bytes, dict[str, str], str]] = [
            ("200", NOT_SERVING, {"grpc-status": "0"}, "NOT_SERVING"),
            ("200", b"\0\0\0\0\0", {"grpc-status": "0"}, "UNKNOWN"),
            ("200", b"", {"grpc-status": "5"}, "NOT_FOUND"),
            ("200", b"", {"grpc-status": "12"}, "UNIMPLEMENTED"),
            ("200", SERVING, {"grpc-status": "14"}, "UNAVAILABLE"),
            ("200", SERVING, {}, "without grpc-status"),
            ("200", b"\0\0\0\0\3\x08\1", {"grpc-status": "0"}, "invalid"),
            ("200", b"\0\0", {"grpc-status": "0"}, "invalid"),
            ("503", b"", {}, "HTTP status 503"),
        ]
        for status, content, trailers, text in cases:
            check = self.start(HealthCheckSettings(path=None, grpc=""))
            self.assertEqual(self.content, encode_check(""))
            self.respond(status, content, trailers)
            self.assertIn(text, str(self.failureResultOf(check, Unhealthy).value))
