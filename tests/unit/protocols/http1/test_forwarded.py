"""X-Forwarded-For and Forwarded (RFC 7239), parsed from the right."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for, parse_node


class ForwardedChainTests(SynchronousTestCase):
    """The chain of addresses, the nearest first."""

    def test_parse_node(self) -> None:
        """A node is an IP address with an optional port; anything else is `None`."""
        for text, address in (
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:8080", "192.0.2.1"),
            ("2001:DB8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("", None),
            ("unknown", None),
            ("_hidden", None),
            ("192.0.2", None),
            ("192.0.2.256", None),
            ("192.0.2.01", None),
            ("192.0.2.1:port", None),
            ("2001:db8::1%eth0", None),
            ("[192.0.2.1", None),
            ("example.org", None),
            ("\u0661\u0669\u0662.0.2.1", None),
        ):
            self.assertEqual(parse_node(text), address, msg=text)

    def test_x_forwarded_for(self) -> None:
        """X-Forwarded-For is parsed from the right."""
        self.assertEqual(
            list(iter_x_forwarded_for(b"nonsense, 192.0.2.1 ,2001:db8::1")),
            ["2001:db8::1", "192.0.2.1", None],
        )

    def test_forwarded(self) -> None:
        """Forwarded is parsed from the right; invalid elements are `None`."""
        for value, expected in (
            (b"for=192.0.2.1", ["192.0.2.1"]),
            (b'For="[2001:db8::1]:4711"', ["2001:db8::1"]),
            (b"for=192.0.2.1;proto=http;by=203.0.113.43", ["192.0.2.1"]),
            (b"by=203.0.113.43 ; for=192.0.2.1", ["192.0.2.1"]),
            (b"for=192.0.2.1, for=198.51.100.2", ["198.51.100.2", "192.0.2.1"]),
            (b"for=unknown", [None]),
            (b"for=_hidden", [None]),
            (b"proto=http", [None]),
            (b"for=192.0.2.1;for=192.0.2.2", [None]),
            # RFC 7239, 4: an IPv6 address has to be quoted.
            (b"for=[2001:db8::1]", [None]),
            # Malformed elements on the left do not affect the elements before them.
            (b'for="x, for=192.0.2.1', ["192.0.2.1", None]),
            (b'"";;,=, for=192.0.2.1', ["192.0.2.1", None, None]),
            (b"", []),
            (b",", [None]),
            (b"for=192.0.2.1, ", [None, "192.0.2.1"]),
        ):
            self.assertEqual(list(iter_forwarded(value)), expected, msg=repr(value))

    @settings(max_examples=200, deadline=None)
    @given(st.binary(max_size=60))
    def test_forged_values_do_not_change_the_last_element(self, forged: bytes) -> None:
        """Whatever a client sends, the element that the proxy appended is parsed first."""
        self.assertEqual(next(iter_x_forwarded_for(forged + b", 192.0.2.1")), "192.0.2.1")
        self.assertEqual(next(iter_forwarded(forged + b", for=192.0.2.1")), "192.0.2.1")
