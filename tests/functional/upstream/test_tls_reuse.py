"""TLS to servers: idle connections, sessions, reloads, and truncated responses."""

from __future__ import annotations

import ssl
from pathlib import Path

from attrs import evolve

from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import PoolTlsSettings, Settings
from tests.helpers.certificates import CertificateAuthority, shared_authority, write
from tests.helpers.memory import GET, OK, MemoryBalancer
from tests.helpers.tls_server import TlsPeer, TlsTestCase


class ReuseTests(TlsTestCase):
    """Idle connections and sessions."""

    CLOSE = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

    def run_request(
        self, balancer: MemoryBalancer, context: ssl.SSLContext, response: bytes = OK
    ) -> TlsPeer:
        client, server = self.request(balancer, context)
        server.send(response)
        self.assertIn(b"200 OK", client.received())
        return server

    def test_idle_connection(self) -> None:
        """An idle connection is used for the next request."""
        balancer = self.balancer()
        server = self.run_request(balancer, self.context("10.0.0.1"))
        server.received()
        client = balancer.client()
        client.send(GET)
        self.assertTrue(server.received().startswith(b"GET"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertEqual(len(balancer.connectors), 1)

    def test_idle_connection_closed_by_server(self) -> None:
        """An idle connection on which the server sends close_notify is closed."""
        balancer = self.balancer()
        server = self.run_request(balancer, self.context("10.0.0.1"))
        server.send_close_notify()
        self.assertFalse(balancer.servers[0].idle_connections)
        self.assertTrue(server.peer.transport.closing)

    def test_session_resumed(self) -> None:
        """The second connection resumes the session of the first, with TLS 1.2 and 1.3."""
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            balancer = self.balancer()
            context = self.context("10.0.0.1")
            context.maximum_version = version
            resumed = []
            for _ in range(3):
                server = self.run_request(balancer, context, self.CLOSE)
                balancer.finish_closing()
                resumed.append(server.engine.session_reused)
            self.assertEqual(resumed, [False, True, True], version)

    def test_session_of_idle_connection(self) -> None:
        """A session is available once the first connection is idle, not only when it closes."""
        balancer = self.balancer()
        context = self.context("10.0.0.1")
        first = self.run_request(balancer, context)
        busy = balancer.client()
        busy.send(GET)
        second = self.run_request(balancer, context)
        self.assertTrue(second.engine.session_reused)
        first.send(OK)
        self.assertIn(b"200 OK", busy.received())

    def test_session_not_accepted(self) -> None:
        """A server that has forgotten the session makes a full handshake, and a new session."""
        balancer = self.balancer()
        for resumed in (False, True):
            context = self.context("10.0.0.1")
            for expected in (False, True):
                server = self.run_request(balancer, context, self.CLOSE)
                balancer.finish_closing()
                self.assertEqual(server.engine.session_reused, expected, resumed)

    def test_session_of_other_server(self) -> None:
        """A session is not offered to another server."""
        balancer = self.balancer(PoolTlsSettings(ca=self.ca, server_name="app"), servers=2)
        context = self.context("app")
        for _ in range(2):
            server = self.run_request(balancer, context, self.CLOSE)
            balancer.finish_closing()
            self.assertFalse(server.engine.session_reused)

    def test_unchanged_reload(self) -> None:
        """A reload that changes nothing keeps idle connections and sessions."""
        balancer = self.balancer()
        context = self.context("10.0.0.1")
        self.run_request(balancer, context)
        self.reload(balancer, self.settings())
        self.assertEqual(len(balancer.servers[0].idle_connections), 1)
        busy = balancer.client()
        busy.send(GET)
        self.assertTrue(self.run_request(balancer, context).engine.session_reused)
        busy.reset()

    def test_changed_context(self) -> None:
        """A changed CA file or name closes idle connections, and drops the session."""
        context = self.context("10.0.0.1", "app")
        for change in (self.change_file, self.change_name):
            balancer = self.balancer()
            first = self.run_request(balancer, context)
            self.reload(balancer, change())
            self.assertTrue(first.peer.transport.closing)
            self.assertFalse(balancer.servers[0].idle_connections)
            second = self.run_request(balancer, context)
            self.assertFalse(second.engine.session_reused)

    def change_file(self) -> Settings:
        """The settings as before, with another CA in the file besides."""
        roots = shared_authority().root + CertificateAuthority("Other CA").root
        write(self.directory / "ca.pem", roots)
        return self.settings()

    def change_name(self) -> Settings:
        """Settings with another name."""
        return self.settings(PoolTlsSettings(ca=self.ca, server_name="app"))

    def test_busy_connection(self) -> None:
        """A connection that is in use during such a reload is closed after its response."""
        balancer = self.balancer()
        client, server = self.request(balancer, self.context("10.0.0.1"))
        self.reload(balancer, self.change_name())
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertTrue(server.peer.transport.closing)

    def test_handshake_in_progress(self) -> None:
        """So is a connection whose handshake is in progress then."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        peer = balancer.accept()
        self.reload(balancer, self.change_name())
        server = TlsPeer(peer, self.context("10.0.0.1"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertTrue(peer.transport.closing)

    def test_tls_of_one_server_changed(self) -> None:
        """A server whose address becomes `https://` gets new connections with TLS."""
        plain = evolve(self.settings().pools[0], tls=None)
        frontends = self.settings().frontends
        balancer = MemoryBalancer.from_settings(Settings(frontends, (plain,)))
        self.addCleanup(balancer.stop)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        changed = evolve(plain, servers=(evolve(plain.servers[0], tls=True),))
        self.reload(balancer, Settings(frontends, (changed,)))
        self.assertTrue(server.transport.closing)
        client.send(GET)
        self.assertEqual(balancer.accept().received()[:1], b"\x16")
        client.reset()

    def test_invalid_file(self) -> None:
        """A file that cannot be read rejects the reload, which changes nothing."""
        balancer = self.balancer()
        server = self.run_request(balancer, self.context("10.0.0.1"))
        Path(self.ca).unlink()
        error = self.assertRaises(ConfigError, self.reload, balancer, self.settings())
        self.assertEqual(
            str(error), f"pool app: tls: {self.ca}: cannot be read: no such file or directory"
        )
        self.assertFalse(server.peer.transport.closing)
        self.flushLoggedErrors()

    def test_invalid_file_at_start(self) -> None:
        """A file that cannot be read is an error at start."""
        settings = self.settings(PoolTlsSettings(ca="/nonexistent"))
        self.assertRaises(ConfigError, MemoryBalancer.from_settings, settings)


class ResponseTests(TlsTestCase):
    """The end of close-delimited responses (RFC 9112, 9.8)."""

    HEAD = b"HTTP/1.1 200 OK\r\n\r\n"

    def test_close_notify(self) -> None:
        """A close-delimited response ends with close_notify."""
        client, server = self.request(self.balancer(), self.context("10.0.0.1"))
        server.send(self.HEAD, b"hello")
        server.send_close_notify()
        server.half_close()
        response = client.received()
        self.assertIn(b"hello", response)
        self.assertTrue(response.endswith(b"0\r\n\r\n"))
        self.assertTrue(server.peer.transport.closing)

    def test_truncated(self) -> None:
        """Without close_notify, it is truncated, and so is what the client receives."""
        client, server = self.request(self.balancer(), self.context("10.0.0.1"))
        server.send(self.HEAD, b"hello")
        server.half_close()
        response = client.received()
        self.assertIn(b"hello", response)
        self.assertFalse(response.endswith(b"0\r\n\r\n"))
        self.assertTrue(client.transport.closing)

    def test_content_length(self) -> None:
        """A response with a length is complete without close_notify."""
        client, server = self.request(self.balancer(), self.context("10.0.0.1"))
        server.send(OK)
        server.half_close()
        self.assertTrue(client.received().endswith(b"hello"))
        self.assertFalse(client.transport.closing)

    def test_corrupt_record(self) -> None:
        """A corrupt record within a response cuts it."""
        client, server = self.request(self.balancer(), self.context("10.0.0.1"))
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello")
        server.peer.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        server.peer.finish_closing()
        self.assertIn(b"hello", client.received())
        self.assertTrue(client.transport.closing)

    def test_large_bodies(self) -> None:
        """Large bodies pass in both directions."""
        body = bytes(range(256)) * 4096
        balancer = self.balancer()
        client, server = self.request(
            balancer,
            self.context("10.0.0.1"),
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body,
        )
        self.assertTrue(server.received().endswith(body))
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body)
        self.assertTrue(client.received().endswith(body))
