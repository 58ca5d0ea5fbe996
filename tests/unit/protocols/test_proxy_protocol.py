"""The PROXY protocol, on both sides."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.protocols.haproxy import _v1parser, _v2parser
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import HealthCheckSettings, ServerSettings
from balancebeam.downstream.proxy_protocol import ProxyProtocolFactory
from balancebeam.protocols.proxy_protocol import (
    ProxyInfo,
    ProxyProtocolError,
    encode_proxy_header,
    parse_proxy_header,
)
from balancebeam.upstream.health.probes import build_probe
from balancebeam.upstream.server import Server
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

FOUR = ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 80)
SIX = ProxyInfo("2001:db8::7", 4711, "2001:db8::80", 80)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class ProxyHeaderTests(SynchronousTestCase):
    """Read and written."""

    def test_there_and_back(self) -> None:
        for connection in (FOUR, SIX, None):
            for version in (1, 2):
                header = encode_proxy_header(version, connection)
                self.assertEqual(parse_proxy_header(header), (connection, len(header)))
                self.assertEqual(parse_proxy_header(header + b"GET"), (connection, len(header)))

    def test_twisted_reads_the_same(self) -> None:
        for connection in (FOUR, SIX):
            line = _v1parser.V1Parser.parse(encode_proxy_header(1, connection)[:-2])
            binary = _v2parser.V2Parser.parse(encode_proxy_header(2, connection))
            for info in (line, binary):
                source: Any = info.source
                destination: Any = info.destination
                self.assertEqual(ip_address(source.host), ip_address(connection.source))
                self.assertEqual(source.port, connection.source_port)
                self.assertEqual(ip_address(destination.host), ip_address(connection.destination))

    def test_both_families_at_once(self) -> None:
        mixed = ProxyInfo("203.0.113.7", 1, "2001:db8::80", 2)
        self.assertEqual(
            encode_proxy_header(1, mixed), b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::80 1 2\r\n"
        )
        self.assertIsNotNone(parse_proxy_header(encode_proxy_header(2, mixed)))

    def test_ipv4_in_ipv6_is_ipv4(self) -> None:
        line = b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.80 4711 80\r\n"
        self.assertEqual(parse_proxy_header(line), (FOUR, len(line)))
        addresses = [ip_address(f"::ffff:{text}").packed for text in ("203.0.113.7", "192.0.2.80")]
        header = (
            SIGNATURE + b"\x21\x21\x00\x24" + b"".join(addresses) + struct.pack("!HH", 4711, 80)
        )
        self.assertEqual(parse_proxy_header(header), (FOUR, len(header)))

    def test_in_pieces(self) -> None:
        for version in (1, 2):
            header = encode_proxy_header(version, FOUR)
            for length in range(len(header)):
                self.assertIsNone(parse_proxy_header(header[:length]))

    def test_what_tells_nothing(self) -> None:
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
            SIGNATURE + b"\x20\x00\x00\x00",
            SIGNATURE + b"\x20\x11\x00\x02ab",
            SIGNATURE + b"\x21\x00\x00\x03abc",
            SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + b"/" * 216,
        ):
            self.assertEqual(parse_proxy_header(header), (None, len(header)), msg=repr(header))

    def test_more_than_addresses(self) -> None:
        addresses = encode_proxy_header(2, FOUR)[16:] + b"\x03\x00\x04abcd"
        header = SIGNATURE + b"\x21\x11" + struct.pack("!H", len(addresses)) + addresses
        self.assertEqual(parse_proxy_header(header), (FOUR, len(header)))

    def test_nonsense(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"\r\n\r\nGET",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
            b"PROXY TCP6 ::1%eth0 ::1 1 2\r\n",
            b"PROXY TCP6 ::1%a\nX:y ::1 1 2\r\n",
            b"PROXY TCP6 ::1%\xe9 ::1 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 \xb2 2\r\n",
            b"PROXY " + b"x" * 200,
            SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
            SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x11\xff\xff",
        ):
            self.assertRaises(ProxyProtocolError, parse_proxy_header, data)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(SIGNATURE.__add__)))
    def test_anything_at_all(self, data: bytes) -> None:
        try:
            parse_proxy_header(data)
        except ProxyProtocolError:
            return


class ProxyProtocolDownstreamTests(BalancerTestCase):
    """Connections that begin with a header."""

    def arrive(self, balancer: MemoryBalancer) -> Peer:
        """Somebody who connects where a header is expected."""
        site = ProxyProtocolFactory(balancer.service.default_frontend.factory)
        peer = Peer(site.buildProtocol(IPv4Address("TCP", "10.0.0.1", 40000)))
        balancer.peers.append(peer)
        self.site = site
        return peer

    def send(self, peer: Peer, data: bytes) -> None:
        """As the transport does: to whoever is its protocol by now."""
        peer.transport.protocol.dataReceived(data)

    def test_who_the_client_is(self) -> None:
        for version in (1, 2):
            balancer = self.balancer()
            peer = self.arrive(balancer)
            self.send(peer, encode_proxy_header(version, FOUR) + GET)
            server = balancer.accept()
            self.assertIn(b"X-Forwarded-For: 203.0.113.7\r\n", server.received())
            server.send(OK)
            self.assertIn(b"200 OK", peer.received())
            peer.protocol = peer.transport.protocol
            self.assertFalse(self.site.handshakes)

    def test_in_pieces(self) -> None:
        balancer = self.balancer()
        peer = self.arrive(balancer)
        for octet in encode_proxy_header(1, SIX) + GET:
            self.send(peer, bytes((octet,)))
        self.assertIn(b"X-Forwarded-For: 2001:db8::7\r\n", balancer.accept().received())
        peer.protocol = peer.transport.protocol

    def test_a_check_by_the_proxy_itself(self) -> None:
        balancer = self.balancer()
        peer = self.arrive(balancer)
        self.send(peer, encode_proxy_header(2, None) + GET)
        self.assertIn(b"X-Forwarded-For: 10.0.0.1\r\n", balancer.accept().received())
        peer.protocol = peer.transport.protocol

    def test_nobody_is_let_in_without(self) -> None:
        balancer = self.balancer()
        peer = self.arrive(balancer)
        self.send(peer, GET)
        self.assertTrue(peer.transport.aborted)
        self.send(peer, encode_proxy_header(1, FOUR))
        self.assertEqual(balancer.connectors, [])

    def test_too_slow(self) -> None:
        balancer = self.balancer()
        peer = self.arrive(balancer)
        self.send(peer, b"PROXY ")
        balancer.advance(12)
        self.assertTrue(peer.transport.aborted)

    def test_gone_before_it_said_anything(self) -> None:
        balancer = self.balancer()
        self.arrive(balancer).reset()
        self.assertFalse(self.site.handshakes)

    def test_the_balancer_stops(self) -> None:
        balancer = self.balancer()
        peer = self.arrive(balancer)
        balancer.stop()
        self.assertTrue(peer.transport.aborted)


class ProxyProtocolUpstreamTests(BalancerTestCase):
    """Servers that want to know."""

    def told(self, version: int, request: bytes = GET, **options: Any) -> bytes:
        """What such a server is sent."""
        balancer = self.balancer(servers=0, **options)
        address = TcpAddress("10.0.0.1", 80)
        balancer.service.server_set.add(ServerSettings(address, proxy_protocol=version))
        client = balancer.client()
        client.send(request)
        server = balancer.accept()
        sent = server.received()
        server.send(OK)
        self.assertIn(b"200 OK", client.received())
        # Its next request may be another client's.
        self.assertTrue(server.transport.closing)
        return sent

    def test_the_client_and_where_it_is_connected(self) -> None:
        self.assertTrue(
            self.told(1).startswith(b"PROXY TCP4 192.0.2.1 127.0.0.1 40000 1100\r\nGET / HTTP/1.1")
        )
        header = encode_proxy_header(2, ProxyInfo("192.0.2.1", 40000, "127.0.0.1", 1100))
        self.assertTrue(self.told(2).startswith(header + b"GET / HTTP/1.1"))

    def test_a_client_behind_a_trusted_proxy(self) -> None:
        request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n")
        sent = self.told(1, request, trusted_proxies=("192.0.2.0/24",))
        self.assertTrue(sent.startswith(b"PROXY TCP4 203.0.113.7 127.0.0.1 0 1100\r\n"))

    def test_checks_greet_too(self) -> None:
        for version in (1, 2):
            reactor = MemoryReactorClock()
            server = Server(ServerSettings(TcpAddress("192.0.2.7", 80), proxy_protocol=version))
            asking = Deferred.fromCoroutine(
                build_probe(HealthCheckSettings(), reactor).check(server)
            )
            transport = StringTransport()
            protocol: Any = reactor.tcpClients[-1][2].buildProtocol(None)
            protocol.makeConnection(transport)
            greeting = encode_proxy_header(version, None)
            self.assertTrue(transport.value().startswith(greeting + b"GET / HTTP/1.1\r\n"))
            asking.cancel()
            self.failureResultOf(asking)
