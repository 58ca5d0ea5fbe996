"""Response heads: parsed in exactly one way, or rejected."""

from __future__ import annotations

import pickle

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import ResponseError
from balancebeam.protocols.http1.body import CHUNKED, CLOSE_DELIMITED
from balancebeam.protocols.http1.response_head import (
    MAX_RESPONSE_FIELDS,
    ResponseHead,
    ResponseHeadParser,
    has_body,
)

OK = b"HTTP/1.1 200 OK\r\n"


def build_head(*lines: bytes) -> bytes:
    """Join a first line and field lines to a head, each ended by CRLF."""
    return b"".join(line + b"\r\n" for line in lines)


def parse(data: bytes) -> ResponseHead:
    """Parse one head with empty caches."""
    return ResponseHeadParser().parse(data)


def outcome(parser: ResponseHeadParser, data: bytes) -> ResponseHead | None:
    """Return the parsed head, or `None` if it is rejected."""
    try:
        return parser.parse(data)
    except ResponseError:
        return None


class StatusLineTests(SynchronousTestCase):
    """The status line."""

    def test_valid_status_lines(self) -> None:
        """Any reason phrase, or none, is accepted; the version is forwarded as 1.1."""
        cases = {
            b"HTTP/1.1 200 OK": (200, b"HTTP/1.1 200 OK", True),
            b"HTTP/1.1 200 ": (200, b"HTTP/1.1 200 ", True),
            b"HTTP/1.1 200": (200, b"HTTP/1.1 200 ", True),
            b"HTTP/1.1 404 Not  Found\t!": (404, b"HTTP/1.1 404 Not  Found\t!", True),
            b"HTTP/1.1 599 \xc3\xa4": (599, b"HTTP/1.1 599 \xc3\xa4", True),
            b"HTTP/1.0 200 OK": (200, b"HTTP/1.1 200 OK", False),
            b"HTTP/1.0 200": (200, b"HTTP/1.1 200 ", False),
            b"HTTP/1.9 200 OK": (200, b"HTTP/1.1 200 OK", True),
        }
        parser = ResponseHeadParser()
        for line, (status, wire, persistent) in cases.items():
            for _ in range(3):
                parsed = parser.parse(build_head(line, b"Content-Length: 0"))
                self.assertEqual(
                    (parsed.status, parsed.forward_bytes, parsed.persistent),
                    (status, build_head(wire, b"Content-Length: 0"), persistent),
                    msg=repr(line),
                )

    def test_invalid_status_lines(self) -> None:
        """Status lines that do not match the grammar are rejected every time."""
        parser = ResponseHeadParser()
        for line in (
            b"",
            b"HTTP/1.1",
            b"HTTP/1.1 ",
            b"HTTP/1.1 OK",
            b"HTTP/1.1 20 OK",
            b"HTTP/1.1 2000 OK",
            b"HTTP/1.1 099 OK",
            b"HTTP/1.1 600 OK",
            b"HTTP/1.1 -20 OK",
            b"HTTP/1.1  200 OK",
            b"HTTP/1.1\t200 OK",
            b"HTTP/1.1 200OK",
            b"HTTP/1.1 200\tOK",
            b" HTTP/1.1 200 OK",
            b"http/1.1 200 OK",
            b"HTTP/2 200 OK",
            b"HTTP/2.0 200 OK",
            b"HTTP/0.9 200 OK",
            b"HTTP/1.10 200 OK",
            b"ICY 200 OK",
            b"HTTP/1.1 200 O\x00K",
            b"HTTP/1.1 200 O\rK",
            b"HTTP/1.1 200 O\nK",
            b"HTTP/1.1 200 OK\n",
            b"HTTP/1.1 200 \x7f",
            b"HTTP/1.1 \xb2\xb0\xb0 OK",
        ):
            for _ in range(2):
                self.assertIsNone(outcome(parser, build_head(line)), msg=repr(line))


class FramingTests(SynchronousTestCase):
    """Message framing (RFC 9112, 6.3)."""

    def test_valid_content_length(self) -> None:
        """Content-Length is parsed and forwarded unchanged."""
        for value in (b"0", b"5", b"05", b"0000000000000000005", b"9223372036854775807"):
            for line in (b"Content-Length: ", b"content-length:", b"Content-Length: \t"):
                parsed = parse(OK + build_head(line + value + b" "))
                self.assertEqual(parsed.length, int(value), msg=repr(line + value))
                self.assertEqual(parsed.forward_bytes, OK + build_head(line + value + b" "))

    def test_invalid_content_length(self) -> None:
        """Values other than one decimal number below 2^63 are rejected."""
        for value in (
            b"",
            b" ",
            b"+5",
            b"-5",
            b"5_0",
            b"0x5",
            b"5, 5",
            b"5,5",
            b"5 5",
            b"5.0",
            b"5;",
            b"x",
            b"\xb2",
            b"\xd9\xa3",
            b"9223372036854775808",
            b"9" * 20,
            b"9" * 5000,
        ):
            for name in (b"Content-Length: ", b"content-length: "):
                line = name + value
                self.assertIsNone(
                    outcome(ResponseHeadParser(), OK + build_head(line)), msg=repr(line)
                )

    def test_repeated_content_length(self) -> None:
        """Repeated Content-Length fields are rejected, also with equal values."""
        length, lower = b"Content-Length: 5", b"content-length: 5"
        for lines in (
            (length, length),
            (length, b"Content-Length: 6"),
            (length, lower),
            (lower, length),
        ):
            self.assertIsNone(
                outcome(ResponseHeadParser(), OK + build_head(*lines)), msg=repr(lines)
            )

    def test_chunked_body(self) -> None:
        """Transfer-Encoding: chunked is recognized in any case, and removed."""
        for line in (b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked "):
            parsed = parse(OK + build_head(b"A: 1", line, b"B: 2"))
            self.assertEqual(
                (parsed.length, parsed.forward_bytes),
                (CHUNKED, OK + build_head(b"A: 1", b"B: 2")),
                msg=repr(line),
            )

    def test_unsupported_transfer_codings(self) -> None:
        """A Transfer-Encoding other than chunked is rejected."""
        for value in (
            b"",
            b"gzip",
            b"gzip, chunked",
            b"chunked, gzip",
            b"chunked, chunked",
            b"chunked,",
            b"identity",
            b"xchunked",
            b"chunked;a=b",
            b'"chunked"',
            b"\x0bchunked",
            b"chunked\x00",
        ):
            line = b"Transfer-Encoding: " + value
            self.assertIsNone(outcome(ResponseHeadParser(), OK + build_head(line)), msg=repr(line))

    def test_repeated_transfer_encoding(self) -> None:
        """Repeated Transfer-Encoding fields are rejected."""
        chunked = b"Transfer-Encoding: chunked"
        for second in (chunked, b"Transfer-Encoding: gzip", b"Transfer-Encoding:"):
            for lines in ((chunked, second), (second, chunked)):
                self.assertIsNone(
                    outcome(ResponseHeadParser(), OK + build_head(*lines)), msg=repr(lines)
                )

    def test_content_length_with_transfer_encoding(self) -> None:
        """Content-Length and Transfer-Encoding together are rejected."""
        lines = [b"Content-Length: 5", b"Transfer-Encoding: chunked"]
        for data in (OK + build_head(*lines), OK + build_head(*reversed(lines))):
            self.assertIsNone(outcome(ResponseHeadParser(), data), msg=repr(data))

    def test_transfer_encoding_in_http_1_0(self) -> None:
        """Transfer-Encoding in an HTTP/1.0 response is rejected."""
        data = build_head(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked")
        self.assertIsNone(outcome(ResponseHeadParser(), data))

    def test_close_delimited_body(self) -> None:
        """A body without framing fields ends with the connection."""
        self.assertEqual(parse(OK).length, CLOSE_DELIMITED)
        self.assertEqual(parse(OK + build_head(b"Server: x")).length, CLOSE_DELIMITED)

    def test_framing_of_bodiless_statuses_is_removed(self) -> None:
        """1xx and 204 are forwarded without framing fields."""
        for status in (100, 101, 102, 103, 199, 204):
            line = b"HTTP/1.1 %d X" % status
            for framing in (
                b"Content-Length: 5",
                b"content-length: 0",
                b"Transfer-Encoding: chunked",
            ):
                parsed = parse(build_head(line, b"A: 1", framing, b"B: 2"))
                self.assertEqual(
                    (parsed.length, parsed.forward_bytes),
                    (0, build_head(line, b"A: 1", b"B: 2")),
                    msg=f"{status} {framing!r}",
                )

    def test_ambiguous_framing_of_bodiless_statuses(self) -> None:
        """Ambiguous framing fields are rejected in a 204 too."""
        both = (b"Content-Length: 5", b"Transfer-Encoding: chunked")
        for lines in (both, both[:1] * 2, (b"Content-Length: x",)):
            self.assertIsNone(outcome(ResponseHeadParser(), build_head(b"HTTP/1.1 204 X", *lines)))

    def test_content_length_of_304(self) -> None:
        """A 304 keeps the Content-Length of the corresponding 200."""
        data = build_head(b"HTTP/1.1 304 Not Modified", b"Content-Length: 5")
        self.assertEqual((parse(data).length, parse(data).forward_bytes), (5, data))

    def test_has_body(self) -> None:
        """Responses to HEAD, 1xx, 204 and 304 have no body."""
        cases = [
            (b"GET", 200, True),
            (b"GET", 404, True),
            (b"POST", 500, True),
            (b"HEAD", 200, False),
            (b"GET", 204, False),
            (b"GET", 304, False),
            (b"GET", 100, False),
            (b"GET", 101, False),
            (b"GET", 205, True),
        ]
        for method, status, expected in cases:
            self.assertEqual(has_body(method, status), expected, msg=f"{method!r} {status}")


class FieldTests(SynchronousTestCase):
    """Fields that are forwarded, removed or rejected."""

    def test_invalid_field_lines(self) -> None:
        """Invalid field lines are rejected wherever they are in the head."""
        for line in (
            b"no colon",
            b": 1",
            b"X : 1",
            b" X: folded",
            b"\tX: folded",
            b"X: a\rb",
            b"X: a\nb",
            b"X: \x00",
            b"X Y: 1",
            b"",
        ):
            for preceding in ([], [b"Content-Length: 5"], [b"Connection: close"]):
                data = OK + build_head(*preceding, line, b"Server: x")
                self.assertIsNone(outcome(ResponseHeadParser(), data), msg=repr(data))

    def test_end_to_end_fields_are_unchanged(self) -> None:
        """End-to-end fields are forwarded byte for byte."""
        lines = [
            b"server:x",
            b"Set-Cookie: a=1",
            b"Set-Cookie: b=2",
            b"Via: 1.0 other",
            b'WWW-Authenticate: Basic realm="x"',
            b'ETag:  W/"1" ',
            b"Trailer: X-Sum",
            b"Content-Length: 5",
            b"Empty:",
        ]
        self.assertEqual(parse(OK + build_head(*lines)).forward_bytes, OK + build_head(*lines))

    def test_hop_by_hop_fields_are_removed(self) -> None:
        """Hop-by-hop fields are removed."""
        for line in (
            b"Connection: close",
            b"Connection: keep-alive",
            b"connection: Keep-Alive",
            b"Connection:",
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authenticate: Basic",
            b"TE: trailers",
            b"Upgrade: h2c",
        ):
            parsed = parse(OK + build_head(b"A: 1", line, b"Content-Length: 5", b"B: 2"))
            self.assertEqual(
                (parsed.forward_bytes, parsed.length),
                (OK + build_head(b"A: 1", b"Content-Length: 5", b"B: 2"), 5),
                msg=repr(line),
            )

    def test_repeated_connection_fields_are_removed(self) -> None:
        """All Connection fields are removed."""
        line = b"Connection: keep-alive"
        self.assertEqual(
            parse(OK + build_head(line, line, b"A: 1", line)).forward_bytes,
            OK + build_head(b"A: 1"),
        )

    def test_fields_named_by_connection_are_removed(self) -> None:
        """Fields that Connection names are removed."""
        data = OK + build_head(
            b"A: 1", b"X-Hop: 1", b"x-hop: 2", b"Connection: X-Hop, Other", b"B: 2"
        )
        self.assertEqual(parse(data).forward_bytes, OK + build_head(b"A: 1", b"B: 2"))

    def test_connection_cannot_name_the_framing(self) -> None:
        """Connection cannot remove framing fields."""
        data = OK + build_head(
            b"Connection: content-length, transfer-encoding", b"Content-Length: 5"
        )
        parsed = parse(data)
        self.assertEqual(
            (parsed.length, parsed.forward_bytes), (5, OK + build_head(b"Content-Length: 5"))
        )

    def test_too_many_fields(self) -> None:
        """More than `MAX_RESPONSE_FIELDS` fields are rejected."""
        line = b"X: 1"
        self.assertIsNotNone(
            outcome(ResponseHeadParser(), OK + build_head(*[line] * (MAX_RESPONSE_FIELDS - 2)))
        )
        for extra in ([], [b"Connection: close"]):
            data = OK + build_head(*extra, *[line] * (MAX_RESPONSE_FIELDS + 1))
            self.assertIsNone(outcome(ResponseHeadParser(), data))


class PersistenceTests(SynchronousTestCase):
    """Whether the server keeps the connection open."""

    def test_versions_and_options(self) -> None:
        """Version and connection options decide whether the connection persists."""
        cases: list[tuple[bytes, list[bytes], bool]] = [
            (b"HTTP/1.1", [], True),
            (b"HTTP/1.1", [b"Connection: keep-alive"], True),
            (b"HTTP/1.1", [b"Connection: close"], False),
            (b"HTTP/1.1", [b"connection:CLOSE"], False),
            (b"HTTP/1.1", [b"Connection: x, close"], False),
            (b"HTTP/1.1", [b"Connection: keep-alive", b"Connection: close"], False),
            (b"HTTP/1.1", [b"Connection: closed"], True),
            (b"HTTP/1.0", [], False),
            (b"HTTP/1.0", [b"Connection: keep-alive"], True),
            (b"HTTP/1.0", [b"Connection: Keep-Alive"], True),
            (b"HTTP/1.0", [b"Connection: close, keep-alive"], False),
        ]
        for version, lines, persistent in cases:
            parsed = parse(build_head(version + b" 200 OK", *lines, b"Content-Length: 0"))
            self.assertEqual(parsed.persistent, persistent, msg=f"{version!r} {lines}")


class DateAndUpgradeTests(SynchronousTestCase):
    """What is known of Date and Upgrade."""

    def test_has_date(self) -> None:
        """A Date field is recognized in any case, cached or not."""
        cases: list[tuple[list[bytes], bool]] = [
            ([], False),
            ([b"Date: Thu, 01 Jan 1970 00:00:00 GMT"], True),
            ([b"date: Thu, 01 Jan 1970 00:00:00 GMT"], True),
            ([b"DATE:x", b"Connection: close"], True),
            ([b"X-Date: x"], False),
            ([b"X: Date: x"], False),
            ([b"Dated: x"], False),
        ]
        for lines, has_date in cases:
            parser = ResponseHeadParser()
            for _ in range(3):
                parsed = parser.parse(OK + build_head(*lines))
                self.assertEqual(parsed.has_date, has_date, msg=repr(lines))
                forwarded = [line for line in lines if not line.startswith(b"Connection")]
                self.assertEqual(parsed.forward_bytes, OK + build_head(*forwarded), msg=repr(lines))

    def test_upgrade(self) -> None:
        """The protocol of a 101 is returned, its hop-by-hop fields are removed."""
        parsed = parse(
            build_head(
                b"HTTP/1.1 101 Switching Protocols",
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                b"Sec-WebSocket-Accept: x",
            )
        )
        self.assertEqual(parsed.upgrade, b"websocket")
        self.assertEqual(
            parsed.forward_bytes,
            build_head(b"HTTP/1.1 101 Switching Protocols", b"Sec-WebSocket-Accept: x"),
        )

    def test_repeated_upgrade(self) -> None:
        """Several Upgrade lines are joined to one list."""
        parsed = parse(build_head(b"HTTP/1.1 426 X", b"Upgrade: a", b"upgrade: b/1"))
        self.assertEqual(parsed.upgrade, b"a, b/1")


class ResponseHeadCacheTests(SynchronousTestCase):
    """Caching changes no result, and is bounded."""

    HEADS = (
        OK,
        OK + build_head(b"Server: x", b"Content-Length: 5", b"Date: now"),
        OK + build_head(b"Server: x", b"Content-Length: 5", b"Content-Length: 5"),
        OK + build_head(b"Server: x", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        OK + build_head(b"Server: x", b"Transfer-Encoding: chunked", b"date: now"),
        OK + build_head(b"Server: x", b"Connection: keep-alive", b"Set-Cookie: secret"),
        OK + build_head(b"Server: x", b"Connection: Server"),
        OK + build_head(b"Server : x"),
        OK + build_head(b"Server: \x00"),
        build_head(b"HTTP/1.0 200 OK", b"Server: x", b"Connection: keep-alive"),
        build_head(b"HTTP/1.1 204 No Content", b"Server: x", b"Content-Length: 5"),
        build_head(b"HTTP/1.1 304 Not Modified", b"Server: x", b"Content-Length: 5"),
        build_head(b"HTTP/1.1 2 X", b"Server: x"),
    )

    def test_repeated_heads(self) -> None:
        """Repeated heads give the same results in any stage of caching."""
        parser = ResponseHeadParser()
        for _ in range(3):
            for data in self.HEADS:
                self.assertEqual(
                    outcome(parser, data), outcome(ResponseHeadParser(), data), msg=data
                )

    def test_uncacheable_fields(self) -> None:
        """Credentials, framing and connection options are never cached."""
        parser = ResponseHeadParser()
        lines = [b"Set-Cookie: secret", b"www-authenticate: secret", b"Content-Length: 77"]
        for _ in range(3):
            parser.parse(OK + build_head(b"Server: x", *lines))
            parser.parse(OK + build_head(b"Server: x", *lines, b"Connection: secret"))
        pickled = pickle.dumps(parser)
        self.assertIn(b"Server: x", pickled)
        self.assertNotIn(b"secret", pickled)
        self.assertNotIn(b"77", pickled)

    def test_status_lines_are_bounded(self) -> None:
        """Cached status lines are bounded in number and length."""
        parser = ResponseHeadParser()
        for number in range(1000):
            parser.parse(build_head(b"HTTP/1.1 200 reason-%d" % number))
        parser.parse(build_head(b"HTTP/1.1 200 " + b"long" * 1000))
        pickled = pickle.dumps(parser)
        # As a key and as a forwarded line, which may be one object.
        self.assertLessEqual(
            pickled.count(b"reason-"), 2 * ResponseHeadParser.MAX_CACHED_STATUS_LINES
        )
        self.assertNotIn(b"longlong", pickled)


STATUS_LINES = st.one_of(
    st.builds(
        lambda minor, status: b"HTTP/1.%d %d X" % (minor, status),
        st.integers(0, 2),
        st.sampled_from([100, 103, 200, 204, 206, 302, 304, 404, 500]),
    ),
    st.sampled_from([b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/2.0 200 OK", b"nonsense"]),
)
LINES = st.one_of(
    st.sampled_from(
        [
            b"Content-Length: 5",
            b"content-length: 0",
            b"Content-Length: 5, 5",
            b"Transfer-Encoding: chunked",
            b"transfer-encoding: gzip",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Connection: X-Hop, server",
            b"X-Hop: 1",
            b"Server: x",
            b"Date: now",
            b"date: now",
            b"Set-Cookie: a=1",
            b"Upgrade: a",
            b"X : 1",
        ]
    ),
    st.tuples(
        st.text("abXY-_", min_size=1, max_size=4).map(str.encode),
        st.text("ab :,\t\u00e4", max_size=6).map(lambda text: text.encode("latin-1")),
    ).map(lambda pair: pair[0] + b":" + pair[1]),
)
SHARED = ResponseHeadParser()


class PropertyTests(SynchronousTestCase):
    """Properties of all heads."""

    @settings(max_examples=300, deadline=None)
    @given(STATUS_LINES, st.lists(LINES, max_size=5))
    def test_forwarded_head_is_parsed_by_h11(self, line: bytes, lines: list[bytes]) -> None:
        """h11 parses a forwarded head with the same status and framing."""
        parsed = outcome(SHARED, build_head(line, *lines))
        fresh = outcome(ResponseHeadParser(), build_head(line, *lines))
        if parsed is None or fresh is None:
            self.assertEqual(parsed, fresh)
            return
        if has_body(b"GET", parsed.status):
            self.assertEqual(parsed.length, fresh.length)
        parsed.length = fresh.length
        self.assertEqual(parsed, fresh)
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        end = b"Transfer-Encoding: chunked\r\n\r\n" if parsed.length == CHUNKED else b"\r\n"
        connection.receive_data(parsed.forward_bytes + end)
        event = connection.next_event()
        assert isinstance(event, (h11.Response, h11.InformationalResponse))
        self.assertEqual((event.status_code, event.http_version), (parsed.status, b"1.1"))
        names = {name for name, _ in event.headers}
        self.assertFalse(
            names & {b"connection", b"x-hop" if b"Connection: X-Hop" in lines else b""}
        )
        if not has_body(b"GET", parsed.status):
            return
        body = {CHUNKED: b"5\r\nhello\r\n0\r\n\r\n", CLOSE_DELIMITED: b"hello"}
        content = b"hello" if parsed.length < 0 else b"x" * parsed.length
        connection.receive_data(body.get(parsed.length, content))
        if parsed.length == CLOSE_DELIMITED:
            connection.receive_data(b"")
        received = b""
        while isinstance(event := connection.next_event(), h11.Data):
            received += event.data
        self.assertIsInstance(event, h11.EndOfMessage)
        self.assertEqual(received, content)
        self.assertEqual(connection.trailing_data[0], b"")

    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.binary(max_size=40).map(lambda data: OK + data),
            st.binary(max_size=40).map(lambda data: OK + data + b"\r\n"),
            st.binary(max_size=20).map(lambda data: OK + b"Content-Length: " + data + b"\r\n"),
        )
    )
    @example(b"HTTP/1.1 200 \r\nContent-Length: ")
    def test_any_bytes_are_a_head_or_rejected(self, data: bytes) -> None:
        """Any bytes are parsed, or rejected with `ResponseError`."""
        outcome(SHARED, data)


class HeadCacheTests(SynchronousTestCase):
    """The cache of heads without their framing."""

    COMMON = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: y\r\nContent-Length: 5\r\n"

    def test_content_length_is_not_cached(self) -> None:
        """Content-Length is parsed in every head."""
        parser = ResponseHeadParser()
        for _ in range(4):
            for length in (5, 0, 7, 123456):
                data = self.COMMON.replace(b"5", b"%d" % length)
                parsed = parser.parse(data)
                self.assertEqual((parsed.length, parsed.forward_bytes), (length, data))
                self.assertTrue(parsed.persistent)
                self.assertTrue(parsed.has_date)

    def test_invalid_framing_with_cached_head(self) -> None:
        """Invalid framing is rejected although the rest of the head is cached."""
        parser = ResponseHeadParser()
        for _ in range(4):
            parser.parse(self.COMMON)
            for value in (b"+5", b"", b"5 5", b"5,5", b"9" * 19, b"\xb2"):
                with self.assertRaises(ResponseError):
                    parser.parse(self.COMMON.replace(b"5", value))
            with self.assertRaises(ResponseError):
                parser.parse(self.COMMON + b"Content-Length: 5\r\n")
            with self.assertRaises(ResponseError):
                parser.parse(self.COMMON + b"Transfer-Encoding: chunked\r\n")

    def test_persistence_is_not_cached(self) -> None:
        """Connection and the version are parsed in every head."""
        parser = ResponseHeadParser()
        for _ in range(4):
            parser.parse(self.COMMON)
            parsed = parser.parse(self.COMMON + b"Connection: keep-alive\r\n")
            self.assertEqual((parsed.forward_bytes, parsed.persistent), (self.COMMON, True))
            parsed = parser.parse(self.COMMON + b"Connection: close\r\n")
            self.assertEqual((parsed.forward_bytes, parsed.persistent), (self.COMMON, False))
            parsed = parser.parse(self.COMMON.replace(b"HTTP/1.1", b"HTTP/1.0"))
            self.assertEqual((parsed.forward_bytes, parsed.persistent), (self.COMMON, False))

    def test_head_cache_has_no_credentials_or_framing(self) -> None:
        """Credentials, framing and keep-alive are not in the cached heads."""
        parser = ResponseHeadParser()
        for _ in range(4):
            parser.parse(self.COMMON + b"Set-Cookie: secret\r\nConnection: keep-alive\r\n")
            parser.parse(self.COMMON + b"Connection: keep-alive\r\n")
        text = (
            repr(parser._head_cache)
            + repr(parser._line_cache.plain)
            + repr(parser._line_cache.special)
        )
        self.assertTrue(parser._head_cache)
        for word in ("secret", "Content-Length", "keep-alive"):
            self.assertNotIn(word, text)

    def test_head_cache_is_bounded(self) -> None:
        """The cache of heads has at most `MAX_CACHED_HEADS` entries."""
        parser = ResponseHeadParser()
        for number in range(5000):
            data = self.COMMON.replace(b"y", b"%d" % number)
            parser.parse(data)
            parser.parse(data)
        self.assertLessEqual(len(parser._head_cache), parser.MAX_CACHED_HEADS)


class ResponseHeadRegressionTests(SynchronousTestCase):
    """Response heads that were misread."""

    def test_cached_name_without_colon(self) -> None:
        """A line that was only a cached field name passed without a colon."""
        parser = ResponseHeadParser()
        parser.parse(b"HTTP/1.1 200 OK\r\nServer: x\r\n")
        self.assertRaises(ResponseError, parser.parse, b"HTTP/1.1 200 OK\r\nServer\r\n")

    def test_field_limit_of_cached_lines(self) -> None:
        """The fast path counted the status line and the empty line as fields."""
        parser = ResponseHeadParser()
        data = b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * MAX_RESPONSE_FIELDS
        for _ in range(2):
            parser.parse(data)

    def test_date_named_by_connection(self) -> None:
        """A Date that Connection named was removed, but counted as present."""
        head = ResponseHeadParser().parse(b"HTTP/1.1 200 OK\r\nConnection: date\r\nDate: x\r\n")
        self.assertEqual(head.has_date, b"Date:" in head.forward_bytes)

    def test_length_of_cached_204(self) -> None:
        """The fast path gave a 204 a body until the close of the connection."""
        for data in (b"HTTP/1.1 204 X\r\nA: 1\r\n", b"HTTP/1.1 204 X\r\n"):
            parser = ResponseHeadParser()
            lengths = [parser.parse(data).length for _ in range(2)]
            self.assertEqual(lengths, [0, 0])
