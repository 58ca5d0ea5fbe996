"""Networks as text."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.networks import parse_network


class ParseNetworkTests(SynchronousTestCase):
    """CIDR texts and `unix:`."""

    def test_parse_network(self) -> None:
        """Networks are normalized; anything else is rejected."""
        self.assertEqual(parse_network("10.1.2.3/8"), "10.0.0.0/8")
        self.assertEqual(parse_network("unix:"), "unix:")
        for invalid in ("", "unix", "10.0.0.0/33", "example.org", "10.0.0.0/8/8"):
            self.assertRaises(ValueError, parse_network, invalid)
