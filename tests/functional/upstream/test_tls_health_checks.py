"""Health checks of servers with TLS."""

from __future__ import annotations

import ssl
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from balancebeam.admin.service import build_health_check
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import HealthCheckSettings, PoolTlsSettings, ServerSettings
from balancebeam.protocols.proxy_protocol import encode_proxy_header
from balancebeam.upstream.health.check_failures import check_failure_reason
from balancebeam.upstream.health.probes import build_probe
from balancebeam.upstream.pool_tls import PoolTls
from balancebeam.upstream.server import Server
from tests.helpers.memory import Peer
from tests.helpers.tls_server import TlsPeer, TlsTestCase

CONNECT = HealthCheckSettings(path=None)
HTTP = HealthCheckSettings(path="/health")


class TlsHealthCheckTests(TlsTestCase):
    """Probes use the TLS settings of the pool."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = MemoryReactorClock()

    def start(
        self, checks: HealthCheckSettings, tls: PoolTlsSettings | None = None, **server: Any
    ) -> tuple[Deferred[str], Peer]:
        """Start a check; return its result, and the connection that the server has accepted."""
        pool_tls = PoolTls.read(self.settings(tls).pools[0])
        settings = ServerSettings(TcpAddress("10.0.0.1", 443), **server)
        probe = build_probe(checks, self.reactor, pool_tls.find)
        check = Deferred.fromCoroutine(probe.check(Server(settings)))
        return check, self.accept()

    def accept(self) -> Peer:
        """Accept the latest connection."""
        return Peer(self.reactor.tcpClients[-1][2].buildProtocol(None))

    def reason(self, check: Deferred[str]) -> str:
        """The reason of a failed check, as `last_check` shows it."""
        return check_failure_reason(self.failureResultOf(check), 5.0)

    def test_connect_probe(self) -> None:
        """A connect probe performs the handshake, and closes the connection properly."""
        check, peer = self.start(CONNECT)
        self.assertNoResult(check)
        server = TlsPeer(peer, self.context("10.0.0.1"))
        server.pump()
        self.assertEqual(self.successResultOf(check), "TLS handshake completed")
        self.assertTrue(server.input_closed)
        self.assertTrue(peer.transport.closing)

    def test_http_probe(self) -> None:
        """An HTTP probe sends its request over TLS."""
        check, peer = self.start(HTTP)
        server = TlsPeer(peer, self.context("10.0.0.1"))
        request = server.received()
        self.assertTrue(request.startswith(b"GET /health HTTP/1.1\r\n"))
        self.assertIn(b"\r\nHost: 10.0.0.1:443\r\n", request)
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        self.assertEqual(self.successResultOf(check), "GET /health was answered with 200")
        peer.finish_closing()

    def test_server_name(self) -> None:
        """The name is that of the pool."""
        tls = PoolTlsSettings(ca=self.ca, server_name="app.internal")
        check, peer = self.start(CONNECT, tls)
        server = TlsPeer(peer, self.context("app.internal"))
        self.successResultOf(check)
        self.assertEqual(server.server_name, "app.internal")

    def test_failed_verification(self) -> None:
        """The reason names the check that has failed."""
        for checks in (CONNECT, HTTP):
            check, peer = self.start(checks)
            TlsPeer(peer, self.context("10.0.0.2"))
            self.assertEqual(
                self.reason(check),
                "could not be reached: TLS handshake failed: certificate verify failed: "
                "IP address mismatch, certificate is not valid for '10.0.0.1'",
            )
            self.assertTrue(peer.transport.closing)
            peer.finish_closing()

    def test_failed_handshake(self) -> None:
        """A server that closes the connection, or that does not speak TLS, is unhealthy."""
        check, peer = self.start(HTTP)
        peer.reset()
        self.assertIn("TLS handshake failed: connection closed by the peer", self.reason(check))
        check, peer = self.start(HTTP)
        peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertIn("TLS handshake failed: wrong version number", self.reason(check))

    def test_client_certificate_required(self) -> None:
        """An alert after the handshake (TLS 1.3) is in the reason."""
        check, peer = self.start(HTTP)
        context = self.context("10.0.0.1")
        context.verify_mode = ssl.CERT_REQUIRED
        TlsPeer(peer, context)
        peer.finish_closing()
        self.assertIn("alert", self.reason(check))

    def test_cancelled(self) -> None:
        """A check that is cancelled within the handshake aborts the connection."""
        check, peer = self.start(HTTP)
        check.cancel()
        self.failureResultOf(check)
        self.assertTrue(peer.transport.aborted)
        peer.finish_closing()

    def test_proxy_header(self) -> None:
        """The PROXY header is sent before the ClientHello."""
        check, peer = self.start(CONNECT, proxy_protocol=2)
        header = encode_proxy_header(2, None)
        server = TlsPeer(peer, self.context("10.0.0.1"), preamble_size=len(header))
        self.assertEqual(server.preamble, header)
        self.successResultOf(check)

    def test_not_resumed(self) -> None:
        """Each check verifies the certificate: none resumes a session."""
        pool_tls = PoolTls.read(self.settings().pools[0])
        server = Server(ServerSettings(TcpAddress("10.0.0.1", 443)))
        probe = build_probe(HTTP, self.reactor, pool_tls.find)
        context = self.context("10.0.0.1")
        for _ in range(2):
            check = Deferred.fromCoroutine(probe.check(server))
            tls = TlsPeer(self.accept(), context)
            tls.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            self.successResultOf(check)
            tls.peer.finish_closing()
            self.assertFalse(tls.engine.session_reused)

    def test_registration(self) -> None:
        """The check before a registration uses TLS."""
        tls = PoolTls.read(self.settings().pools[0])
        server = Server(ServerSettings(TcpAddress("10.0.0.1", 443)))
        check = build_health_check(self.reactor)(server, evolve(HTTP), tls.find(server))
        TlsPeer(self.accept(), self.context("wrong.example"))
        self.assertIn("certificate verify failed", str(self.failureResultOf(check).value))
