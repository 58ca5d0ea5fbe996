"""Field lines: what they are taken for, and what is remembered of them."""

from __future__ import annotations

import pickle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.grammar import list_items

ACCEPT = b"Accept: text/html"
HOST = b"Host: example.org"
COOKIE = b"Cookie: secret=1"


def is_field(line: bytes) -> bool:
    """Whether a line can be read as a request's field."""
    try:
        f.parse_field(line, f.REQUEST_KINDS)
    except f.FieldError:
        return False
    return True


class FieldLineTests(SynchronousTestCase):
    """One line becomes a name, a value and a kind."""

    def test_name_is_lowered_and_value_stripped(self) -> None:
        line = b"X-Thing: \t some value\t "
        field = f.parse_field(line, f.REQUEST_KINDS)
        self.assertEqual(field, f.Field(f.PLAIN, b"x-thing", b"some value", line))

    def test_values_that_are_allowed(self) -> None:
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

    def test_lines_that_are_no_fields(self) -> None:
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
            b"X(: illegal octet in the name",
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
            self.assertFalse(is_field(line), msg=repr(line))

    def test_every_control_octet_is_refused_in_a_value(self) -> None:
        for octet in range(256):
            allowed = octet == 0x09 or (octet >= 0x20 and octet != 0x7F)
            line = b"X: a" + bytes([octet]) + b"b"
            self.assertEqual(is_field(line), allowed, msg=repr(line))

    def test_kinds_of_request_fields(self) -> None:
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
            b"Max-Forwards: 1": f.MAX_FORWARDS,
            b"Cookie: a": f.CREDENTIAL,
            b"Authorization: a": f.CREDENTIAL,
            b"Date: now": f.PLAIN,
            b"User-Agent: x": f.PLAIN,
        }
        for line, kind in cases.items():
            self.assertEqual(f.parse_field(line, f.REQUEST_KINDS).kind, kind, msg=repr(line))

    def test_kinds_of_response_fields(self) -> None:
        cases = {
            b"Set-Cookie: a": f.CREDENTIAL,
            b"WWW-Authenticate: a": f.CREDENTIAL,
            b"Authentication-Info: a": f.CREDENTIAL,
            b"date: now": f.DATE,
            b"DATE: now": f.DATE,
            # Found by a search of the whole head instead.
            b"Date: now": f.PLAIN,
            b"Server: x": f.PLAIN,
            b"Host: not a request, so anything": f.PLAIN,
        }
        for line, kind in cases.items():
            self.assertEqual(f.parse_field(line, f.RESPONSE_KINDS).kind, kind, msg=repr(line))

    def test_host_values_that_are_read(self) -> None:
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
            self.assertTrue(is_field(b"Host: " + value), msg=repr(value))

    def test_host_values_that_are_refused(self) -> None:
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
            self.assertFalse(is_field(b"Host: " + value), msg=repr(value))

    def test_underscore_twins_of_framing_fields_are_refused(self) -> None:
        for line in (b"Content_Length: 1", b"CONTENT_LENGTH: 1", b"Transfer_Encoding: chunked"):
            self.assertFalse(is_field(line), msg=repr(line))

    def test_underscore_twins_of_other_special_fields_go_no_further(self) -> None:
        for line in (
            b"X_Forwarded_For: 192.0.2.1",
            b"X-Forwarded_For: 192.0.2.1",
            b"X_Forwarded_Proto: https",
            b"X_Forwarded_Host: a",
            b"Proxy_Authorization: a",
            b"Keep_Alive: 1",
        ):
            self.assertEqual(
                f.parse_field(line, f.REQUEST_KINDS).kind, f.HOP_BY_HOP, msg=repr(line)
            )

    def test_responses_have_no_twins(self) -> None:
        for line in (b"Set_Cookie: a", b"Content_Length: 1", b"Proxy_Authenticate: Basic"):
            self.assertEqual(f.parse_field(line, f.RESPONSE_KINDS).kind, f.PLAIN, msg=repr(line))

    def test_an_ordinary_name_may_have_an_underscore(self) -> None:
        self.assertEqual(f.parse_field(b"My_Field: 1", f.REQUEST_KINDS).kind, f.PLAIN)


class FieldRemovalTests(SynchronousTestCase):
    """Lines are taken out of a head without touching others."""

    HEAD = b"GET / HTTP/1.1\r\nA: 1\r\nB: 2\r\nA: 1\r\nAA: 1\r\n"

    def test_each_named_line_is_removed_once(self) -> None:
        self.assertEqual(
            f.remove_lines(self.HEAD, [b"A: 1"]), b"GET / HTTP/1.1\r\nB: 2\r\nA: 1\r\nAA: 1\r\n"
        )

    def test_neighbours_and_repeats(self) -> None:
        self.assertEqual(
            f.remove_lines(self.HEAD, [b"A: 1", b"B: 2", b"A: 1"]), b"GET / HTTP/1.1\r\nAA: 1\r\n"
        )

    def test_only_whole_lines_count(self) -> None:
        self.assertEqual(f.remove_lines(self.HEAD, [b"A: ", b": 1", b"GET / HTTP/1.1"]), self.HEAD)


class ListItemsTests(SynchronousTestCase):
    """Comma separated values."""

    def test_members(self) -> None:
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


class FieldLineCacheTests(SynchronousTestCase):
    """Lines are checked once, remembered if they may be, and forgotten in time."""

    def memory(self, entries: int = 4096, octets: int = 1 << 19) -> f.FieldLineCache:
        return f.FieldLineCache(f.REQUEST_KINDS, entries, octets)

    def test_specials_come_in_order_and_plain_ones_do_not(self) -> None:
        memory = self.memory()
        lines = [COOKIE, ACCEPT, HOST, b"Connection: close"]
        for _ in range(3):
            found = memory.special_fields(lines)
            self.assertEqual([field.line for field in found], [COOKIE, HOST, b"Connection: close"])

    def test_a_malformed_line_is_refused_every_time(self) -> None:
        memory = self.memory()
        for _ in range(3):
            self.assertRaises(f.FieldError, memory.special_fields, [ACCEPT, b"Broken : 1"])

    def test_a_known_name_does_not_excuse_a_bad_value(self) -> None:
        memory = self.memory()
        memory.special_fields([b"Accept: good"])
        for line in (b"Accept: \x00", b"Accept: a\rb", b"Accept: a\nb", b"Accept : a"):
            self.assertRaises(f.FieldError, memory.special_fields, [line])
            self.assertFalse(memory.contains_all([line]), msg=repr(line))

    def test_plain_lines_and_host_are_remembered(self) -> None:
        memory = self.memory()
        self.assertFalse(memory.contains_all([ACCEPT]))
        memory.special_fields([ACCEPT, HOST])
        self.assertTrue(memory.contains_all([ACCEPT, HOST]))
        self.assertEqual(memory.plain, {ACCEPT})
        self.assertEqual(list(memory.special), [HOST])

    def test_secrets_framing_and_hop_by_hop_fields_are_not_remembered(self) -> None:
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
        memory = self.memory()
        for _ in range(3):
            memory.special_fields([ACCEPT, *lines])
        self.assertEqual((memory.plain, memory.special), ({ACCEPT}, {}))
        held = pickle.dumps(memory)
        self.assertIn(ACCEPT, held)
        for line in lines:
            self.assertNotIn(line, held)
        self.assertNotIn(b"secret", held)

    def test_secrets_of_responses_are_not_remembered(self) -> None:
        memory = f.FieldLineCache(f.RESPONSE_KINDS)
        for _ in range(3):
            memory.special_fields(
                [b"Set-Cookie: secret", b"set-cookie: secret", b"Content-Length: 77"]
            )
        held = pickle.dumps(memory)
        self.assertNotIn(b"secret", held)
        self.assertNotIn(b"77", held)

    def test_long_lines_are_read_and_not_remembered(self) -> None:
        memory = self.memory()
        longest = b"X: ".ljust(f.MAX_LINE_LENGTH, b"a")
        longer = longest + b"a"
        self.assertEqual(memory.special_fields([longest, longer]), [])
        self.assertTrue(memory.contains_all([longest]))
        self.assertFalse(memory.contains_all([longer]))

    def test_lines_in_use_outlive_a_generation(self) -> None:
        memory = self.memory(entries=4)
        for number in range(100):
            memory.special_fields([ACCEPT, HOST, b"X: %d" % number])
            held = pickle.dumps(memory)
            self.assertTrue(ACCEPT in held and HOST in held)

    def test_lines_out_of_use_are_forgotten(self) -> None:
        memory = self.memory(entries=4)
        memory.special_fields([b"X: once"])
        for number in range(8):
            memory.special_fields([b"X: %d" % number])
        self.assertNotIn(b"X: once", pickle.dumps(memory))

    def test_entries_are_bounded(self) -> None:
        memory = self.memory(entries=16)
        for number in range(500):
            memory.special_fields([b"X: line-%d" % number, b"Host: line-%d" % number])
            self.assertLessEqual(len(memory.plain) + len(memory.special), 16)
        # Two generations, each of which holds a Host line twice: as key and as value.
        self.assertLessEqual(pickle.dumps(memory).count(b"line-"), 3 * 2 * 16)

    def test_octets_are_bounded(self) -> None:
        memory = self.memory(octets=4000)
        for number in range(200):
            memory.special_fields([b"X: %d " % number + b"a" * 900])
            self.assertLessEqual(sum(map(len, memory.plain)), 4000)
        self.assertLess(len(pickle.dumps(memory)), 2 * 4000 + 2000)

    def test_names_are_bounded(self) -> None:
        memory = self.memory(entries=4)
        for number in range(3 * f.MAX_NAMES):
            memory.special_fields([b"Name-%d: 1" % number])
        self.assertLessEqual(pickle.dumps(memory).count(b"Name-"), f.MAX_NAMES + 2 * 4)
        memory = self.memory(entries=1)
        memory.special_fields([b"N" * (f.MAX_NAME_LENGTH + 1) + b": 1", b"X: 1", b"X: 2", b"X: 3"])
        self.assertNotIn(b"N" * f.MAX_NAME_LENGTH, pickle.dumps(memory))

    @settings(max_examples=100, deadline=None)
    @given(
        st.lists(
            st.sampled_from(
                [ACCEPT, HOST, COOKIE, b"X: 1", b"X: 2", b"Te: a", b"Bad : 1", b"X: \x00"]
            ),
            max_size=40,
        )
    )
    def test_memory_changes_no_answer(self, lines: list[bytes]) -> None:
        memory = self.memory(entries=3)
        for line in lines:
            try:
                field = f.parse_field(line, f.REQUEST_KINDS)
            except f.FieldError:
                self.assertRaises(f.FieldError, memory.special_fields, [line])
            else:
                expected = [] if field.kind == f.PLAIN else [field]
                self.assertEqual(memory.special_fields([line]), expected, msg=repr(line))


class FieldLineRegressionTests(SynchronousTestCase):
    """Field lines that were accepted by mistake."""

    def test_cached_name_without_colon(self) -> None:
        """A line that was only a cached field name passed without a colon."""
        cache = f.FieldLineCache(f.REQUEST_KINDS)
        cache.special_fields([b"Accept: x"])
        self.assertRaises(f.FieldError, cache.special_fields, [b"Accept"])
