"""Functions of the HTTP/1.1 grammar."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.grammar import list_items, parse_content_length


class ListItemsTests(SynchronousTestCase):
    """Comma-separated lists (RFC 9110, 5.6.1)."""

    def test_items(self) -> None:
        """Items are in lower case, without whitespace around them; empty ones are ignored."""
        cases: dict[bytes, list[bytes]] = {
            b"": [],
            b" , ,": [],
            b"Close": [b"close"],
            b"a,B ,\tc": [b"a", b"b", b"c"],
            b",a,,b,": [b"a", b"b"],
            b"a b": [b"a b"],
        }
        for value, items in cases.items():
            self.assertEqual(list_items(value), items, msg=repr(value))


class ContentLengthTests(SynchronousTestCase):
    """The value of Content-Length (RFC 9110, 8.6)."""

    def test_valid(self) -> None:
        """Any decimal number below 2^63 is valid, with leading zeros up to 19 digits."""
        for value in (b"0", b"5", b"05", b"0" * 18 + b"5", b"9223372036854775807"):
            self.assertEqual(parse_content_length(value), int(value), msg=repr(value))

    def test_invalid(self) -> None:
        """Signs, other notations, longer and larger numbers give `None`."""
        for value in (
            *(b"", b" 5", b"+5", b"-5", b"5_0", b"0x5", b"5.0", b"5,5", b"\xb2", b"\xd9\xa5"),
            *(b"9223372036854775808", b"0" * 19 + b"5", b"9" * 5000),
        ):
            self.assertIsNone(parse_content_length(value), msg=repr(value))
