"""Client connections that begin with a PROXY header."""

from __future__ import annotations

from twisted.internet.address import IPv4Address

from balancebeam.downstream.proxy_protocol import ProxyProtocolFactory
from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

IPV4 = ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 80)
IPV6 = ProxyInfo("2001:db8::7", 4711, "2001:db8::80", 80)


class ProxyProtocolTests(BalancerTestCase):
    """A listener that requires a PROXY header."""

    def connect(self, balancer: MemoryBalancer) -> Peer:
        """Connect a client to the listener."""
        factory = ProxyProtocolFactory(balancer.service.default_frontend.factory)
        peer = Peer(factory.buildProtocol(IPv4Address("TCP", "10.0.0.1", 40000)))
        balancer.peers.append(peer)
        self.factory = factory
        return peer

    def send(self, peer: Peer, data: bytes) -> None:
        """Deliver `data` as a transport does, to its current protocol."""
        peer.transport.bytes_received += len(data)
        peer.transport.protocol.dataReceived(data)

    def test_client_address(self) -> None:
        """The source address in the header is the client's."""
        for version in (1, 2):
            balancer = self.balancer()
            peer = self.connect(balancer)
            self.send(peer, encode_proxy_header(version, IPV4) + GET)
            server = balancer.accept()
            self.assertIn(b"X-Forwarded-For: 203.0.113.7\r\n", server.received())
            server.send(OK)
            self.assertIn(b"200 OK", peer.received())
            self.assertFalse(self.factory.handshakes)

    def test_byte_by_byte(self) -> None:
        """A header and a request are accepted in single bytes."""
        balancer = self.balancer()
        peer = self.connect(balancer)
        for byte in encode_proxy_header(1, IPV6) + GET:
            self.send(peer, bytes((byte,)))
        self.assertIn(b"X-Forwarded-For: 2001:db8::7\r\n", balancer.accept().received())

    def test_local_command(self) -> None:
        """A header without addresses leaves the peer's address."""
        balancer = self.balancer()
        peer = self.connect(balancer)
        self.send(peer, encode_proxy_header(2, None) + GET)
        self.assertIn(b"X-Forwarded-For: 10.0.0.1\r\n", balancer.accept().received())

    def test_missing_header(self) -> None:
        """A connection without a header is aborted, and nothing of it is served."""
        balancer = self.balancer()
        peer = self.connect(balancer)
        self.send(peer, GET)
        self.assertTrue(peer.transport.aborted)
        self.send(peer, encode_proxy_header(1, IPV4))
        self.assertEqual(balancer.connectors, [])

    def test_header_timeout(self) -> None:
        """A connection whose header is incomplete is aborted at the timeout."""
        balancer = self.balancer()
        peer = self.connect(balancer)
        self.send(peer, b"PROXY ")
        balancer.advance(12)
        self.assertTrue(peer.transport.aborted)

    def test_byte_counts(self) -> None:
        """Bytes count once: of a valid header with its request, and of one that is incomplete."""
        balancer = self.balancer()
        header = encode_proxy_header(2, IPV4)
        frontend = balancer.service.default_frontend.factory
        for pieces in ((header[:5], header[5:] + GET), (b"PROXY ",), (GET,)):
            before = frontend.byte_counts
            peer = self.connect(balancer)
            for piece in pieces:
                self.send(peer, piece)
            expected = before[0] + len(b"".join(pieces)), before[1]
            self.assertEqual(frontend.byte_counts, expected)
            peer.reset()
            self.assertEqual(frontend.byte_counts, expected)

    def test_reset_before_header(self) -> None:
        """A connection that is reset before its header leaves no handshake behind."""
        balancer = self.balancer()
        self.connect(balancer).reset()
        self.assertFalse(self.factory.handshakes)

    def test_shutdown_during_handshake(self) -> None:
        """Connections without a complete header are aborted at shutdown."""
        balancer = self.balancer()
        peer = self.connect(balancer)
        balancer.stop()
        self.assertTrue(peer.transport.aborted)
