"""Probes over HTTP/2: grpc.health.v1, and GET."""

from __future__ import annotations

from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import HTTP2, HealthCheckSettings, ServerSettings
from balancebeam.protocols.grpc import encode_message
from balancebeam.upstream.health.check_failures import check_failure_reason, failure_detail
from balancebeam.upstream.health.errors import Unhealthy
from balancebeam.upstream.health.probes import build_probe
from balancebeam.upstream.server import Server

GRPC = HealthCheckSettings(None, grpc="a.B")

HEAD = [(":status", "200"), ("content-type", "application/grpc")]
SERVING = encode_message(b"\x08\x01")


class ProbeTestCase(SynchronousTestCase):
    """Base class: a check, and a server of the `h2` library."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def start(self, checks: HealthCheckSettings = GRPC) -> Deferred[str]:
        """Start a check, and accept its connection."""
        settings = ServerSettings(TcpAddress("192.0.2.7", 8080), protocol=HTTP2)
        probe = build_probe(checks, self.reactor)
        result = Deferred.fromCoroutine(probe.check(Server(settings)))
        factory: Any = self.reactor.tcpClients[-1][2]
        self.protocol = factory.buildProtocol(IPv4Address("TCP", "192.0.2.7", 8080))
        self.transport = StringTransport()
        self.transport.abortConnection = self.transport.loseConnection  # type: ignore[method-assign]
        self.protocol.makeConnection(self.transport)
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.fields: dict[str, str] = {}
        self.content = b""
        for event in self.h2.receive_data(self.transport.value()):
            if isinstance(event, RequestReceived):
                self.fields = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, DataReceived):
                self.content += event.data
        return result

    def flush(self) -> None:
        """Send what the library has to send."""
        self.protocol.dataReceived(self.h2.data_to_send())

    def respond(self, head: Any, content: bytes = b"", trailers: Any = None) -> None:
        """Respond with a head, content and trailers."""
        self.h2.send_headers(1, head, end_stream=not (content or trailers))
        if content:
            self.h2.send_data(1, content, end_stream=not trailers)
        if trailers:
            self.h2.send_headers(1, trailers, end_stream=True)
        self.flush()

    def reason(self, result: Deferred[str]) -> str:
        """Return the reason of a failed check, as `last_check` shows it."""
        return check_failure_reason(self.failureResultOf(result), 5.0)


class GrpcProbeTests(ProbeTestCase):
    """A server is healthy if it says that the service is serving."""

    def test_request(self) -> None:
        """The request is a unary call with the name of the service and a deadline."""
        result = self.start()
        self.assertEqual(self.fields[":path"], "/grpc.health.v1.Health/Check")
        self.assertEqual(self.fields[":method"], "POST")
        self.assertEqual(self.fields[":authority"], "192.0.2.7:8080")
        self.assertEqual(self.fields["content-type"], "application/grpc")
        self.assertEqual(self.fields["te"], "trailers")
        self.assertEqual(self.fields["grpc-timeout"], "2000m")
        self.assertEqual(self.content, b"\0\0\0\0\x05\x0a\x03a.B")
        self.assertNoResult(result)
        self.respond(HEAD, SERVING, [("grpc-status", "0")])
        self.assertEqual(
            self.successResultOf(result), "gRPC health check of 'a.B' was answered with SERVING"
        )
        self.assertTrue(self.transport.disconnecting)

    def test_whole_server(self) -> None:
        """An empty name is left out."""
        result = self.start(HealthCheckSettings(None, grpc=""))
        self.assertEqual(self.content, bytes(5))
        self.respond(HEAD, encode_message(b"\x08\x02"), [("grpc-status", "0")])
        self.assertEqual(self.reason(result), "gRPC health check was answered with NOT_SERVING")

    def test_other_responses(self) -> None:
        """Every other response is a failure with a reason."""
        status = [("grpc-status", "0")]
        for head, content, trailers, reason in (
            (HEAD, encode_message(b"\x08\x02"), status, "with NOT_SERVING"),
            (HEAD, encode_message(b""), status, "with UNKNOWN"),
            (HEAD, encode_message(b"\x08\x03"), status, "with SERVICE_UNKNOWN"),
            (HEAD, encode_message(b"\x08\x09"), status, "with 9"),
            (
                [*HEAD, ("grpc-status", "12"), ("grpc-message", "no%20such%0A")],
                *(b"", None, r"with grpc-status 12: 'no such\n'"),
            ),
            (HEAD, SERVING, [("grpc-status", "5")], "with grpc-status 5"),
            (HEAD, SERVING, None, "with grpc-status ''"),
            ([*HEAD, ("grpc-status", "\x7f")], b"", None, r"with grpc-status '\x7f'"),
            ([(":status", "404")], b"x", None, "with HTTP status 404"),
            ([(":status", "200"), ("content-type", "text/html")], b"x", None, "without gRPC"),
            (HEAD, b"abc", status, "with an invalid message: no complete message"),
            (HEAD, encode_message(b"\x08"), status, "with an invalid message: incomplete"),
        ):
            result = self.start()
            self.respond(head, content, trailers)
            text = self.reason(result)
            self.assertTrue(
                text.startswith(f"gRPC health check of 'a.B' was answered {reason}"), text
            )
            self.assertTrue(self.transport.disconnecting)

    def test_no_response(self) -> None:
        """A connection that is closed, a reset stream and GOAWAY are failures."""
        for lost, reason in (
            (ConnectionDone(), "closed the connection"),
            (ConnectionLost(), "reset the connection"),
        ):
            result = self.start()
            self.flush()
            self.protocol.connectionLost(Failure(lost))
            self.assertEqual(self.reason(result), reason)
        result = self.start()
        self.h2.reset_stream(1, 7)
        self.flush()
        self.assertEqual(self.reason(result), "reset the stream: REFUSED_STREAM")
        result = self.start()
        self.h2.close_connection(11, last_stream_id=0)
        self.flush()
        self.assertEqual(self.reason(result), "closed the connection: GOAWAY: ENHANCE_YOUR_CALM")

    def test_graceful_goaway(self) -> None:
        """A server that drains still answers the check."""
        result = self.start()
        self.protocol.dataReceived(
            self.h2.data_to_send() + b"\0\0\x08\x07\0\0\0\0\0\x7f\xff\xff\xff\0\0\0\0"
        )
        self.respond(HEAD, SERVING, [("grpc-status", "0")])
        self.successResultOf(result)

    def test_other_protocols(self) -> None:
        """A server without HTTP/2 fails the check."""
        for data, reason in (
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", "HTTP/1 response to the preface"),
            (bytes(64), "preface without SETTINGS"),
            (b"\xff" * 64, "frame larger than 2^14 bytes"),
        ):
            result = self.start()
            self.protocol.dataReceived(data)
            self.assertEqual(self.reason(result), f"violated HTTP/2: {reason}")
            self.assertTrue(self.transport.disconnecting)
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def test_endless_response(self) -> None:
        """A server that sends more than 64 KiB is disconnected."""
        result = self.start()
        self.h2.send_headers(1, HEAD)
        self.flush()
        ping = b"\0\0\x08\x06\x01\0\0\0\0" + bytes(8)
        for _ in range(5000):
            if not self.transport.disconnecting:
                self.protocol.dataReceived(ping)
        self.assertTrue(self.transport.disconnecting)
        self.protocol.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(result)

    def test_cancelled(self) -> None:
        """A check that times out closes its connection."""
        result = self.start()
        result.cancel()
        self.assertEqual(
            self.reason(result), "did not respond in time: health check timed out after 5 s"
        )
        self.assertTrue(self.transport.disconnecting)
        self.protocol.connectionLost(Failure(ConnectionLost()))

    def test_failure_is_described(self) -> None:
        """The text of a failed check says what was checked."""
        failure = Failure(ConnectionDone())
        self.assertEqual(
            failure_detail(failure, GRPC),
            "gRPC health check of 'a.B' failed: closed the connection",
        )


class HttpProbeTests(ProbeTestCase):
    """Checks by path use the protocol of requests."""

    def test_statuses(self) -> None:
        """The status decides; the content is not awaited."""
        checks = HealthCheckSettings("/up")
        result = self.start(checks)
        self.assertEqual((self.fields[":method"], self.fields[":path"]), ("GET", "/up"))
        self.h2.send_headers(1, [(":status", "103")])
        self.h2.send_headers(1, [(":status", "204"), ("content-length", "10")])
        self.flush()
        self.assertEqual(self.successResultOf(result), "GET /up was answered with 204")
        result = self.start(checks)
        self.respond([(":status", "302"), ("location", "/in")], b"x")
        failure = self.failureResultOf(result, Unhealthy)
        self.assertIn("302 Found (Location: '/in')", failure_detail(failure, checks))
