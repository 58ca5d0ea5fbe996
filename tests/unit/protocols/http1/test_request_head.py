"""Request heads: parsed in exactly one way, or rejected."""

from __future__ import annotations

import pickle
from collections.abc import Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1.request_head import (
    MAX_REQUEST_FIELDS,
    MAX_REQUEST_HEAD,
    MAX_REQUEST_LINE,
    RequestHeadParser,
    check_partial_head,
)
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from tests.helpers.request_heads import (
    GET,
    HOST,
    RequestHeadTestCase,
    build_head,
    outcome,
    parse,
)


class ValidRequestTests(RequestHeadTestCase):
    """Heads that are accepted, and their properties."""

    def test_minimal_head(self) -> None:
        """A request line and Host are a complete head."""
        parsed = parse(GET, HOST)
        self.assertEqual(
            parsed,
            RequestHead(
                b"GET", b"/", 1, b"a", build_head(GET, HOST), 0, True, NO_RARE_FIELDS, False
            ),
        )

    def test_methods(self) -> None:
        """Any token is a method, and is forwarded unchanged."""
        for method in (b"GET", b"HEAD", b"POST", b"PATCH", b"get", b"M-SEARCH", b"!#$%&'*+.^_`|~9"):
            parsed = parse(method + b" /x HTTP/1.1", HOST)
            self.assertEqual((parsed.method, parsed.target), (method, b"/x"), msg=repr(method))
            self.assertEqual(
                parsed.forward_bytes, build_head(method + b" /x HTTP/1.1", HOST), msg=repr(method)
            )

    def test_targets_in_origin_form_are_unchanged(self) -> None:
        """Targets in origin-form are forwarded byte for byte."""
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
            parsed = parse(b"GET " + target + b" HTTP/1.1", HOST)
            self.assertEqual(parsed.target, target)
            self.assertEqual(
                parsed.forward_bytes, build_head(b"GET " + target + b" HTTP/1.1", HOST)
            )

    def test_end_to_end_fields_are_unchanged(self) -> None:
        """End-to-end fields are forwarded byte for byte."""
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
            self.assertEqual(
                parse(GET, *lines, *extra).forward_bytes, build_head(GET, *lines, *extra)
            )

    def test_content_length(self) -> None:
        """Content-Length is parsed and forwarded unchanged."""
        for value in (b"0", b"5", b"05", b" 5\t", b"0000000000000000005", b"9223372036854775807"):
            line = b"content-LENGTH:" + value
            parsed = parse(b"POST / HTTP/1.1", HOST, line)
            self.assertEqual(parsed.length, int(value), msg=repr(value))
            self.assertEqual(
                parsed.forward_bytes, build_head(b"POST / HTTP/1.1", HOST, line), msg=repr(value)
            )

    def test_chunked_body(self) -> None:
        """Transfer-Encoding: chunked is recognized in any case, and removed."""
        for value in (b" chunked", b"chunked", b" Chunked ", b"\tCHUNKED"):
            parsed = parse(b"POST / HTTP/1.1", HOST, b"Transfer-Encoding:" + value, b"X: 1")
            # The proxy encodes the body again, and adds the field itself.
            self.assertEqual(
                (parsed.length, parsed.forward_bytes),
                (-1, build_head(b"POST / HTTP/1.1", HOST, b"X: 1")),
                msg=repr(value),
            )

    def test_host_values(self) -> None:
        """The value of Host is returned without whitespace around it."""
        for value in (b"", b"a", b"a:80", b"A.B.", b"[::1]:80", b"192.0.2.1", b"a_b"):
            self.assertEqual(parse(GET, b"hOsT: " + value + b" ").host, value, msg=repr(value))

    def test_later_minor_versions_are_treated_as_1_1(self) -> None:
        """HTTP/1.9 is treated as HTTP/1.1 (RFC 9110, 2.5)."""
        parsed = parse(b"GET / HTTP/1.9", HOST)
        self.assertEqual((parsed.minor, parsed.forward_bytes), (1, build_head(GET, HOST)))
        self.assert_rejected(400, b"GET / HTTP/1.9")

    def test_http_1_0_is_forwarded_as_1_1(self) -> None:
        """An HTTP/1.0 request is forwarded as HTTP/1.1; it may lack Host."""
        parsed = parse(b"GET / HTTP/1.0", HOST)
        self.assertEqual(
            (parsed.minor, parsed.host, parsed.forward_bytes), (0, b"a", build_head(GET, HOST))
        )
        parsed = parse(b"GET / HTTP/1.0")
        self.assertEqual(
            (parsed.minor, parsed.host, parsed.forward_bytes), (0, None, build_head(GET))
        )

    def test_persistence(self) -> None:
        """Version and connection options decide whether the connection persists."""
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
            parsed = parse(b"GET / HTTP/" + version, HOST, *lines)
            self.assertEqual(parsed.persistent, persistent, msg=f"{version!r} {lines}")
            self.assertEqual(
                parsed.forward_bytes, build_head(GET, HOST), msg=f"{version!r} {lines}"
            )


class RequestLineTests(RequestHeadTestCase):
    """Request lines that are rejected."""

    def test_invalid_request_lines(self) -> None:
        """Request lines that do not match the grammar are rejected with 400."""
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
            self.assert_rejected(400, line, HOST)

    def test_http_0_9(self) -> None:
        """Requests of HTTP/0.9 are rejected."""
        for line in (b"GET /", b"GET / "):
            self.assert_rejected(400, line)
        self.assert_rejected(505, b"GET / HTTP/0.9")

    def test_unsupported_versions(self) -> None:
        """Major versions other than 1 are rejected with 505."""
        for line in (b"GET / HTTP/2.0", b"PRI * HTTP/2.0", b"GET / HTTP/3.0", b"GET / HTTP/0.0"):
            self.assert_rejected(505, line, HOST)

    def test_longest_request_line(self) -> None:
        """A line of `MAX_REQUEST_LINE` bytes is accepted, a longer one gets 414."""
        # Both bytes of the line end count.
        target = b"/".ljust(MAX_REQUEST_LINE - len(b"GET  HTTP/1.1\r\n"), b"a")
        self.assertEqual(parse(b"GET " + target + b" HTTP/1.1", HOST).target, target)
        self.assert_rejected(414, b"GET " + target + b"a HTTP/1.1", HOST)

    def test_long_invalid_request_line(self) -> None:
        """A line that is too long gets 414 even if it is invalid too."""
        self.assert_rejected(414, b"GET /" + b"a " * MAX_REQUEST_LINE, HOST)
        self.assert_rejected(414, b"a" * (MAX_REQUEST_LINE + 1))

    def test_connect(self) -> None:
        """CONNECT is rejected with 501, whatever its target."""
        for lines in (
            [b"CONNECT a:443 HTTP/1.1", HOST],
            [b"CONNECT a:443 HTTP/1.1", b"Host: a:443"],
            [b"CONNECT http://a/ HTTP/1.1", HOST],
            [b"CONNECT * HTTP/1.1", HOST],
            [b"CONNECT a:443 HTTP/1.0"],
        ):
            self.assert_rejected(501, *lines)


class FieldLineTests(RequestHeadTestCase):
    """Field lines that are rejected."""

    def test_invalid_field_lines(self) -> None:
        """Invalid field lines are rejected wherever they are in the head."""
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
            self.assert_rejected(400, GET, HOST, line)
            self.assert_rejected(400, GET, HOST, line, b"Accept: x")
            self.assert_rejected(400, GET, line, HOST, b"Connection: keep-alive")
            self.assert_rejected(400, GET, HOST, b"Content-Length: 0", line)

    def test_folded_lines(self) -> None:
        """Line folding (obs-fold) is rejected."""
        for fold in (b" folded", b"\tfolded", b" "):
            for line in (b"X: 1", b"Transfer-Encoding: chunked", b"Content-Length: 5", HOST):
                self.assert_rejected(400, GET, HOST, line, fold)

    def test_too_many_fields(self) -> None:
        """More than `MAX_REQUEST_FIELDS` fields are rejected with 431."""
        lines = [b"X-%d: 1" % number for number in range(MAX_REQUEST_FIELDS - 1)]
        for method in (b"GET", b"POST"):
            line = method + b" / HTTP/1.1"
            self.assertEqual(
                parse(line, HOST, *lines).forward_bytes, build_head(line, HOST, *lines)
            )
            self.assert_rejected(431, line, HOST, *lines, b"Y: 1")
            self.assert_rejected(431, line, HOST, *lines, b"Content-Length: 0")
        self.assert_rejected(431, GET, HOST, *[b"X: 1"] * 3000)


class PartialHeadTests(SynchronousTestCase):
    """Heads whose end has not been received."""

    def test_beginning_of_valid_head(self) -> None:
        """Every prefix of a valid head is accepted, however it arrives."""
        for data in (build_head(GET, HOST, b"X: 1"), b"\r\n" + build_head(GET, HOST)):
            for step in (1, 2, 7):
                checked = 0
                for length in range(0, len(data), step):
                    previous, checked = checked, check_partial_head(data[:length], checked)
                    self.assertGreaterEqual(checked, previous)

    def test_beginning_of_invalid_head(self) -> None:
        """An invalid beginning is rejected with the status of the complete head."""
        for data, status in (
            (b"\x16\x03\x01", 400),
            (b"GET /\r\n", 400),
            (b"GET / HTTP/2.0\r\n", 505),
            (GET + b"\n", 400),
            (GET + b"\r\nno colon\r\n", 400),
            (GET + b"\r\nHost: a\nX", 400),
            (b"GET /" + b"a" * MAX_REQUEST_LINE, 414),
            (GET + b"\r\nX: " + b"a" * MAX_REQUEST_HEAD, 431),
        ):
            error = self.assertRaises(RequestError, check_partial_head, data, 0)
            self.assertEqual(error.status, status, msg=repr(data[:40]))


class RequestHeadCacheTests(SynchronousTestCase):
    """Caching changes no result, and is bounded."""

    HEADS = (
        build_head(GET, HOST),
        build_head(GET, HOST, b"Accept: x"),
        build_head(GET, b"Accept: x", HOST),
        build_head(b"POST /b?c HTTP/1.1", HOST, b"Accept: x"),
        build_head(b"GET /other HTTP/1.1", b"Host: b", b"Accept: x"),
        build_head(b"GET /other HTTP/1.0", b"Host: b", b"Accept: x"),
        build_head(b"GET http://b/ HTTP/1.1", b"Host: b", b"Accept: x"),
        build_head(b"GET http://c/ HTTP/1.1", b"Host: b", b"Accept: x"),
        build_head(b"OPTIONS * HTTP/1.1", b"Host: b", b"Accept: x"),
        build_head(b"GET * HTTP/1.1", b"Host: b", b"Accept: x"),
        build_head(GET, b"Accept: x"),
        build_head(GET, HOST, HOST),
        build_head(GET, HOST, b"Host: b"),
        build_head(GET, HOST, b"Connection: keep-alive"),
        build_head(GET, b"Connection: keep-alive", HOST),
        build_head(b"GET / HTTP/1.0", b"Connection: keep-alive", HOST),
        build_head(GET, HOST, b"Connection: keep-alive", b"Connection: close"),
        build_head(GET, HOST, b"Connection: keep-alive", b"Connection: keep-alive"),
        build_head(GET, HOST, b"Connection: Accept", b"Accept: x"),
        build_head(GET, HOST, b"Cookie: a=1", b"Accept: x"),
        build_head(GET, HOST, b"Cookie: a=1", b"Accept: x", b"Connection: keep-alive"),
        build_head(GET, HOST, b"Accept: x", b"Content-Length: 5"),
        build_head(GET, HOST, b"Accept: x", b"Content-Length: 5", b"Content-Length: 5"),
        build_head(GET, HOST, b"Accept: x", b"Transfer-Encoding: chunked"),
        build_head(GET, HOST, b"Accept: x", b"Transfer-Encoding: chunked", b"Content-Length: 5"),
        build_head(GET, HOST, b"Accept : x"),
        build_head(GET, HOST, b"Accept: \x00"),
        build_head(GET, HOST, b"X-Forwarded-For: 192.0.2.1", b"Accept: x"),
        build_head(b"GET  / HTTP/1.1", HOST, b"Accept: x"),
        build_head(b"GET / HTTP/2.0", HOST, b"Accept: x"),
    )

    def assert_same(self, parser: RequestHeadParser, heads: Iterable[bytes]) -> None:
        """Check that `parser` gives the results of a parser with empty caches."""
        for data in heads:
            result = outcome(parser, data)
            self.assertEqual(result, outcome(RequestHeadParser(), data), msg=repr(data))

    def test_repeated_heads(self) -> None:
        """Repeated heads give the same results in any stage of caching."""
        parser = RequestHeadParser()
        for _ in range(4):
            self.assert_same(parser, self.HEADS)
            self.assert_same(parser, reversed(self.HEADS))

    def test_heads_after_evictions(self) -> None:
        """Heads give the same results after cache generations were evicted."""
        parser = RequestHeadParser()
        for turn in range(3):
            self.assert_same(parser, self.HEADS)
            for number in range(3 * RequestHeadParser.MAX_CACHED_BLOCKS):
                parser.parse(build_head(GET, HOST, b"X: %d" % number))
                if number % 100 == turn:
                    self.assert_same(parser, self.HEADS)

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.sampled_from(HEADS), max_size=20))
    def test_heads_in_any_order(self, heads: list[bytes]) -> None:
        """Heads give the same results in any order."""
        self.assert_same(RequestHeadParser(), heads)

    def test_uncacheable_fields(self) -> None:
        """Credentials, framing and forwarding fields are never cached."""
        parser = RequestHeadParser()
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
                    parser.parse(build_head(GET, HOST, b"Accept: x", line, *keep_alive))
                parser.parse(build_head(GET, HOST, b"Accept: x", *lines, *keep_alive))
        pickled = pickle.dumps(parser)
        self.assertIn(b"Accept: x", pickled)
        for word in (b"secret", b"7777", b"ookie:", b"uthorization:"):
            self.assertNotIn(word, pickled)

    def test_repeated_blocks(self) -> None:
        """The field lines of a head are its `repeated_block` only if they may be cached."""
        parser, lines = RequestHeadParser(), (HOST, b"User-Agent: wrk")
        blocks = [parser.parse(build_head(GET, *lines)).repeated_block for _ in range(4)]
        self.assertEqual(blocks[0], None)
        self.assertEqual(blocks[-1], b"".join(line + b"\r\n" for line in lines))
        for line in (b"Cookie: a=1", b"Authorization: Basic eA==", b"Content-Length: 0"):
            for _ in range(4):
                head = parser.parse(build_head(GET, *lines, line))
                self.assertEqual(head.repeated_block, None, line)

    def test_targets_and_rejected_heads_are_not_cached(self) -> None:
        """Targets and rejected lines are never cached."""
        parser = RequestHeadParser()
        for _ in range(4):
            parser.parse(build_head(b"GET /secret HTTP/1.1", HOST))
            outcome(parser, build_head(GET, HOST, b"secret : 1"))
            outcome(parser, build_head(GET, HOST, b"X: secret\x00"))
        self.assertNotIn(b"secret", pickle.dumps(parser))

    def test_lines_are_bounded(self) -> None:
        """Lines that are never repeated take bounded memory."""
        parser = RequestHeadParser()
        limit = 2 * 4096
        for number in range(3 * limit):
            parser.parse(build_head(GET, HOST, b"X: line-%d" % number))
        self.assertLessEqual(pickle.dumps(parser).count(b"line-"), limit)

    def test_blocks_are_bounded(self) -> None:
        """Cached blocks are bounded in number."""
        parser = RequestHeadParser()
        lines = [b"X: line-%d" % number for number in range(60)]
        for line in lines:
            parser.parse(build_head(GET, HOST, line))
        size_before = len(pickle.dumps(parser))
        for line in lines:
            for second in lines:
                parser.parse(build_head(GET, HOST, line, second))
        size_after = len(pickle.dumps(parser))
        self.assertGreater(size_after, size_before)
        self.assertLess(size_after - size_before, 2 * RequestHeadParser.MAX_CACHED_BLOCKS * 60)

    def test_bytes_are_bounded(self) -> None:
        """Long lines take bounded memory."""
        parser = RequestHeadParser()
        for number in range(3000):
            lines = [b"X-%d: %d " % (i, number) + b"a" * 900 for i in range(2)]
            parser.parse(build_head(GET, HOST, *lines))
            parser.parse(build_head(GET, HOST, *lines))
        blocks = RequestHeadParser.MAX_CACHED_BLOCKS * RequestHeadParser.MAX_CACHED_BLOCK_LENGTH
        self.assertLess(len(pickle.dumps(parser)), 2 * (blocks + 512 * 1024) + 100_000)

    def test_long_blocks_are_not_cached(self) -> None:
        """Blocks longer than `MAX_CACHED_BLOCK_LENGTH` are not cached."""
        parser = RequestHeadParser()
        lines = [b"X-%d: " % number + b"a" * 500 for number in range(8)]
        for _ in range(2):
            parser.parse(build_head(GET, HOST, *lines))
        size_before = len(pickle.dumps(parser))
        for _ in range(3):
            parser.parse(build_head(GET, HOST, *lines))
        self.assertEqual(len(pickle.dumps(parser)), size_before)


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
    """Properties of any bytes."""

    @settings(max_examples=400, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.lists(PIECES, max_size=20).map(b"".join),
            st.lists(PIECES, max_size=12).map(lambda p: build_head(GET, HOST, b"".join(p))),
            st.binary(max_size=30).map(lambda data: b"GET " + data + b" HTTP/1.1\r\nHost: a\r\n"),
            st.binary(max_size=30).map(lambda data: build_head(GET, HOST) + data),
        )
    )
    def test_any_bytes_are_a_head_or_rejected(self, data: bytes) -> None:
        """Any bytes are parsed, or rejected with a suitable status."""
        for parser in (RequestHeadParser(), SHARED):
            try:
                parser.parse(data)
            except RequestError as error:
                self.assertIn(error.status, (400, 414, 417, 431, 501, 505), msg=repr(data))

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
    def test_head_with_one_changed_byte(
        self, line: bytes, lines: list[bytes], position: int, byte: int
    ) -> None:
        """A head with one byte changed is rejected, or forwarded without control characters."""
        data = build_head(line, HOST, *lines)
        # The caller finds the head by the CRLF at its end.
        position %= len(data) - 2
        data = data[:position] + bytes([byte]) + data[position + 1 :]
        result = outcome(SHARED, data)
        if isinstance(result, int):
            return
        rest = result.forward_bytes.replace(b"\r\n", b"")
        for control in (*range(0x09), *range(0x0A, 0x20), 0x7F):
            self.assertNotIn(bytes([control]), rest, msg=repr(data))
        self.assertEqual(result.forward_bytes[-2:], b"\r\n")


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
