"""Probes: what they send, and which responses are healthy."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseNeverReceived

from balancebeam.core.addresses import ServerAddress, TcpAddress, UnixAddress
from balancebeam.core.settings import HealthCheckSettings, ServerSettings
from balancebeam.upstream.health.check_failures import failure_detail
from balancebeam.upstream.health.errors import Unhealthy
from balancebeam.upstream.health.probes import (
    ConnectProbe,
    GrpcProbe,
    HttpProbe,
    build_probe,
)
from balancebeam.upstream.server import Server

ADDRESS = TcpAddress("192.0.2.7", 8080)


class ProbeTests(SynchronousTestCase):
    """A probe sends one request, and judges the response."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()

    def check(self, probe: Any, address: ServerAddress | None = None) -> Deferred[str]:
        """Start a check of a server at `address`."""
        return Deferred.fromCoroutine(probe.check(Server(ServerSettings(address or ADDRESS))))

    def connect(self) -> tuple[Any, StringTransport]:
        """Accept the latest connection; return its protocol and transport."""
        host, port, factory = self.reactor.tcpClients[-1][:3]
        self.assertEqual((host, port), ("192.0.2.7", 8080))
        protocol: Any = factory.buildProtocol(IPv4Address("TCP", host, port))
        transport = StringTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def http(self, path: str = "/health?x=1", statuses: tuple[int, int] = (200, 299)) -> HttpProbe:
        """An HTTP probe."""
        return HttpProbe(self.reactor, path, statuses, 2.0)

    def test_request(self) -> None:
        """The request names the server in Host, and is the only one of its connection."""
        result = self.check(self.http())
        protocol, transport = self.connect()
        lines = transport.value().split(b"\r\n")
        self.assertEqual(lines[0], b"GET /health?x=1 HTTP/1.1")
        self.assertIn(b"Host: 192.0.2.7:8080", lines)
        self.assertIn(b"Connection: close", lines)
        protocol.dataReceived(b"HTTP/1.1 204 No Content\r\n\r\n")
        self.assertEqual(self.successResultOf(result), "GET /health?x=1 was answered with 204")

    def test_expected_statuses(self) -> None:
        """Only a status within the expected range passes; redirects are not followed."""
        for status, statuses, healthy in (
            (200, (200, 299), True),
            (299, (200, 299), True),
            (302, (200, 299), False),
            (404, (200, 299), False),
            (503, (200, 299), False),
            (404, (200, 499), True),
            (200, (204, 204), False),
        ):
            result = self.check(self.http("/", statuses))
            protocol, _ = self.connect()
            protocol.dataReceived(b"HTTP/1.1 %d x\r\nContent-Length: 0\r\n\r\n" % status)
            if healthy:
                self.successResultOf(result)
            else:
                self.assertIn(str(status), str(self.failureResultOf(result, Unhealthy).value))

    def test_unexpected_status_is_described(self) -> None:
        """The detail has the request, the response with its Location, and the expected statuses."""
        for head, seen in (
            (b"404 No", "404 Not Found"),
            (b"302 x\r\nLocation: /in?\x1b[2J", r"302 Found (Location: '/in?\x1b[2J')"),
            (b"799 x\r\nLocation: /" + b"x" * 9000, f"799 (Location: '/{'x' * 199}')"),
        ):
            result = self.check(self.http())
            protocol, _ = self.connect()
            protocol.dataReceived(b"HTTP/1.1 " + head + b"\r\nContent-Length: 0\r\n\r\n")
            failure = self.failureResultOf(result, Unhealthy)
            self.assertEqual(
                failure_detail(failure, HealthCheckSettings()),
                f"GET /health?x=1 with Host 192.0.2.7:8080 was answered with {seen}: "
                "expected a status from 200 to 299",
            )

    def test_missing_response_is_described(self) -> None:
        """Without a response, the detail has the request and the error."""
        for error, path, detail in (
            (
                ConnectionRefusedError(),
                "/up",
                "GET /up failed: could not be reached: Connection was refused",
            ),
            (
                TimeoutError(),
                "/",
                "GET / failed: did not respond in time: health check timed out after 2 s",
            ),
            (
                ResponseNeverReceived([Failure(ConnectionLost())]),
                "/",
                "GET / failed: reset the connection",
            ),
            (
                ConnectionRefusedError(),
                None,
                "connection failed: could not be reached: Connection was refused",
            ),
        ):
            text = failure_detail(Failure(error), HealthCheckSettings(path))
            self.assertTrue(text.startswith(detail), text)
            self.assertFalse(text.endswith("."), text)

    def test_body_is_not_read(self) -> None:
        """The status decides; the connection is closed without reading the body."""
        result = self.check(self.http())
        protocol, transport = self.connect()
        protocol.dataReceived(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n...")
        self.successResultOf(result)
        self.assertTrue(transport.disconnecting)

    def test_ipv6_addresses(self) -> None:
        """IPv6 addresses, with a zone too, are used although a URL could not hold them."""
        for address in (TcpAddress("::1", 7307), TcpAddress("fe80::1%lo", 80)):
            self.check(self.http(), address)
            self.assertEqual(self.reactor.tcpClients[-1][:2], (address.host, address.port))

    def test_endless_informational_responses_are_cut_off(self) -> None:
        """A server that sends 1xx responses without end is disconnected."""
        result = self.check(self.http())
        protocol, transport = self.connect()
        sent = 0
        while not transport.disconnected and not transport.disconnecting:
            protocol.dataReceived(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10)
            sent += 280
            self.assertLess(sent, 100_000)
        result.cancel()
        self.failureResultOf(result)

    def test_refused_connection_fails_the_check(self) -> None:
        """A refused connection fails both kinds of probes."""
        for probe in (self.http(), ConnectProbe(self.reactor, 2.0)):
            result = self.check(probe)
            factory: Any = self.reactor.tcpClients[-1][2]
            factory.clientConnectionFailed(None, Failure(ConnectionRefusedError()))
            self.failureResultOf(result, ConnectionRefusedError)

    def test_cancel_stops_connecting(self) -> None:
        """Cancelling a check stops its connection attempt."""
        for probe in (self.http(), ConnectProbe(self.reactor, 2.0)):
            result = self.check(probe)
            result.cancel()
            self.failureResultOf(result)
            self.assertEqual(self.reactor.connectors[-1].stoppedConnecting, True)

    def test_connect_probe_sends_nothing(self) -> None:
        """A TCP check connects, sends nothing, and closes."""
        result = self.check(ConnectProbe(self.reactor, 2.0))
        _, transport = self.connect()
        self.assertEqual(self.successResultOf(result), "connection accepted")
        self.assertTrue(transport.disconnecting)
        self.assertEqual(transport.value(), b"")

    def test_unix_socket(self) -> None:
        """A server on a Unix socket is checked there."""
        self.check(self.http(), UnixAddress("/run/app"))
        self.assertEqual(self.reactor.unixClients[-1][0], "/run/app")

    def test_build_probe(self) -> None:
        """Checks without a path only connect, and a gRPC service precedes a path."""
        self.assertIsInstance(build_probe(HealthCheckSettings(grpc=""), self.reactor), GrpcProbe)
        self.assertIsInstance(build_probe(HealthCheckSettings(), self.reactor), HttpProbe)
        self.assertIsInstance(
            build_probe(HealthCheckSettings(path=None), self.reactor), ConnectProbe
        )
