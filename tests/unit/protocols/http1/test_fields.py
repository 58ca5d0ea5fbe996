"""Field lines: parsing, classification and caching."""

from __future__ import annotations

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1 import fields as f

ACCEPT = b"Accept: text/html"
HOST = b"Host: example.org"
COOKIE = b"Cookie: secret=1"


def is_valid(line: bytes) -> bool:
    """Whether a line is a valid field line of a request."""
    try:
        f.parse_field(line, f.REQUEST_KINDS)
    except f.FieldError:
        return False
    return True


class FieldLineTests(SynchronousTestCase):
    """One field line: name, value and kind."""

    def test_name_and_value(self) -> None:
        """The name is in lower case, the value without whitespace around it."""
        line = b"X-Thing: \t some value\t "
        field = f.parse_field(line, f.REQUEST_KINDS)
        self.assertEqual(field, f.Field(f.PLAIN, b"x-thing", b"some value", line))

    def test_valid_lines(self) -> None:
        """Values may be empty, and contain tabs and bytes above 0x7f."""
        cases = [
            (b"X:", b""),
            (b"X: ", b""),
            (b"X:y", b"y"),
            (b"X: a:b", b"a:b"),
            (b"X: a\tb", b"a\tb"),
            (b"X: \xc3\xa4\xff", b"\xc3\xa4\xff"),
            (b"!#$%&'*+-.^_`|~09aZ: token", b"token"),
        ]
        for line, value in cases:
            self.assertEqual(f.parse_field(line, f.REQUEST_KINDS).value, value, msg=repr(line))

    def test_invalid_lines(self) -> None:
        """Lines that do not match the grammar of RFC 9112, 5 are rejected."""
        cases = [
            b"",
            b" ",
            b"no colon",
            b": empty name",
            b" X: leading blank",
            b"\tX: leading tab",
            b"X : blank before the colon",
            b"X\t: tab before the colon",
            b"X Y: blank in the name",
            b"X(: invalid byte in the name",
            b"X\x00: NUL in the name",
            b"\xc3\xa4: not ASCII in the name",
            b"X: NUL \x00",
            b"X: bell \x07",
            b"X: DEL \x7f",
            b"X: bare CR \r y",
            b"X: bare LF \n y",
            b"X: LF at the end\n",
        ]
        for line in cases:
            self.assertFalse(is_valid(line), msg=repr(line))

    def test_control_characters_in_values(self) -> None:
        """Of all control characters, a value may contain only HTAB."""
        for byte in range(256):
            allowed = byte == 0x09 or (byte >= 0x20 and byte != 0x7F)
            line = b"X: a" + bytes([byte]) + b"b"
            self.assertEqual(is_valid(line), allowed, msg=repr(line))

    def test_kinds_of_request_fields(self) -> None:
        """Request fields are classified by name, in any case."""
        cases = {
            b"Host: a": f.HOST,
            b"hOST: a": f.HOST,
            b"CONTENT-LENGTH: 1": f.CONTENT_LENGTH,
            b"Transfer-Encoding: chunked": f.TRANSFER_ENCODING,
            b"Connection: close": f.CONNECTION,
            b"Keep-Alive: 5": f.HOP_BY_HOP,
            b"Proxy-Connection: keep-alive": f.HOP_BY_HOP,
            b"Proxy-Authorization: x": f.HOP_BY_HOP,
            b"HTTP2-Settings: x": f.HOP_BY_HOP,
            b"Upgrade: websocket": f.UPGRADE,
            b"TE: trailers": f.TE,
            b"Trailer: x": f.TRAILER,
            b"Expect: 100-continue": f.EXPECT,
            b"X-Forwarded-For: 192.0.2.1": f.FORWARDED_FOR,
            b"X-Forwarded-Proto: https": f.FORWARDED_PROTO,
            b"X-Forwarded-Host: a": f.FORWARDED_HOST,
            b"Client-Cert: :MQ==:": f.CLIENT_CERT,
            b"CLIENT-CERT-CHAIN: :MQ==:, :Mg==:": f.CLIENT_CERT,
            b"Client-Certificate: a": f.PLAIN,
            b"Max-Forwards: 1": f.MAX_FORWARDS,
            b"Cookie: a": f.CREDENTIAL,
            b"Authorization: a": f.CREDENTIAL,
            b"Date: now": f.PLAIN,
            b"User-Agent: x": f.PLAIN,
        }
        for line, kind in cases.items():
            self.assertEqual(f.parse_field(line, f.REQUEST_KINDS).kind, kind, msg=repr(line))

    def test_kinds_of_response_fields(self) -> None:
        """Response fields are classified by name, in any case."""
        cases = {
            b"Set-Cookie: a": f.CREDENTIAL,
            b"WWW-Authenticate: a": f.CREDENTIAL,
            b"Authentication-Info: a": f.CREDENTIAL,
            b"date: now": f.DATE,
            b"DATE: now": f.DATE,
            # `ResponseHeadParser` searches the whole head for it.
            b"Date: now": f.PLAIN,
            b"Server: x": f.PLAIN,
            b"Host: not a request, so anything": f.PLAIN,
        }
        for line, kind in cases.items():
            self.assertEqual(f.parse_field(line, f.RESPONSE_KINDS).kind, kind, msg=repr(line))

    def test_valid_hosts(self) -> None:
        """Host may have a name, an address, a port, or be empty."""
        for value in (
            b"",
            b"a",
            b"a:",
            b"a:80",
            b"A.example.ORG:65535",
            b"under_score.example",
            b"192.0.2.1:8080",
            b"[2001:db8::1]",
            b"[::ffff:192.0.2.1]:80",
            b"%C3%A4.example",
        ):
            self.assertTrue(is_valid(b"Host: " + value), msg=repr(value))

    def test_invalid_hosts(self) -> None:
        """Host values that are not a host with an optional port are rejected."""
        for value in (
            b"a b",
            b"a,b",
            b"a/b",
            b"a;b",
            b"user@a",
            b"a?b",
            b"a#b",
            b"a\\b",
            b'"a"',
            b"a:b",
            b"a:123456",
            b"a:80:80",
            b"::1",
            b"[::1",
            b"[]",
            b"[::1]x",
            b"\xc3\xa4",
        ):
            self.assertFalse(is_valid(b"Host: " + value), msg=repr(value))

    def test_underscore_aliases_of_framing_fields_are_rejected(self) -> None:
        """A request field like Content_Length is rejected."""
        for line in (b"Content_Length: 1", b"CONTENT_LENGTH: 1", b"Transfer_Encoding: chunked"):
            self.assertFalse(is_valid(line), msg=repr(line))

    def test_underscore_aliases_of_other_special_fields_are_removed(self) -> None:
        """A request field like X_Forwarded_For is not forwarded."""
        for line in (
            b"X_Forwarded_For: 192.0.2.1",
            b"X-Forwarded_For: 192.0.2.1",
            b"X_Forwarded_Proto: https",
            b"X_Forwarded_Host: a",
            b"Client_Cert: :MQ==:",
            b"client_cert-CHAIN: :MQ==:",
            b"Proxy_Authorization: a",
            b"Keep_Alive: 1",
        ):
            self.assertEqual(
                f.parse_field(line, f.REQUEST_KINDS).kind, f.HOP_BY_HOP, msg=repr(line)
            )

    def test_underscore_aliases_in_responses_are_plain(self) -> None:
        """Underscores have no special meaning in response fields."""
        for line in (b"Set_Cookie: a", b"Content_Length: 1", b"Proxy_Authenticate: Basic"):
            self.assertEqual(f.parse_field(line, f.RESPONSE_KINDS).kind, f.PLAIN, msg=repr(line))

    def test_underscore_in_other_names(self) -> None:
        """A name with an underscore that resembles no special field is plain."""
        self.assertEqual(f.parse_field(b"My_Field: 1", f.REQUEST_KINDS).kind, f.PLAIN)


class FieldKindTests(SynchronousTestCase):
    """The kinds of fields."""

    def test_representation(self) -> None:
        """A field shows the name of its kind."""
        field = f.parse_field(b"TE: trailers", f.REQUEST_KINDS)
        self.assertIn("FieldKind.TE", repr(field))

    def test_kinds_are_unique_keys(self) -> None:
        """Kinds are different from each other, and keys of dictionaries."""
        self.assertEqual(len({kind: kind.name for kind in f.FieldKind}), len(f.FieldKind))


class FieldRemovalTests(SynchronousTestCase):
    """Removing lines from a head."""

    HEAD = b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nA: 1\r\nAA: 1\r\n"

    def test_each_line_is_removed_once(self) -> None:
        """A line in the list removes its first occurrence only."""
        self.assertEqual(
            f.remove_lines(self.HEAD, [b"A: 1"]), b"GET / HTTP/1.1\r\nB: 2\r\nA: 1\r\nAA: 1\r\n"
        )

    def test_adjacent_and_repeated_lines(self) -> None:
        """Adjacent lines and repeated lines are removed."""
        self.assertEqual(
            f.remove_lines(self.HEAD, [b"A: 1", b"B: 2", b"A: 1"]), b"GET / HTTP/1.1\r\nAA: 1\r\n"
        )

    def test_only_whole_field_lines_are_removed(self) -> None:
        """Parts of lines and the first line are not removed."""
        self.assertEqual(f.remove_lines(self.HEAD, [b"A: ", b": 1", b"GET / HTTP/1.1"]), self.HEAD)


class FieldLineCacheTests(SynchronousTestCase):
    """The cache of field lines, and what it must not hold."""

    def cache(self, entries: int = 4096, max_bytes: int = 1 << 19) -> f.FieldLineCache:
        """Return an empty cache for request fields."""
        return f.FieldLineCache(f.REQUEST_KINDS, entries, max_bytes)

    def test_special_fields_in_order(self) -> None:
        """Special fields are returned in order, plain ones are not, cached or not."""
        cache = self.cache()
        lines = [COOKIE, ACCEPT, HOST, b"Connection: close"]
        for _ in range(3):
            fields = cache.special_fields(lines)
            self.assertEqual([field.line for field in fields], [COOKIE, HOST, b"Connection: close"])

    def test_invalid_line_is_rejected_every_time(self) -> None:
        """A rejected line is not cached."""
        cache = self.cache()
        for _ in range(3):
            self.assertRaises(f.FieldError, cache.special_fields, [ACCEPT, b"Broken : 1"])

    def test_cached_name_with_invalid_value(self) -> None:
        """A cached field name does not let an invalid value or name pass."""
        cache = self.cache()
        cache.special_fields([b"Accept: good"])
        for line in (b"Accept: \x00", b"Accept: a\rb", b"Accept: a\nb", b"Accept : a"):
            self.assertRaises(f.FieldError, cache.special_fields, [line])
            self.assertFalse(cache.contains_all([line]), msg=repr(line))

    def test_plain_lines_and_host_are_cached(self) -> None:
        """Plain lines and Host are cached."""
        cache = self.cache()
        self.assertFalse(cache.contains_all([ACCEPT]))
        cache.special_fields([ACCEPT, HOST])
        self.assertTrue(cache.contains_all([ACCEPT, HOST]))
        self.assertEqual(cache.plain, {ACCEPT})
        self.assertEqual(list(cache.special), [HOST])

    def test_uncacheable_request_lines(self) -> None:
        """Credentials, framing, hop-by-hop and forwarding fields are not cached."""
        lines = [
            COOKIE,
            b"cookie: secret=2",
            b"AUTHORIZATION: Basic secret",
            b"Proxy-Authorization: secret",
            b"Proxy_Authorization: secret",
            b"Content-Length: 77",
            b"Transfer-Encoding: chunked",
            b"Connection: secret",
            b"Expect: 100-continue",
            b"X-Forwarded-For: 192.0.2.77",
        ]
        cache = self.cache()
        for _ in range(3):
            cache.special_fields([ACCEPT, *lines])
        self.assertEqual((cache.plain, cache.special), ({ACCEPT}, {}))
        pickled = pickle.dumps(cache)
        self.assertIn(ACCEPT, pickled)
        for line in lines:
            self.assertNotIn(line, pickled)
        self.assertNotIn(b"secret", pickled)

    def test_uncacheable_response_lines(self) -> None:
        """Credentials and framing of responses are not cached."""
        cache = f.FieldLineCache(f.RESPONSE_KINDS)
        for _ in range(3):
            cache.special_fields(
                [b"Set-Cookie: secret", b"set-cookie: secret", b"Content-Length: 77"]
            )
        pickled = pickle.dumps(cache)
        self.assertNotIn(b"secret", pickled)
        self.assertNotIn(b"77", pickled)

    def test_long_lines_are_not_cached(self) -> None:
        """Lines longer than `MAX_LINE_LENGTH` are parsed, but not cached."""
        cache = self.cache()
        longest = b"X: ".ljust(f.MAX_LINE_LENGTH, b"a")
        longer = longest + b"a"
        self.assertEqual(cache.special_fields([longest, longer]), [])
        self.assertTrue(cache.contains_all([longest]))
        self.assertFalse(cache.contains_all([longer]))

    def test_lines_in_use_stay_cached(self) -> None:
        """A line in use moves to the younger generation."""
        cache = self.cache(entries=4)
        for number in range(100):
            cache.special_fields([ACCEPT, HOST, b"X: %d" % number])
            pickled = pickle.dumps(cache)
            self.assertTrue(ACCEPT in pickled and HOST in pickled)

    def test_unused_lines_are_evicted(self) -> None:
        """A line that is not used for two generations is evicted."""
        cache = self.cache(entries=4)
        cache.special_fields([b"X: once"])
        for number in range(8):
            cache.special_fields([b"X: %d" % number])
        self.assertNotIn(b"X: once", pickle.dumps(cache))

    def test_entries_are_bounded(self) -> None:
        """Each generation holds at most `max_entries` lines."""
        cache = self.cache(entries=16)
        for number in range(500):
            cache.special_fields([b"X: line-%d" % number, b"Host: line-%d" % number])
            self.assertLessEqual(len(cache.plain) + len(cache.special), 16)
        # Two generations, each of which holds a Host line twice: as key and as value.
        self.assertLessEqual(pickle.dumps(cache).count(b"line-"), 3 * 2 * 16)

    def test_bytes_are_bounded(self) -> None:
        """Each generation holds lines of at most `max_bytes` bytes."""
        cache = self.cache(max_bytes=4000)
        for number in range(200):
            cache.special_fields([b"X: %d " % number + b"a" * 900])
            self.assertLessEqual(sum(map(len, cache.plain)), 4000)
        self.assertLess(len(pickle.dumps(cache)), 2 * 4000 + 2000)

    def test_names_are_bounded(self) -> None:
        """Cached names are bounded in number and length."""
        cache = self.cache(entries=4)
        for number in range(3 * f.MAX_NAMES):
            cache.special_fields([b"Name-%d: 1" % number])
        self.assertLessEqual(pickle.dumps(cache).count(b"Name-"), f.MAX_NAMES + 2 * 4)
        cache = self.cache(entries=1)
        cache.special_fields([b"N" * (f.MAX_NAME_LENGTH + 1) + b": 1", b"X: 1", b"X: 2", b"X: 3"])
        self.assertNotIn(b"N" * f.MAX_NAME_LENGTH, pickle.dumps(cache))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [ACCEPT, HOST, COOKIE, b"X: 1", b"X: 2", b"Te: a", b"Bad : 1", b"X: \x00"]
            ),
            max_size=40,
        )
    )
    def test_cached_result_equals_parsed_result(self, lines: list[bytes]) -> None:
        """The cache returns what `parse_field` returns, for any order of lines."""
        cache = self.cache(entries=3)
        for line in lines:
            try:
                field = f.parse_field(line, f.REQUEST_KINDS)
            except f.FieldError:
                self.assertRaises(f.FieldError, cache.special_fields, [line])
            else:
                expected = [] if field.kind == f.PLAIN else [field]
                self.assertEqual(cache.special_fields([line]), expected, msg=repr(line))


class FieldLineRegressionTests(SynchronousTestCase):
    """Field lines that were accepted by mistake."""

    def test_cached_name_without_colon(self) -> None:
        """A line that was only a cached field name passed without a colon."""
        cache = f.FieldLineCache(f.REQUEST_KINDS)
        cache.special_fields([b"Accept: x"])
        self.assertRaises(f.FieldError, cache.special_fields, [b"Accept"])
