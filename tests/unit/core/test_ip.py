"""IP addresses as text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.ip import normalize_ip, pack_address


class IpTests(SynchronousTestCase):
    """One normal form for each address."""

    def test_normalize_ip(self) -> None:
        """Spellings of an address become one; zones and names are invalid."""
        for text, address in (
            ("192.0.2.1", "192.0.2.1"),
            ("2001:DB8:0::1", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::ffff:c000:201", "192.0.2.1"),
            ("fe80::1%eth0", None),
            ("192.0.2", None),
            ("example.org", None),
            ("\u0661.2.3.4", None),
            ("", None),
        ):
            self.assertEqual(normalize_ip(text), address, msg=text)

    def test_pack_address(self) -> None:
        """An address takes 4 or 16 bytes; another peer is its name."""
        self.assertEqual(pack_address("192.0.2.1"), b"\xc0\x00\x02\x01")
        self.assertEqual(pack_address("::ffff:192.0.2.1"), b"\xc0\x00\x02\x01")
        self.assertEqual(len(pack_address("2001:db8::1")), 16)
        self.assertEqual(pack_address("unknown"), b"unknown")
