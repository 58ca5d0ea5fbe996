"""Socket addresses and the IP address of a peer."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.addresses import peer_ip, twisted_address


class PeerIpTests(SynchronousTestCase):
    """The IP address by which a peer is known to servers, limits and logs."""

    def test_peer_ip(self) -> None:
        """Zones are dropped, mapped IPv4 is unmapped, other peers are "unknown"."""
        for peer, text in (
            (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
            (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::1"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
            (UNIXAddress(b"/x"), "unknown"),
        ):
            self.assertEqual(peer_ip(peer), text)


class TwistedAddressTests(SynchronousTestCase):
    """Addresses of sockets as Twisted's objects."""

    def test_family(self) -> None:
        """Two items make an IPv4 address, four an IPv6 address."""
        self.assertEqual(twisted_address(("192.0.2.1", 1)), IPv4Address("TCP", "192.0.2.1", 1))
        self.assertEqual(
            twisted_address(("2001:db8::1", 1, 0, 0)), IPv6Address("TCP", "2001:db8::1", 1)
        )
