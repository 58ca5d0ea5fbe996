"""HTTP/2 to servers over TLS: ALPN, sessions, and health checks."""

from __future__ import annotations

import ssl
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import HealthCheckSettings, ServerSettings
from balancebeam.upstream.health.check_failures import check_failure_reason
from balancebeam.upstream.health.probes import build_probe
from balancebeam.upstream.pool_tls import PoolTls
from balancebeam.upstream.server import Server
from tests.helpers.http2_server import Http2Server
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer
from tests.helpers.tls_server import TlsPeer, TlsTestCase


class AlpnTests(TlsTestCase):
    """Over TLS, the server has to select HTTP/2 by ALPN."""

    def http2_context(self, *protocols: str) -> ssl.SSLContext:
        """The context of a server that selects one of `protocols`."""
        context = self.context("10.0.0.1")
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def serve(self, peer: Any) -> Http2Server:
        """Serve HTTP/2 on a connection."""
        server = Http2Server.__new__(Http2Server)
        server.start(peer)
        return server

    def request_http2(self, balancer: MemoryBalancer, context: ssl.SSLContext) -> TlsPeer:
        """Send a request, and respond to it on a new connection."""
        client, peer = self.request(balancer, context)
        server = self.serve(peer)
        self.assertEqual(server.requests[1].field(":scheme"), "https")
        server.respond(1)
        self.assertIn(b"hello", client.received())
        return peer

    def test_selected(self) -> None:
        """Only h2 is offered, and the request is sent once it is selected."""
        peer = self.request_http2(
            self.balancer(protocol="h2"), self.http2_context("http/1.1", "h2")
        )
        self.assertEqual(peer.engine.selected_alpn_protocol(), "h2")

    def test_not_selected(self) -> None:
        """A server that does not select h2 fails the attempt with a clear reason."""
        for protocols in ((), ("http/1.1",)):
            balancer = self.balancer(protocol="h2")
            context = self.http2_context(*protocols)
            # OpenSSL as a server ignores an offer without a common protocol.
            client, server = self.request(balancer, context)
            self.assertIn(b"502 Bad Gateway", client.received())
            self.assertEqual(server.received(), b"")
            reason = balancer.servers[0].status_reason
            self.assertIn("TLS handshake failed: server did not negotiate h2", reason)

    def test_session_is_resumed(self) -> None:
        """The next connection resumes the session of the last one."""
        balancer = self.balancer(protocol="h2")
        context = self.http2_context("h2")
        first = self.request_http2(balancer, context)
        first.half_close()
        second = self.request_http2(balancer, context)
        self.assertFalse(first.engine.session_reused)
        self.assertTrue(second.engine.session_reused)

    def test_http1_servers_of_the_same_pool(self) -> None:
        """A server of the pool without HTTP/2 gets no offer of it."""
        settings = self.settings(servers=2)
        pool = settings.pools[0]
        servers = (evolve(pool.servers[0], protocol="h2"), pool.servers[1])
        settings = evolve(settings, pools=(evolve(pool, servers=servers),))
        balancer = MemoryBalancer.from_settings(settings)
        self.addCleanup(balancer.stop)
        self.request_http2(balancer, self.http2_context("h2", "http/1.1"))
        context = self.context("10.0.0.2")
        context.set_alpn_protocols(["h2", "http/1.1"])
        client, peer = self.request(balancer, context)
        self.assertIsNone(peer.engine.selected_alpn_protocol())
        self.assertTrue(peer.received().startswith(GET[:10]))
        peer.send(OK)
        self.assertIn(b"hello", client.received())

    def test_reload_to_http2(self) -> None:
        """A reload that changes the protocol replaces the connections."""
        balancer = self.balancer()
        _, peer = self.request(balancer, self.context("10.0.0.1"))
        peer.send(OK)
        settings = self.settings(protocol="h2")
        self.reload(balancer, settings)
        self.assertTrue(peer.peer.transport.closing)
        second = self.request_http2(balancer, self.http2_context("h2"))
        self.reload(balancer, self.settings())
        self.assertTrue(second.peer.transport.closing)

    def test_health_check(self) -> None:
        """A check negotiates h2 as well, and fails if the server does not select it."""
        for protocols, healthy in ((("h2",), True), ((), False)):
            check, peer = self.start_check(protocols)
            if healthy:
                server = self.serve(peer)
                self.assertEqual(server.requests[1].field(":scheme"), "https")
                server.respond(1)
                self.assertEqual(self.successResultOf(check), "GET / was answered with 200")
            else:
                reason = check_failure_reason(self.failureResultOf(check), 5.0)
                self.assertIn("server did not negotiate h2", reason)

    def start_check(self, protocols: tuple[str, ...]) -> tuple[Deferred[str], TlsPeer]:
        """Start a check of a server that selects one of `protocols`."""
        reactor = MemoryReactorClock()
        pool_tls = PoolTls.read(self.settings(protocol="h2").pools[0])
        server = Server(ServerSettings(TcpAddress("10.0.0.1", 443), protocol="h2"))
        probe = build_probe(HealthCheckSettings(), reactor, pool_tls.find)
        check = Deferred.fromCoroutine(probe.check(server))
        peer = Peer(reactor.tcpClients[-1][2].buildProtocol(None))
        return check, TlsPeer(peer, self.http2_context(*protocols))
