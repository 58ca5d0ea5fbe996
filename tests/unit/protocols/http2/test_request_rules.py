"""Fields of requests (RFC 9113, 8.2 and 8.3), and what becomes of them in HTTP/1.1."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http2.request_fields import (
    ExtendedConnect,
    FieldSection,
    RequestFieldsError,
    RequestInterpreter,
    TrailerSection,
)
from tests.fuzz.http2_target import BASE, check_fields

Fields = list[tuple[bytes, bytes]]
CONNECT: Fields = [(b":method", b"CONNECT"), (b":protocol", b"websocket"), *BASE[1:]]

NAMES = st.sampled_from(
    (
        *(b":method", b":scheme", b":authority", b":path", b":protocol", b":status", b"host"),
        *(b"content-length", b"transfer-encoding", b"te", b"cookie", b"connection", b"expect"),
        *(b"upgrade", b"x-forwarded-for", b"trailer", b"x_a", b"X", b"", b"a b", b"max-forwards"),
    )
)
VALUES = st.one_of(
    st.sampled_from(
        (
            *(b"GET", b"POST", b"OPTIONS", b"CONNECT", b"https", b"http", b"/", b"*", b"/a?b"),
            *(b"example.org", b"example.org:443", b"[::1]", b"3", b"3, 3", b"+3", b"trailers"),
            *(b"chunked", b"100-continue", b"a\r\nb: c", b"a\nb", b"a\0", b" a", b"a\t", b""),
            *(b"http://other/", b"/ HTTP/1.1\r\nX: y", b"user@example.org", b"\xff", b"a;b=1"),
        )
    ),
    st.binary(max_size=12),
)


def interpret(fields: Fields, secure: bool = True) -> FieldSection:
    """Interpret `fields` as received with or without TLS."""
    return RequestInterpreter(RequestHeadParser(secure), secure).interpret(fields)


def forwarded(fields: Fields) -> bytes:
    """Return the HTTP/1.1 text of a request."""
    section = interpret(fields)
    head = section.head if isinstance(section, ExtendedConnect) else section
    assert isinstance(head, RequestHead)
    return head.forward_bytes


class PropertyTests(SynchronousTestCase):
    """Nothing that h11 refuses, or reads as another request, is forwarded."""

    @given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
    def test_fields_behind_a_valid_request(self, fields: Fields) -> None:
        """Additional fields are rejected, or forwarded in a request that h11 reads the same."""
        check_fields([*BASE, *fields])

    @given(st.lists(st.tuples(NAMES, VALUES), max_size=8))
    def test_any_fields(self, fields: Fields) -> None:
        """Any list of fields is rejected, or forwarded likewise."""
        check_fields(fields)

    @given(st.tuples(*(st.one_of(st.just(value), VALUES) for _, value in BASE)))
    def test_pseudo_fields(self, values: tuple[bytes, ...]) -> None:
        """Any values of the pseudo-fields are rejected, or forwarded likewise."""
        check_fields([(name, value) for (name, _), value in zip(BASE, values)])

    def test_the_properties_can_hold(self) -> None:
        """A valid request is accepted."""
        self.assertTrue(check_fields([*BASE, (b"accept", b"*/*")]))


class RuleTests(SynchronousTestCase):
    """Each rule for itself."""

    MALFORMED: tuple[tuple[str, Fields], ...] = (
        ("upper-case name", [*BASE, (b"Accept", b"x")]),
        ("empty name", [*BASE, (b"", b"x")]),
        ("name with a colon", [*BASE, (b"a:b", b"x")]),
        ("name with a space", [*BASE, (b"a b", b"x")]),
        ("CR in a value", [*BASE, (b"x", b"a\rb")]),
        ("LF in a value", [*BASE, (b"x", b"a\nb")]),
        ("NUL in a value", [*BASE, (b"x", b"a\0b")]),
        ("space before a value", [*BASE, (b"x", b" a")]),
        ("tab behind a value", [*BASE, (b"x", b"a\t")]),
        *((name.decode(), [*BASE, (name, b"x")]) for name in (b"connection", b"keep-alive")),
        *((name.decode(), [*BASE, (name, b"x")]) for name in (b"upgrade", b"proxy-connection")),
        ("transfer-encoding", [*BASE, (b"transfer-encoding", b"chunked")]),
        ("te other than trailers", [*BASE, (b"te", b"trailers, gzip")]),
        ("no :method", list(BASE[1:])),
        ("no :scheme", [BASE[0], *BASE[2:]]),
        ("no :path", list(BASE[:3])),
        ("empty :path", [*BASE[:3], (b":path", b"")]),
        (":path without slash", [*BASE[:3], (b":path", b"http://a/")]),
        (":path of a space", [*BASE[:3], (b":path", b"/ x")]),
        ("* with GET", [*BASE[:3], (b":path", b"*")]),
        ("empty :authority", [*BASE[:2], (b":authority", b""), BASE[3]]),
        ("repeated pseudo-field", [*BASE, BASE[3]]),
        ("late pseudo-field", [*BASE[:3], (b"x", b"y"), BASE[3]]),
        ("unknown pseudo-field", [*BASE, (b":x", b"y")]),
        (":status", [*BASE, (b":status", b"200")]),
        (":protocol without CONNECT", [*BASE, (b":protocol", b"websocket")]),
        ("CONNECT with :path", [(b":method", b"CONNECT"), *BASE[1:]]),
        ("Host contradicts :authority", [*BASE, (b"host", b"other.org")]),
        ("two Host", [*BASE, (b"host", b"example.org"), (b"host", b"example.org")]),
        ("content of extended CONNECT", [*CONNECT, (b"content-length", b"5")]),
    )

    def test_malformed(self) -> None:
        """What RFC 9113 calls malformed is rejected as such."""
        for name, fields in self.MALFORMED:
            with self.subTest(name):
                error = self.assertRaises(RequestFieldsError, interpret, fields)
                self.assertTrue(error.malformed, name)
                self.assertEqual(error.status, 400)

    def test_https_without_tls(self) -> None:
        """An https resource needs TLS; http may be requested over both."""
        self.assertRaises(RequestFieldsError, interpret, list(BASE), secure=False)
        http = [(n, b"http" if n == b":scheme" else v) for n, v in BASE]
        interpret(http, secure=False)
        interpret(http, secure=True)

    def test_host_of_the_same_authority(self) -> None:
        """Host may repeat :authority, also with the default port, and is forwarded once."""
        for host in (b"example.org", b"EXAMPLE.org", b"example.org:443"):
            text = forwarded([*BASE, (b"host", host)])
            self.assertEqual(text, b"GET / HTTP/1.1\r\nHost: example.org\r\n")

    def test_host_without_authority(self) -> None:
        """Host alone is forwarded; without both, the request is rejected."""
        fields = [BASE[0], BASE[1], BASE[3]]
        self.assertIn(b"\r\nHost: a\r\n", forwarded([*fields, (b"host", b"a")]))
        self.assertRaises(RequestFieldsError, interpret, fields)

    def test_cookies(self) -> None:
        """Crumbs are joined in order, wherever they were."""
        fields = [*BASE, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2; c=3")]
        self.assertIn(b"\r\ncookie: a=1; b=2; c=3\r\n", forwarded(fields))

    def test_content_length(self) -> None:
        """Lengths are as strict as in HTTP/1.1."""
        section = interpret([*BASE, (b"content-length", b"3")])
        assert isinstance(section, RequestHead)
        self.assertEqual(section.length, 3)
        for value in (b"+3", b"3, 3", b"-1", b"0x3", b"9" * 30, b""):
            fields = [*BASE, (b"content-length", value)]
            self.assertRaises(RequestFieldsError, interpret, fields)

    def test_extended_connect(self) -> None:
        """A WebSocket becomes an upgrade; a key of the client is not forwarded."""
        text = forwarded([*CONNECT, (b"sec-websocket-key", b"x")])
        self.assertTrue(text.startswith(b"GET / HTTP/1.1\r\nHost: example.org\r\n"))
        self.assertNotIn(b"sec-websocket-key", text.lower())
        other = [CONNECT[0], (b":protocol", b"connect-udp"), *CONNECT[2:]]
        error = self.assertRaises(RequestFieldsError, interpret, other)
        self.assertEqual((error.status, error.malformed), (501, False))

    def test_trailers(self) -> None:
        """Trailers without pseudo-fields keep only what may be in a trailer section."""
        section = interpret([(b"x-sum", b"1"), (b"content-length", b"3"), (b"host", b"a")])
        self.assertEqual(section, TrailerSection(b"x-sum: 1\r\n"))
        self.assertRaises(RequestFieldsError, interpret, [(b"X", b"1")])
