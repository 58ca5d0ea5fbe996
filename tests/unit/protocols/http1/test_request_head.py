"""Request heads: read in exactly one way, or refused."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.request_head import (
    MAX_REQUEST_FIELDS,
    MAX_REQUEST_LINE,
    RequestHeadParser,
)
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead

GET = b"GET / HTTP/1.1"
HOST = b"Host: a"


def head(*lines: bytes) -> bytes:
    """A head of these lines."""
    return b"".join(line + b"\r\n" for line in lines)


def read(*lines: bytes) -> RequestHead:
    """Read one head with no memory of others."""
    return RequestHeadParser().parse(head(*lines))


def outcome(heads: RequestHeadParser, data: bytes) -> RequestHead | int:
    """What becomes of a head: the request, or the status that refuses it."""
    try:
        return heads.parse(data)
    except RequestError as refused:
        return refused.status


class RequestHeadTestCase(SynchronousTestCase):
    """A test case that knows of refusals."""

    def assert_refused(self, status: int, *lines: bytes) -> None:
        """
        Such a head is refused, by a reader that never saw any and by one that
        has seen it, as well as most of its lines, before.
        """
        data = head(*lines)
        heads = RequestHeadParser()
        for line in lines[1:]:
            outcome(heads, head(GET, HOST, line))
        for _ in range(3):
            found = outcome(heads, data)
            self.assertEqual(found, status, msg=f"{data[:200]!r} gave {found}")


class ValidRequestTests(RequestHeadTestCase):
    """Heads that are read, and what is read in them."""

    def test_the_plainest(self) -> None:
        found = read(GET, HOST)
        self.assertEqual(
            found,
            RequestHead(b"GET", b"/", 1, b"a", head(GET, HOST), 0, True, NO_RARE_FIELDS, False),
        )

    def test_methods(self) -> None:
        for method in (b"GET", b"HEAD", b"POST", b"PATCH", b"get", b"M-SEARCH", b"!#$%&'*+.^_`|~9"):
            found = read(method + b" /x HTTP/1.1", HOST)
            self.assertEqual((found.method, found.target), (method, b"/x"), msg=repr(method))
            self.assertEqual(
                found.forward_bytes, head(method + b" /x HTTP/1.1", HOST), msg=repr(method)
            )

    def test_targets_pass_byte_for_byte(self) -> None:
        for target in (
            b"/",
            b"//",
            b"/a/../b/./c",
            b"/%2e%2E/%00%zz",
            b"/a?b=c&d=e?f",
            b"/?",
            b"/a;b:c@d,e",
            b"/^`{|}~!?\\{}",
            b"/http://b/",
        ):
            found = read(b"GET " + target + b" HTTP/1.1", HOST)
            self.assertEqual(found.target, target)
            self.assertEqual(found.forward_bytes, head(b"GET " + target + b" HTTP/1.1", HOST))

    def test_fields_pass_byte_for_byte(self) -> None:
        lines = [
            b"user-AGENT:x",
            HOST,
            b"Cookie: a=1",
            b"Cookie:  b=2 ",
            b"Authorization: Basic x",
            b"Via: 1.0 other",
            b"Empty:",
            b"X: \xc3\xa4\t\xff",
            b"My_Field: 1",
            b"Forwarded: for=192.0.2.1",
            b"Content-Type: text/plain",
            b"Range: bytes=0-",
        ]
        for extra in ([], [b"Content-Length: 5"], [b"Trailer: X"], [b"Expect: 100-continue"]):
            self.assertEqual(read(GET, *lines, *extra).forward_bytes, head(GET, *lines, *extra))

    def test_lengths(self) -> None:
        for value in (b"0", b"5", b"05", b" 5\t", b"0000000000000000005", b"9223372036854775807"):
            line = b"content-LENGTH:" + value
            found = read(b"POST / HTTP/1.1", HOST, line)
            self.assertEqual(found.length, int(value), msg=repr(value))
            self.assertEqual(
                found.forward_bytes, head(b"POST / HTTP/1.1", HOST, line), msg=repr(value)
            )

    def test_chunked(self) -> None:
        for value in (b" chunked", b"chunked", b" Chunked ", b"\tCHUNKED"):
            found = read(b"POST / HTTP/1.1", HOST, b"Transfer-Encoding:" + value, b"X: 1")
            # The door frames the body anew, and says so itself.
            self.assertEqual(
                (found.length, found.forward_bytes),
                (-1, head(b"POST / HTTP/1.1", HOST, b"X: 1")),
                msg=repr(value),
            )

    def test_host_values(self) -> None:
        for value in (b"", b"a", b"a:80", b"A.B.", b"[::1]:80", b"192.0.2.1", b"a_b"):
            self.assertEqual(read(GET, b"hOsT: " + value + b" ").host, value, msg=repr(value))

    def test_later_minor_versions_are_taken_for_1_1(self) -> None:
        found = read(b"GET / HTTP/1.9", HOST)
        self.assertEqual((found.minor, found.forward_bytes), (1, head(GET, HOST)))
        self.assert_refused(400, b"GET / HTTP/1.9")

    def test_http_1_0_goes_on_as_1_1(self) -> None:
        found = read(b"GET / HTTP/1.0", HOST)
        self.assertEqual((found.minor, found.host, found.forward_bytes), (0, b"a", head(GET, HOST)))
        found = read(b"GET / HTTP/1.0")
        self.assertEqual((found.minor, found.host, found.forward_bytes), (0, None, head(GET)))

    def test_persistence(self) -> None:
        cases: list[tuple[bytes, list[bytes], bool]] = [
            (b"1.1", [], True),
            (b"1.1", [b"Connection: keep-alive"], True),
            (b"1.1", [b"Connection: close"], False),
            (b"1.1", [b"connection:CLOSE"], False),
            (b"1.1", [b"Connection: x, close"], False),
            (b"1.1", [b"Connection: keep-alive", b"Connection: close"], False),
            (b"1.1", [b"Connection: closed"], True),
            (b"1.1", [b"Proxy-Connection: close"], True),
            (b"1.0", [], False),
            (b"1.0", [b"Connection: keep-alive"], True),
            (b"1.0", [b"Connection: Keep-Alive"], True),
            (b"1.0", [b"Connection: keep-alive, close"], False),
            (b"1.0", [b"Keep-Alive: 5"], False),
        ]
        for version, lines, persistent in cases:
            found = read(b"GET / HTTP/" + version, HOST, *lines)
            self.assertEqual(found.persistent, persistent, msg=f"{version!r} {lines}")
            self.assertEqual(found.forward_bytes, head(GET, HOST), msg=f"{version!r} {lines}")


class RequestLineTests(RequestHeadTestCase):
    """First lines that are refused."""

    def test_malformed(self) -> None:
        for line in (
            b"",
            b" ",
            b"GET",
            b"GET ",
            b"GET /",
            b"GET  HTTP/1.1",
            b"GET / ",
            b" GET / HTTP/1.1",
            b"GET  / HTTP/1.1",
            b"GET /  HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"GET\t/\tHTTP/1.1",
            b"GET / /b HTTP/1.1",
            b"/ HTTP/1.1",
            b"G(T / HTTP/1.1",
            b"G\x00T / HTTP/1.1",
            b"G\xc3\xa4T / HTTP/1.1",
            b"GET: / HTTP/1.1",
            b"GET / http/1.1",
            b"GET / HTTP/1.",
            b"GET / HTTP/1",
            b"GET / HTTP/1.10",
            b"GET / HTTP/01.1",
            b"GET / HTTP/1,1",
            b"GET / HTTP/1.x",
            b"GET / HTTP/x.1",
            b"GET / HTTP/\xb2.0",
            b"GET / HTTP/2",
            b"GET / HTTP/22.0",
            b"GET / HTTPS/1.1",
            b"GET / HTTP/1.1\n",
            b"GET / HTTP/1.1\r",
            b"GET /\r HTTP/1.1",
            b"GET /\n HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET /\t HTTP/1.1",
            b"GET /\xc3\xa4 HTTP/1.1",
            b"GET /a#b HTTP/1.1",
            b"(GET) / HTTP/2.0",
            b"GET / b HTTP/2.0",
            b"HTTP/1.1 200 OK",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ):
            self.assert_refused(400, line, HOST)

    def test_http_0_9(self) -> None:
        for line in (b"GET /", b"GET / "):
            self.assert_refused(400, line)
        self.assert_refused(505, b"GET / HTTP/0.9")

    def test_versions_that_are_not_spoken(self) -> None:
        for line in (b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET / HTTP/3.0", b"GET / HTTP/0.0"):
            self.assert_refused(505, line, HOST)

    def test_a_line_of_the_longest_length(self) -> None:
        # Both line-end octets count.
        target = b"/".ljust(MAX_REQUEST_LINE - len(b"GET  HTTP/1.1\r\n"), b"a")
        self.assertEqual(read(b"GET " + target + b" HTTP/1.1", HOST).target, target)
        self.assert_refused(414, b"GET " + target + b"a HTTP/1.1", HOST)

    def test_a_line_that_is_too_long_and_malformed(self) -> None:
        self.assert_refused(414, b"GET /" + b"a " * MAX_REQUEST_LINE, HOST)
        self.assert_refused(414, b"a" * (MAX_REQUEST_LINE + 1))

    def test_connect(self) -> None:
        for lines in (
            [b"CONNECT a:443 HTTP/1.1", HOST],
            [b"CONNECT a:443 HTTP/1.1", b"Host: a:443"],
            [b"CONNECT http://a/ HTTP/1.1", HOST],
            [b"CONNECT * HTTP/1.1", HOST],
            [b"CONNECT a:443 HTTP/1.0"],
        ):
            self.assert_refused(501, *lines)


class TargetTests(RequestHeadTestCase):
    """The forms of a target (RFC 9112, 3.2)."""

    def test_absolute_form_is_rewritten(self) -> None:
        cases: list[tuple[bytes, bytes, bytes, bytes]] = [
            (b"GET", b"http://a/", b"a", b"/"),
            (b"GET", b"http://a", b"a", b"/"),
            (b"GET", b"HTTP://a/b?c", b"a", b"/b?c"),
            (b"GET", b"http://a?b=/c", b"a", b"/?b=/c"),
            (b"GET", b"http://a//b", b"a", b"//b"),
            (b"GET", b"http://a:80/", b"a", b"/"),
            (b"GET", b"http://a/", b"a:80", b"/"),
            (b"GET", b"http://a:/", b"a", b"/"),
            (b"GET", b"http://A/", b"a", b"/"),
            (b"GET", b"http://a:8080/b", b"a:8080", b"/b"),
            (b"GET", b"http://[::1]:80/b", b"[::1]", b"/b"),
            (b"OPTIONS", b"http://a", b"a", b"*"),
            (b"OPTIONS", b"http://a/", b"a", b"/"),
            (b"OPTIONS", b"http://a?b", b"a", b"/?b"),
            (b"OPTIONS", b"http://a/b", b"a", b"/b"),
        ]
        for method, target, host, expected in cases:
            for minor in (b"0", b"1"):
                found = read(method + b" " + target + b" HTTP/1." + minor, b"Host: " + host)
                self.assertEqual(found.target, expected, msg=repr(target))
                self.assertEqual(
                    found.forward_bytes,
                    head(method + b" " + expected + b" HTTP/1.1", b"Host: " + host),
                    msg=repr(target),
                )

    def test_a_host_that_contradicts_the_target(self) -> None:
        for target, host in (
            (b"http://a/", b"b"),
            (b"http://a/", b""),
            (b"http://a/", b"a.b"),
            (b"http://a/", b"a:8080"),
            (b"http://a:8080/", b"a"),
            (b"http://a:8080/", b"a:8081"),
            (b"http://[::1]/", b"[::2]"),
        ):
            for minor in (b"0", b"1"):
                line = b"GET " + target + b" HTTP/1." + minor
                self.assert_refused(400, line, b"Host: " + host)

    def test_targets_that_are_refused(self) -> None:
        for target in (
            b"a",
            b"a/b",
            b"a:80",
            b"?a",
            b"*/",
            b"**",
            b"http:/a/",
            b"http:a",
            b"http://",
            b"http:///",
            b"http://?a",
            b"http://user@a/",
            b"http://user:pass@a/",
            b"http://a,b/",
            b"http://a:x/",
            b"http://a\\b/",
            b"https://a/",
            b"ftp://a/",
            b"1http://a/",
        ):
            for method in (b"GET", b"OPTIONS"):
                self.assert_refused(400, method + b" " + target + b" HTTP/1.1", HOST)

    def test_absolute_form_needs_a_host_field_all_the_same(self) -> None:
        self.assert_refused(400, b"GET http://a/ HTTP/1.1")

    def test_the_asterisk_belongs_to_options(self) -> None:
        found = read(b"OPTIONS * HTTP/1.1", HOST)
        self.assertEqual(
            (found.target, found.forward_bytes), (b"*", head(b"OPTIONS * HTTP/1.1", HOST))
        )
        for method in (b"GET", b"POST", b"options"):
            self.assert_refused(400, method + b" * HTTP/1.1", HOST)


class FramingTests(RequestHeadTestCase):
    """Where the body ends: told once and clearly, or refused."""

    POST = b"POST / HTTP/1.1"

    def test_lengths_that_are_refused(self) -> None:
        for value in (
            b"",
            b" ",
            b"+5",
            b"-5",
            b"-0",
            b"5_0",
            b"0x5",
            b"5, 5",
            b"5,5",
            b"5,",
            b"5 5",
            b"5.0",
            b"5e0",
            b"5;",
            b"five",
            b"\xb2",
            b"\xd9\xa3",
            b"5\x0b",
            b"9223372036854775808",
            b"18446744073709551621",
            b"0" * 19 + b"5",
            b"9" * 5000,
        ):
            self.assert_refused(400, self.POST, HOST, b"Content-Length: " + value)
            self.assert_refused(400, b"POST / HTTP/1.0", HOST, b"content-length:" + value)

    def test_more_than_one_length(self) -> None:
        five = b"Content-Length: 5"
        for other in (five, b"Content-Length: 6", b"content-length:5", b"Content-Length:"):
            self.assert_refused(400, self.POST, HOST, five, other)
            self.assert_refused(400, self.POST, HOST, other, b"X: 1", five)

    def test_length_beside_a_coding(self) -> None:
        for length in (b"Content-Length: 5", b"Content-Length: 0"):
            for coding in (b"chunked", b"gzip, chunked", b"identity", b"", b"x\x0b"):
                line = b"Transfer-Encoding: " + coding
                self.assert_refused(400, self.POST, HOST, length, line)
                self.assert_refused(400, self.POST, HOST, line, length)

    def test_codings_that_are_not_spoken(self) -> None:
        for lines in (
            [b"Transfer-Encoding: gzip, chunked"],
            [b"Transfer-Encoding: gzip,deflate , Chunked"],
            [b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"],
            [b"Transfer-Encoding: identity, chunked"],
            [b"transfer-encoding:x-thing,chunked"],
        ):
            self.assert_refused(501, self.POST, HOST, *lines)

    def test_codings_that_are_malformed(self) -> None:
        for value in (
            b"",
            b",",
            b"gzip",
            b"identity",
            b"xchunked",
            b"chunkedx",
            b"chunked, gzip",
            b"chunked, chunked",
            b"gzip, chunked, chunked",
            b"chunked, identity",
            b'"chunked"',
            b"chunked;a=b",
            b"gz ip, chunked",
            b"[gzip], chunked",
            b"\x0bchunked",
            b"\x0cchunked",
            b"chunked\x00",
            b"chunked\xa0",
            b"chun\tked",
            b"c\xe2\x84\xaaunked",
        ):
            self.assert_refused(400, self.POST, HOST, b"Transfer-Encoding: " + value)

    def test_a_repeated_coding(self) -> None:
        line = b"Transfer-Encoding: chunked"
        for other in (line, b"transfer-encoding: chunked", b"Transfer-Encoding: identity"):
            self.assert_refused(400, self.POST, HOST, line, other)

    def test_an_empty_list_member_is_no_reason_to_trust(self) -> None:
        for value in (b"chunked,", b",chunked"):
            found = outcome(
                RequestHeadParser(), head(self.POST, HOST, b"Transfer-Encoding: " + value)
            )
            self.assertIn(found, (400, 501), msg=repr(value))

    def test_a_coding_in_http_1_0(self) -> None:
        self.assert_refused(400, b"POST / HTTP/1.0", HOST, b"Transfer-Encoding: chunked")

    def test_names_that_look_like_framing(self) -> None:
        for line in (
            b"Content_Length: 5",
            b"CONTENT_LENGTH: 5",
            b"Transfer_Encoding: chunked",
            b"transfer_encoding: chunked",
        ):
            self.assert_refused(400, self.POST, HOST, line)
            self.assert_refused(400, self.POST, HOST, b"Content-Length: 5", line)

    def test_connection_cannot_name_the_framing(self) -> None:
        options = b"Connection: Content-Length, Transfer-Encoding, Host"
        length = b"Content-Length: 5"
        found = read(self.POST, options, HOST, length)
        self.assertEqual((found.length, found.forward_bytes), (5, head(self.POST, HOST, length)))
        found = read(self.POST, options, HOST, b"Transfer-Encoding: chunked")
        self.assertEqual((found.length, found.forward_bytes), (-1, head(self.POST, HOST)))


class FieldTests(RequestHeadTestCase):
    """Field lines that are refused."""

    def test_malformed_lines(self) -> None:
        for line in (
            b"",
            b" ",
            b"no colon",
            b":",
            b": 1",
            b"X : 1",
            b"X\t: 1",
            b"Host : b",
            b"Content-Length : 5",
            b"Transfer-Encoding : chunked",
            b" X: 1",
            b"\tX: 1",
            b" folded",
            b"X Y: 1",
            b"X\x00Y: 1",
            b"X(: 1",
            b'"X": 1',
            b"\xc3\xa4: 1",
            b"X: a\x00b",
            b"X: a\x01b",
            b"X: a\x0bb",
            b"X: a\x1bb",
            b"X: a\x7fb",
            b"X: a\rb",
            b"X: a\r",
            b"X: a\nb",
            b"X: a\n",
            b"X: a\nContent-Length: 5",
            b"\rContent-Length: 5",
            b"\nX: 1",
        ):
            self.assert_refused(400, GET, HOST, line)
            self.assert_refused(400, GET, HOST, line, b"Accept: x")
            self.assert_refused(400, GET, line, HOST, b"Connection: keep-alive")
            self.assert_refused(400, GET, HOST, b"Content-Length: 0", line)

    def test_folded_lines(self) -> None:
        for fold in (b" folded", b"\tfolded", b" "):
            for line in (b"X: 1", b"Transfer-Encoding: chunked", b"Content-Length: 5", HOST):
                self.assert_refused(400, GET, HOST, line, fold)

    def test_no_host(self) -> None:
        self.assert_refused(400, GET)
        self.assert_refused(400, GET, b"X: 1")
        self.assert_refused(400, GET, b"X-Forwarded-Host: a")
        self.assert_refused(400, b"OPTIONS * HTTP/1.1")

    def test_more_than_one_host(self) -> None:
        for other in (HOST, b"host: a", b"Host: b", b"Host:", b"HOST: a:80"):
            self.assert_refused(400, GET, HOST, other)
            self.assert_refused(400, GET, other, b"X: 1", HOST)
            self.assert_refused(400, GET, HOST, b"Connection: keep-alive", other)
            self.assert_refused(400, b"GET / HTTP/1.0", HOST, other)

    def test_malformed_hosts(self) -> None:
        for value in (
            b"a b",
            b"a,b",
            b"a, a",
            b"a/b",
            b"http://a",
            b"user@a",
            b"a#b",
            b"a?b",
            b"a;b",
            b"a\\b",
            b"a:b",
            b"a:123456",
            b"a:-1",
            b"::1",
            b"[::1",
            b"[]",
            b"a\tb",
            b"\xc3\xa4",
            b"a\x00",
        ):
            self.assert_refused(400, GET, b"Host: " + value)
            self.assert_refused(400, b"GET / HTTP/1.0", b"Host: " + value)

    def test_too_many_fields(self) -> None:
        lines = [b"X-%d: 1" % number for number in range(MAX_REQUEST_FIELDS - 1)]
        for method in (b"GET", b"POST"):
            line = method + b" / HTTP/1.1"
            self.assertEqual(read(line, HOST, *lines).forward_bytes, head(line, HOST, *lines))
            self.assert_refused(431, line, HOST, *lines, b"Y: 1")
            self.assert_refused(431, line, HOST, *lines, b"Content-Length: 0")
        self.assert_refused(431, GET, HOST, *[b"X: 1"] * 3000)

    def test_expectations(self) -> None:
        for value in (b"x", b"200-ok", b"100-continue, x", b"100-continue; a", b"100 continue"):
            self.assert_refused(417, GET, HOST, b"Expect: " + value)
        self.assert_refused(417, GET, HOST, b"Expect: 100-continue", b"Expect: x")

    def test_malformed_max_forwards(self) -> None:
        for value in (b"", b"x", b"-1", b"+1", b"1.0", b"1, 1", b"1_0", b"\xb2"):
            self.assert_refused(400, b"OPTIONS / HTTP/1.1", HOST, b"Max-Forwards: " + value)
        self.assert_refused(400, b"TRACE / HTTP/1.1", HOST, b"Max-Forwards: 1", b"Max-Forwards: 1")


class RequestHeadCacheTests(SynchronousTestCase):
    """A head is read the same however often it comes, and little is kept."""

    HEADS = (
        head(GET, HOST),
        head(GET, HOST, b"Accept: x"),
        head(GET, b"Accept: x", HOST),
        head(b"POST /b?c HTTP/1.1", HOST, b"Accept: x"),
        head(b"GET /other HTTP/1.1", b"Host: b", b"Accept: x"),
        head(b"GET /other HTTP/1.0", b"Host: b", b"Accept: x"),
        head(b"GET http://b/ HTTP/1.1", b"Host: b", b"Accept: x"),
        head(b"GET http://c/ HTTP/1.1", b"Host: b", b"Accept: x"),
        head(b"OPTIONS * HTTP/1.1", b"Host: b", b"Accept: x"),
        head(b"GET * HTTP/1.1", b"Host: b", b"Accept: x"),
        head(GET, b"Accept: x"),
        head(GET, HOST, HOST),
        head(GET, HOST, b"Host: b"),
        head(GET, HOST, b"Connection: keep-alive"),
        head(GET, b"Connection: keep-alive", HOST),
        head(b"GET / HTTP/1.0", b"Connection: keep-alive", HOST),
        head(GET, HOST, b"Connection: keep-alive", b"Connection: close"),
        head(GET, HOST, b"Connection: keep-alive", b"Connection: keep-alive"),
        head(GET, HOST, b"Connection: Accept", b"Accept: x"),
        head(GET, HOST, b"Cookie: a=1", b"Accept: x"),
        head(GET, HOST, b"Cookie: a=1", b"Accept: x", b"Connection: keep-alive"),
        head(GET, HOST, b"Accept: x", b"Content-Length: 5"),
        head(GET, HOST, b"Accept: x", b"Content-Length: 5", b"Content-Length: 5"),
        head(GET, HOST, b"Accept: x", b"Transfer-Encoding: chunked"),
        head(GET, HOST, b"Accept: x", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        head(GET, HOST, b"Accept : x"),
        head(GET, HOST, b"Accept: \x00"),
        head(GET, HOST, b"X-Forwarded-For: 192.0.2.1", b"Accept: x"),
        head(b"GET  / HTTP/1.1", HOST, b"Accept: x"),
        head(b"GET / HTTP/2.0", HOST, b"Accept: x"),
    )

    def assert_same(self, heads: RequestHeadParser, each: Iterable[bytes]) -> None:
        for data in each:
            found = outcome(heads, data)
            self.assertEqual(found, outcome(RequestHeadParser(), data), msg=repr(data))

    def test_the_same_every_time(self) -> None:
        heads = RequestHeadParser()
        for _ in range(4):
            self.assert_same(heads, self.HEADS)
            self.assert_same(heads, reversed(self.HEADS))

    def test_the_same_after_generations_have_passed(self) -> None:
        heads = RequestHeadParser()
        for turn in range(3):
            self.assert_same(heads, self.HEADS)
            for number in range(3 * RequestHeadParser.MAX_CACHED_BLOCKS):
                heads.parse(head(GET, HOST, b"X: %d" % number))
                if number % 100 == turn:
                    self.assert_same(heads, self.HEADS)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from(HEADS), max_size=20))
    def test_the_same_in_any_order(self, several: list[bytes]) -> None:
        self.assert_same(RequestHeadParser(), several)

    def test_secrets_and_framing_are_not_kept(self) -> None:
        heads = RequestHeadParser()
        lines = (
            b"Cookie: secret",
            b"cOOKIE:secret",
            b"Authorization: secret",
            b"Proxy-Authorization: secret",
            b"Proxy_Authorization: secret",
            b"Content-Length: 7777",
            b"X-Forwarded-For: 7777",
        )
        for _ in range(4):
            for keep_alive in ([], [b"Connection: keep-alive"]):
                for line in lines:
                    heads.parse(head(GET, HOST, b"Accept: x", line, *keep_alive))
                heads.parse(head(GET, HOST, b"Accept: x", *lines, *keep_alive))
        held = pickle.dumps(heads)
        self.assertIn(b"Accept: x", held)
        for word in (b"secret", b"7777", b"ookie:", b"uthorization:"):
            self.assertNotIn(word, held)

    def test_targets_and_refused_heads_are_not_kept(self) -> None:
        heads = RequestHeadParser()
        for _ in range(4):
            heads.parse(head(b"GET /secret HTTP/1.1", HOST))
            outcome(heads, head(GET, HOST, b"secret : 1"))
            outcome(heads, head(GET, HOST, b"X: secret\x00"))
        self.assertNotIn(b"secret", pickle.dumps(heads))

    def test_what_never_repeats_itself_is_bounded(self) -> None:
        heads = RequestHeadParser()
        limit = 2 * 4096
        for number in range(3 * limit):
            heads.parse(head(GET, HOST, b"X: line-%d" % number))
        self.assertLessEqual(pickle.dumps(heads).count(b"line-"), limit)

    def test_blocks_are_bounded(self) -> None:
        heads = RequestHeadParser()
        lines = [b"X: line-%d" % number for number in range(60)]
        for line in lines:
            heads.parse(head(GET, HOST, line))
        before = len(pickle.dumps(heads))
        for line in lines:
            for other in lines:
                heads.parse(head(GET, HOST, line, other))
        after = len(pickle.dumps(heads))
        self.assertGreater(after, before)
        self.assertLess(after - before, 2 * RequestHeadParser.MAX_CACHED_BLOCKS * 60)

    def test_octets_are_bounded(self) -> None:
        heads = RequestHeadParser()
        for number in range(3000):
            lines = [b"X-%d: %d " % (i, number) + b"a" * 900 for i in range(2)]
            heads.parse(head(GET, HOST, *lines))
            heads.parse(head(GET, HOST, *lines))
        blocks = RequestHeadParser.MAX_CACHED_BLOCKS * RequestHeadParser.MAX_CACHED_BLOCK_LENGTH
        self.assertLess(len(pickle.dumps(heads)), 2 * (blocks + 512 * 1024) + 100_000)

    def test_long_blocks_are_not_kept(self) -> None:
        heads = RequestHeadParser()
        lines = [b"X-%d: " % number + b"a" * 500 for number in range(8)]
        for _ in range(2):
            heads.parse(head(GET, HOST, *lines))
        before = len(pickle.dumps(heads))
        for _ in range(3):
            heads.parse(head(GET, HOST, *lines))
        self.assertEqual(len(pickle.dumps(heads)), before)


PIECES = st.sampled_from(
    [
        b"GET",
        b"OPTIONS",
        b" ",
        b"/",
        b"*",
        b"http://",
        b"a",
        b" HTTP/1.1",
        b" HTTP/1.0",
        b"\r\n",
        b"\r",
        b"\n",
        b"Host: a",
        b"Content-Length",
        b"Transfer-Encoding",
        b"Connection",
        b"Expect",
        b"Upgrade",
        b": ",
        b",",
        b"chunked",
        b"100-continue",
        b"5",
        b"\x00",
        b"\xff",
        b"_",
    ]
)
SHARED = RequestHeadParser()


class PropertyTests(SynchronousTestCase):
    """What holds for any bytes."""

    @settings(max_examples=400, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.lists(PIECES, max_size=20).map(b"".join),
            st.lists(PIECES, max_size=12).map(lambda p: head(GET, HOST, b"".join(p))),
            st.binary(max_size=30).map(lambda data: b"GET " + data + b" HTTP/1.1\r\nHost: a\r\n"),
            st.binary(max_size=30).map(lambda data: head(GET, HOST) + data),
        )
    )
    def test_any_bytes_are_a_head_or_refused(self, data: bytes) -> None:
        for heads in (RequestHeadParser(), SHARED):
            found = outcome(heads, data)
            if isinstance(found, int):
                self.assertIn(found, (400, 414, 417, 431, 501, 505), msg=repr(data))

    @settings(max_examples=200, deadline=None)
    @given(
        st.sampled_from([GET, b"POST / HTTP/1.1", b"GET / HTTP/1.0", b"OPTIONS * HTTP/1.1"]),
        st.lists(
            st.sampled_from(
                [
                    HOST,
                    b"Accept: x",
                    b"Content-Length: 5",
                    b"Transfer-Encoding: chunked",
                    b"Connection: keep-alive",
                    b"X-Forwarded-For: 192.0.2.1",
                    b"X: 1",
                ]
            ),
            max_size=5,
        ),
        st.integers(0, 200),
        st.integers(0, 255),
    )
    def test_one_wrong_octet_never_slips_through(
        self, line: bytes, lines: list[bytes], place: int, octet: int
    ) -> None:
        data = head(line, HOST, *lines)
        # The CRLF at the end is what the door found the head by.
        place %= len(data) - 2
        data = data[:place] + bytes([octet]) + data[place + 1 :]
        found = outcome(SHARED, data)
        if isinstance(found, int):
            return
        rest = found.forward_bytes.replace(b"\r\n", b"")
        for control in (*range(0x09), *range(0x0A, 0x20), 0x7F):
            self.assertNotIn(bytes([control]), rest, msg=repr(data))
        self.assertEqual(found.forward_bytes[-2:], b"\r\n")


class RequestHeadRegressionTests(SynchronousTestCase):
    """Request heads that were accepted by mistake."""

    def test_cached_name_without_colon(self) -> None:
        """A line that was only a cached field name passed without a colon."""
        parser = RequestHeadParser()
        parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\nAccept: x\r\n")
        self.assertRaises(RequestError, parser.parse, b"GET / HTTP/1.1\r\nHost: a\r\nAccept\r\n")

    def test_connect_in_origin_form(self) -> None:
        """The fast path accepted CONNECT with a target in origin form."""
        error = self.assertRaises(
            RequestError, RequestHeadParser().parse, b"CONNECT / HTTP/1.1\r\nHost: a\r\n"
        )
        self.assertEqual(error.status, 501)

    def test_too_many_fields_with_keep_alive(self) -> None:
        """The fast path did not count a removed Connection field."""
        data = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n"
        data += b"X: 1\r\n" * (MAX_REQUEST_FIELDS - 1)
        self.assertRaises(RequestError, RequestHeadParser().parse, data)

    def test_empty_host_with_port(self) -> None:
        """A host was allowed to be empty before a port (RFC 9110, 4.2.1)."""
        self.assertRaises(
            RequestError, RequestHeadParser().parse, b"GET http://:80/ HTTP/1.1\r\nHost: :80\r\n"
        )
