"""TLS to servers: verification of certificates, and handshakes that fail."""

from __future__ import annotations

import ssl
import time
from typing import Any

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    FrontendSettings,
    PoolSettings,
    PoolTlsSettings,
    ServerSettings,
    Settings,
)
from tests.helpers.certificates import CertificateAuthority, shared_authority
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer
from tests.helpers.tls_server import TlsPeer, TlsTestCase


class VerificationTests(TlsTestCase):
    """Which certificates of servers are accepted."""

    def assert_accepted(self, balancer: MemoryBalancer, context: ssl.SSLContext) -> TlsPeer:
        client, server = self.request(balancer, context)
        self.assertTrue(server.received().startswith(b"GET / HTTP/1.1\r\n"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        return server

    def assert_rejected(
        self, balancer: MemoryBalancer, context: ssl.SSLContext, reason: str
    ) -> None:
        failures: list[Any] = []
        dispatcher = balancer.service.default_pool.dispatcher
        self.patch(dispatcher, "attempt_failed", _recording(dispatcher.attempt_failed, failures))
        client, server = self.request(balancer, context)
        response = client.received()
        self.assertIn(b"502 Bad Gateway", response)
        self.assertNotIn(b"certificate", response)
        self.assertEqual(server.received(), b"")
        self.assertIn(f"could not be reached: TLS handshake failed: {reason}", failures[0].text)
        self.assertTrue(failures[0].nothing_sent)

    def test_ip_address(self) -> None:
        """A server is verified by its IP address, which is not sent as SNI."""
        server = self.assert_accepted(self.balancer(), self.context("10.0.0.1"))
        self.assertIsNone(server.server_name)

    def test_wrong_ip_address(self) -> None:
        """A certificate for another IP address is rejected; the log names the check."""
        self.assert_rejected(
            self.balancer(),
            self.context("10.0.0.2", "app.internal"),
            "certificate verify failed: IP address mismatch, "
            "certificate is not valid for '10.0.0.1'",
        )

    def test_server_name(self) -> None:
        """With `server_name`, a server is verified by it, and it is sent as SNI."""
        tls = PoolTlsSettings(ca=self.ca, server_name="app.internal")
        server = self.assert_accepted(self.balancer(tls), self.context("app.internal"))
        self.assertEqual(server.server_name, "app.internal")

    def test_wrong_name(self) -> None:
        """A certificate for another name is rejected, and so is one for the address alone."""
        tls = PoolTlsSettings(ca=self.ca, server_name="app.internal")
        self.assert_rejected(
            self.balancer(tls),
            self.context("www.internal", "10.0.0.1"),
            "certificate verify failed: Hostname mismatch, "
            "certificate is not valid for 'app.internal'",
        )

    def test_unknown_ca(self) -> None:
        """A certificate of another CA is rejected."""
        certificate = CertificateAuthority("Other CA").issue("10.0.0.1")
        self.assert_rejected(
            self.balancer(), self.context_for(certificate), "certificate verify failed: "
        )

    def test_system_cas(self) -> None:
        """Without `ca`, the CA certificates of the system decide; that of the tests is unknown."""
        self.assert_rejected(
            self.balancer(PoolTlsSettings()),
            self.context("10.0.0.1"),
            "certificate verify failed: ",
        )

    def test_server_flag_alone(self) -> None:
        """A server with an `https://` address is verified, also in a pool without settings."""
        pool = PoolSettings(servers=(ServerSettings(TcpAddress("10.0.0.1", 443), tls=True),))
        balancer = MemoryBalancer.from_settings(
            Settings((FrontendSettings(bind=(), pool="app"),), (pool,))
        )
        self.addCleanup(balancer.stop)
        self.assert_rejected(balancer, self.context("10.0.0.1"), "certificate verify failed: ")

    def test_expired(self) -> None:
        """An expired certificate is rejected."""
        context = self.context("10.0.0.1", not_after=time.time() - 60)
        self.assert_rejected(
            self.balancer(), context, "certificate verify failed: certificate has expired"
        )

    def test_not_verified(self) -> None:
        """With `verify = false`, any certificate is accepted."""
        certificate = CertificateAuthority("Other CA").issue("x", not_after=time.time() - 60)
        tls = PoolTlsSettings(verify=False)
        self.assert_accepted(self.balancer(tls), self.context_for(certificate))

    def test_client_certificate(self) -> None:
        """A client certificate is presented to a server that requests it."""
        issued = shared_authority().issue(common_name="balancer", client=True)
        cert, key = issued.write_pair(self.directory / "me.pem", self.directory / "me.key")
        balancer = self.balancer(PoolTlsSettings(ca=self.ca, cert=cert, key=key))
        certificate = shared_authority().issue("10.0.0.1")
        context = self.context_for(certificate, client_ca=self.ca)
        server = self.assert_accepted(balancer, context)
        self.assertEqual(server.engine.getpeercert(True), issued.der)

    def test_missing_client_certificate(self) -> None:
        """The alert of a server that requires a client certificate fails the request."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            balancer = self.balancer()
            context = self.context_for(shared_authority().issue("10.0.0.1"), client_ca=self.ca)
            context.maximum_version = version
            failures: list[Any] = []
            dispatcher = balancer.service.default_pool.dispatcher
            self.patch(
                dispatcher, "attempt_failed", _recording(dispatcher.attempt_failed, failures)
            )
            client, _ = self.request(balancer, context)
            balancer.finish_closing()
            self.assertIn(b"502 Bad Gateway", client.received())
            self.assertIn("alert", failures[0].text)

    def test_tls_1_2(self) -> None:
        """TLS 1.2 is accepted, TLS 1.1 is not."""
        context = self.context("10.0.0.1")
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        server = self.assert_accepted(self.balancer(), context)
        self.assertEqual(server.engine.version(), "TLSv1.2")
        built = self.balancer().service.default_pool.connections.tls.client
        assert built is not None
        self.assertEqual(built.context.minimum_version, ssl.TLSVersion.TLSv1_2)


def _recording(call: Any, failures: list[Any]) -> Any:
    """A replacement for `Dispatcher.attempt_failed` that records the failures."""

    def attempt_failed(exchange: Any, failure: Any) -> None:
        failures.append(failure)
        call(exchange, failure)

    return attempt_failed


class HandshakeTests(TlsTestCase):
    """Handshakes that fail, stall, or are not needed any more."""

    def start(self, *arguments: Any, **options: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        """A balancer, a client with a request, and the server that got a ClientHello."""
        balancer = self.balancer(*arguments, **options)
        client = balancer.client()
        client.send(GET)
        return balancer, client, balancer.accept()

    def test_next_server(self) -> None:
        """A failed handshake is a failed attempt: the next server gets the request."""
        balancer, client, failed = self.start(servers=2)
        TlsPeer(failed, self.context("wrong.example"))
        server = TlsPeer(balancer.accept(), self.context("10.0.0.2"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertTrue(failed.transport.closing)

    def test_timeout(self) -> None:
        """The connect timeout covers connecting and the handshake."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.advance(3)
        server = balancer.accept()
        balancer.advance(1.5)
        self.assertEqual(client.received(), b"")
        balancer.advance(1.5)
        self.assertIn(b"504 Gateway Timeout", client.received())
        self.assertTrue(server.transport.aborted)

    def test_eof(self) -> None:
        """A server that closes the connection within the handshake could not be reached."""
        _, client, server = self.start()
        server.half_close()
        self.assertIn(b"502 Bad Gateway", client.received())
        self.assertTrue(server.transport.closing)

    def test_reset(self) -> None:
        """So could one that resets it."""
        _, client, server = self.start()
        server.reset()
        self.assertIn(b"502 Bad Gateway", client.received())

    def test_garbage(self) -> None:
        """Bytes that are not TLS fail the handshake: an HTTP response, an alert, noise."""
        alert = b"\x15\x03\x03\x00\x02\x02\x28"
        for data in (b"HTTP/1.1 400 Bad Request\r\n\r\n", alert, b"\0" * 100, b"\xff" * 20000):
            balancer, client, server = self.start()
            server.send(data)
            self.assertIn(b"502 Bad Gateway", client.received())
            self.assertTrue(server.transport.closing)
            balancer.finish_closing()

    def test_fragments(self) -> None:
        """A handshake may arrive byte by byte."""
        _balancer, client, server = self.start()
        send = server.send

        def send_bytewise(data: bytes) -> None:
            send(*(data[position : position + 1] for position in range(len(data))))

        vars(server)["send"] = send_bytewise
        tls = TlsPeer(server, self.context("10.0.0.1"))
        tls.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_client_disconnected(self) -> None:
        """The connection of a client that is gone becomes idle, and serves the next request."""
        balancer, client, server = self.start()
        client.reset()
        tls = TlsPeer(server, self.context("10.0.0.1"))
        self.assertEqual(len(balancer.servers[0].idle_connections), 1)
        client = balancer.client()
        client.send(GET)
        self.assertTrue(tls.received().startswith(b"GET / HTTP/1.1\r\n"))
        tls.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_stop(self) -> None:
        """A stop aborts handshakes; nothing is left."""
        balancer, _, server = self.start()
        balancer.stop()
        self.assertTrue(server.transport.aborted)

    def test_proxy_header_first(self) -> None:
        """The PROXY header is sent before the ClientHello, and only there."""
        _, client, server = self.start(proxy_protocol=1)
        header = b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 1100\r\n"
        tls = TlsPeer(server, self.context("10.0.0.1"), preamble_size=len(header))
        self.assertEqual(tls.preamble, header)
        self.assertTrue(tls.received().startswith(b"GET / HTTP/1.1\r\n"))
        tls.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertTrue(server.transport.closing)

    def test_no_alpn(self) -> None:
        """No ALPN is offered."""
        _, client, server = self.start()
        context = self.context("10.0.0.1")
        context.set_alpn_protocols(["h2", "http/1.1"])
        tls = TlsPeer(server, context)
        self.assertIsNone(tls.engine.selected_alpn_protocol())
        tls.send(OK)
        self.assertIn(b"200 OK", client.received())
