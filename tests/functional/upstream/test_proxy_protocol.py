"""Servers to which connections begin with a PROXY header."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import HealthCheckSettings, ServerSettings
from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from balancebeam.upstream.health.probes import build_probe
from balancebeam.upstream.server_set import ServerSet
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK


class ProxyProtocolTests(BalancerTestCase):
    """A server with the setting `proxy_protocol`."""

    def forwarded(self, version: int, request: bytes = GET, **options: Any) -> bytes:
        """Return what the server receives for one request; its connection is not reused."""
        balancer = self.balancer(servers=0, **options)
        address = TcpAddress("10.0.0.1", 80)
        balancer.service.server_set.add(ServerSettings(address, proxy_protocol=version))
        client = balancer.client()
        client.send(request)
        server = balancer.accept()
        sent = server.received()
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        # The next request on the connection might be another client's.
        self.assertTrue(server.transport.closing)
        return sent

    def test_client_addresses(self) -> None:
        """The header has the addresses of the client connection."""
        self.assertTrue(
            self.forwarded(1).startswith(
                b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 1100\r\nGET / HTTP/1.1"
            )
        )
        header = encode_proxy_header(2, ProxyInfo("192.0.2.1", 40000, "127.0.0.1", 1100))
        self.assertTrue(self.forwarded(2).startswith(header + b"GET / HTTP/1.1"))

    def test_client_behind_trusted_proxy(self) -> None:
        """The header has the address that a trusted proxy gives, and no port."""
        request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
        sent = self.forwarded(1, request, trusted_proxies=("192.0.2.0/24",))
        self.assertTrue(sent.startswith(b"PROXY TCP4 203.0.113.7 127.0.0.1 0 1100\r\n"))

    def test_health_checks_send_header(self) -> None:
        """A health check begins with a header without addresses."""
        for version in (1, 2):
            reactor = MemoryReactorClock()
            settings = ServerSettings(TcpAddress("192.0.2.7", 80), proxy_protocol=version)
            server = ServerSet().add(settings)
            check = Deferred.fromCoroutine(
                build_probe(HealthCheckSettings(), reactor).check(server)
            )
            transport = StringTransport()
            protocol: Any = reactor.tcpClients[-1][2].buildProtocol(None)
            protocol.makeConnection(transport)
            header = encode_proxy_header(version, None)
            self.assertTrue(transport.value().startswith(header + b"GET / HTTP/1.1\r\n"))
            check.cancel()
            self.failureResultOf(check)
