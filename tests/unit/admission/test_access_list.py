"""Access lists."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admission.access_list import AccessList

CLIENT = "203.0.113.7"


class AccessListTests(SynchronousTestCase):
    """Allowed and denied networks."""

    def test_allow_and_deny(self) -> None:
        """A client must be in `allow` if that is not empty, and must not be in `deny`."""
        for allow, deny, client, allowed in (
            ((), (), CLIENT, True),
            (("203.0.113.0/24",), (), CLIENT, True),
            (("203.0.113.0/24",), (), "198.51.100.1", False),
            (("203.0.113.0/24",), (), "unknown", False),
            ((), ("203.0.113.0/24",), CLIENT, False),
            ((), ("203.0.113.0/24",), "198.51.100.1", True),
            (("203.0.113.0/24",), ("203.0.113.7",), CLIENT, False),
            (("2001:db8::/32",), (), "2001:db8::1", True),
        ):
            self.assertEqual(AccessList(allow, deny).allows(client), allowed, msg=client)
