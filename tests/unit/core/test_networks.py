"""Networks as text, and sets of them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.networks import UNIX_PEER, NetworkSet, parse_network


class ParseNetworkTests(SynchronousTestCase):
    """Networks in configurations."""

    def test_networks_are_normalized(self) -> None:
        """Host bits are cleared, and `unix:` is a network of its own."""
        self.assertEqual(parse_network("10.1.2.3/8"), "10.0.0.0/8")
        self.assertEqual(parse_network("unix:"), "unix:")

    def test_invalid_networks(self) -> None:
        """A text that is not a network raises `ValueError`."""
        for text in ("", "unix", "10.0.0.0/33", "example.org", "10.0.0.0/8/8"):
            self.assertRaises(ValueError, parse_network, text)


class NetworkSetTests(SynchronousTestCase):
    """Membership of peers."""

    def test_contains(self) -> None:
        """Peers are matched by address, mapped IPv4 as IPv4, and never by name."""
        networks = NetworkSet(("10.0.0.0/8", "2001:db8::/32"))
        for peer, contained in (
            ("10.1.2.3", True),
            ("::ffff:10.1.2.3", True),
            ("2001:db8::1", True),
            ("192.0.2.1", False),
            ("2001:db9::1", False),
            ("example.org", False),
            (UNIX_PEER, False),
        ):
            # The second result is cached.
            for _ in range(2):
                self.assertEqual(networks.contains(peer), contained, msg=peer)

    def test_unix_peers(self) -> None:
        """`unix:` contains peers on Unix sockets, and no others."""
        networks = NetworkSet(("unix:",))
        self.assertTrue(networks.contains(UNIX_PEER))
        self.assertFalse(networks.contains("10.0.0.1"))

    def test_empty(self) -> None:
        """An empty set is false, and contains nothing."""
        self.assertFalse(NetworkSet(()))
        self.assertFalse(NetworkSet(()).contains("10.0.0.1"))
        self.assertTrue(NetworkSet(("10.0.0.0/8",)))
        self.assertTrue(NetworkSet(("unix:",)))
