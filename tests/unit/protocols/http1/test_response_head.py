"""Response heads: read in exactly one way, or not passed on."""

from __future__ import annotations

import pickle

import h11
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import ResponseError
from balancebeam.protocols.http1.body import CHUNKED, CLOSE_DELIMITED
from balancebeam.protocols.http1.local_reply import (
    http_date,
    jsend_error,
    local_reply_fields,
    reason_phrase,
)
from balancebeam.protocols.http1.response_head import (
    MAX_RESPONSE_FIELDS,
    ResponseHead,
    ResponseHeadParser,
    has_body,
)

OK = b"HTTP/1.1 200 OK\r\n"


def head(*lines: bytes) -> bytes:
    """A head of these lines."""
    return b"".join(line + b"\r\n" for line in lines)


def read(data: bytes) -> ResponseHead:
    """Read one head with no memory of others."""
    return ResponseHeadParser().parse(data)


def outcome(heads: ResponseHeadParser, data: bytes) -> ResponseHead | None:
    """What becomes of a head; `None` if it is refused."""
    try:
        return heads.parse(data)
    except ResponseError:
        return None


class StatusLineTests(SynchronousTestCase):
    """The first line."""

    def test_what_is_read(self) -> None:
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
        heads = ResponseHeadParser()
        for line, (status, wire, persistent) in cases.items():
            for _ in range(3):
                found = heads.parse(head(line, b"Content-Length: 0"))
                self.assertEqual(
                    (found.status, found.forward_bytes, found.persistent),
                    (status, head(wire, b"Content-Length: 0"), persistent),
                    msg=repr(line),
                )

    def test_what_is_refused(self) -> None:
        heads = ResponseHeadParser()
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
                self.assertIsNone(outcome(heads, head(line)), msg=repr(line))


class FramingTests(SynchronousTestCase):
    """Where the body ends (RFC 9112, 6.3)."""

    def test_lengths_that_are_read(self) -> None:
        for value in (b"0", b"5", b"05", b"0000000000000000005", b"9223372036854775807"):
            for line in (b"Content-Length: ", b"content-length:", b"Content-Length: \t"):
                found = read(OK + head(line + value + b" "))
                self.assertEqual(found.length, int(value), msg=repr(line + value))
                self.assertEqual(found.forward_bytes, OK + head(line + value + b" "))

    def test_lengths_that_are_refused(self) -> None:
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
                self.assertIsNone(outcome(ResponseHeadParser(), OK + head(line)), msg=repr(line))

    def test_two_lengths_are_refused(self) -> None:
        one, other = b"Content-Length: 5", b"content-length: 5"
        for lines in ((one, one), (one, b"Content-Length: 6"), (one, other), (other, one)):
            self.assertIsNone(outcome(ResponseHeadParser(), OK + head(*lines)), msg=repr(lines))

    def test_chunked(self) -> None:
        for line in (b"Transfer-Encoding: chunked", b"transfer-encoding:Chunked "):
            found = read(OK + head(b"A: 1", line, b"B: 2"))
            self.assertEqual(
                (found.length, found.forward_bytes),
                (CHUNKED, OK + head(b"A: 1", b"B: 2")),
                msg=repr(line),
            )

    def test_codings_that_are_refused(self) -> None:
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
            self.assertIsNone(outcome(ResponseHeadParser(), OK + head(line)), msg=repr(line))

    def test_codings_on_two_lines_are_refused(self) -> None:
        chunked = b"Transfer-Encoding: chunked"
        for other in (chunked, b"Transfer-Encoding: gzip", b"Transfer-Encoding:"):
            for lines in ((chunked, other), (other, chunked)):
                self.assertIsNone(outcome(ResponseHeadParser(), OK + head(*lines)), msg=repr(lines))

    def test_length_beside_a_coding_is_refused(self) -> None:
        lines = [b"Content-Length: 5", b"Transfer-Encoding: chunked"]
        for data in (OK + head(*lines), OK + head(*reversed(lines))):
            self.assertIsNone(outcome(ResponseHeadParser(), data), msg=repr(data))

    def test_a_coding_in_http_1_0_is_refused(self) -> None:
        data = head(b"HTTP/1.0 200 OK", b"Transfer-Encoding: chunked")
        self.assertIsNone(outcome(ResponseHeadParser(), data))

    def test_without_either_the_end_of_the_connection_ends_the_body(self) -> None:
        self.assertEqual(read(OK).length, CLOSE_DELIMITED)
        self.assertEqual(read(OK + head(b"Server: x")).length, CLOSE_DELIMITED)

    def test_statuses_without_a_body_lose_their_framing_fields(self) -> None:
        for status in (100, 101, 102, 103, 199, 204):
            line = b"HTTP/1.1 %d X" % status
            for framing in (
                b"Content-Length: 5",
                b"content-length: 0",
                b"Transfer-Encoding: chunked",
            ):
                found = read(head(line, b"A: 1", framing, b"B: 2"))
                self.assertEqual(
                    (found.length, found.forward_bytes),
                    (0, head(line, b"A: 1", b"B: 2")),
                    msg=f"{status} {framing!r}",
                )

    def test_what_cannot_be_trusted_is_refused_there_as_well(self) -> None:
        both = (b"Content-Length: 5", b"Transfer-Encoding: chunked")
        for lines in (both, both[:1] * 2, (b"Content-Length: x",)):
            self.assertIsNone(outcome(ResponseHeadParser(), head(b"HTTP/1.1 204 X", *lines)))

    def test_304_keeps_the_length_of_what_it_stands_for(self) -> None:
        data = head(b"HTTP/1.1 304 Not Modified", b"Content-Length: 5")
        self.assertEqual((read(data).length, read(data).forward_bytes), (5, data))

    def test_who_has_a_body(self) -> None:
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
    """What is passed on, and what is not."""

    def test_lines_that_are_refused(self) -> None:
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
            for before in ([], [b"Content-Length: 5"], [b"Connection: close"]):
                data = OK + head(*before, line, b"Server: x")
                self.assertIsNone(outcome(ResponseHeadParser(), data), msg=repr(data))

    def test_ordinary_fields_pass_byte_for_byte(self) -> None:
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
        self.assertEqual(read(OK + head(*lines)).forward_bytes, OK + head(*lines))

    def test_hop_by_hop_fields_stop_here(self) -> None:
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
            found = read(OK + head(b"A: 1", line, b"Content-Length: 5", b"B: 2"))
            self.assertEqual(
                (found.forward_bytes, found.length),
                (OK + head(b"A: 1", b"Content-Length: 5", b"B: 2"), 5),
                msg=repr(line),
            )

    def test_repeated_connection_fields_all_stop_here(self) -> None:
        line = b"Connection: keep-alive"
        self.assertEqual(
            read(OK + head(line, line, b"A: 1", line)).forward_bytes, OK + head(b"A: 1")
        )

    def test_fields_that_connection_names_stop_here(self) -> None:
        data = OK + head(b"A: 1", b"X-Hop: 1", b"x-hop: 2", b"Connection: X-Hop, Other", b"B: 2")
        self.assertEqual(read(data).forward_bytes, OK + head(b"A: 1", b"B: 2"))

    def test_connection_cannot_name_the_framing(self) -> None:
        data = OK + head(b"Connection: content-length, transfer-encoding", b"Content-Length: 5")
        found = read(data)
        self.assertEqual((found.length, found.forward_bytes), (5, OK + head(b"Content-Length: 5")))

    def test_too_many_fields(self) -> None:
        line = b"X: 1"
        self.assertIsNotNone(
            outcome(ResponseHeadParser(), OK + head(*[line] * (MAX_RESPONSE_FIELDS - 2)))
        )
        for extra in ([], [b"Connection: close"]):
            data = OK + head(*extra, *[line] * (MAX_RESPONSE_FIELDS + 1))
            self.assertIsNone(outcome(ResponseHeadParser(), data))


class PersistenceTests(SynchronousTestCase):
    """Whether the server keeps the connection."""

    def test_versions_and_options(self) -> None:
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
            found = read(head(version + b" 200 OK", *lines, b"Content-Length: 0"))
            self.assertEqual(found.persistent, persistent, msg=f"{version!r} {lines}")


class DateAndUpgradeTests(SynchronousTestCase):
    """What the door has to know to end the head."""

    def test_dated(self) -> None:
        cases: list[tuple[list[bytes], bool]] = [
            ([], False),
            ([b"Date: Thu, 01 Jan 1970 00:00:00 GMT"], True),
            ([b"date: Thu, 01 Jan 1970 00:00:00 GMT"], True),
            ([b"DATE:x", b"Connection: close"], True),
            ([b"X-Date: x"], False),
            ([b"X: Date: x"], False),
            ([b"Dated: x"], False),
        ]
        for lines, dated in cases:
            heads = ResponseHeadParser()
            for _ in range(3):
                found = heads.parse(OK + head(*lines))
                self.assertEqual(found.has_date, dated, msg=repr(lines))
                kept = [line for line in lines if not line.startswith(b"Connection")]
                self.assertEqual(found.forward_bytes, OK + head(*kept), msg=repr(lines))

    def test_the_agreed_protocol(self) -> None:
        found = read(
            head(
                b"HTTP/1.1 101 Switching Protocols",
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                b"Sec-WebSocket-Accept: x",
            )
        )
        self.assertEqual(found.upgrade, b"websocket")
        self.assertEqual(
            found.forward_bytes,
            head(b"HTTP/1.1 101 Switching Protocols", b"Sec-WebSocket-Accept: x"),
        )

    def test_several_lines_are_one_list(self) -> None:
        found = read(head(b"HTTP/1.1 426 X", b"Upgrade: a", b"upgrade: b/1"))
        self.assertEqual(found.upgrade, b"a, b/1")


class ResponseHeadCacheTests(SynchronousTestCase):
    """A head is read the same however often it comes, and little is kept."""

    HEADS = (
        OK,
        OK + head(b"Server: x", b"Content-Length: 5", b"Date: now"),
        OK + head(b"Server: x", b"Content-Length: 5", b"Content-Length: 5"),
        OK + head(b"Server: x", b"Content-Length: 5", b"Transfer-Encoding: chunked"),
        OK + head(b"Server: x", b"Transfer-Encoding: chunked", b"date: now"),
        OK + head(b"Server: x", b"Connection: keep-alive", b"Set-Cookie: secret"),
        OK + head(b"Server: x", b"Connection: Server"),
        OK + head(b"Server : x"),
        OK + head(b"Server: \x00"),
        head(b"HTTP/1.0 200 OK", b"Server: x", b"Connection: keep-alive"),
        head(b"HTTP/1.1 204 No Content", b"Server: x", b"Content-Length: 5"),
        head(b"HTTP/1.1 304 Not Modified", b"Server: x", b"Content-Length: 5"),
        head(b"HTTP/1.1 2 X", b"Server: x"),
    )

    def test_the_same_every_time(self) -> None:
        heads = ResponseHeadParser()
        for _ in range(3):
            for data in self.HEADS:
                self.assertEqual(
                    outcome(heads, data), outcome(ResponseHeadParser(), data), msg=data
                )

    def test_secrets_and_framing_are_not_kept(self) -> None:
        heads = ResponseHeadParser()
        lines = [b"Set-Cookie: secret", b"www-authenticate: secret", b"Content-Length: 77"]
        for _ in range(3):
            heads.parse(OK + head(b"Server: x", *lines))
            heads.parse(OK + head(b"Server: x", *lines, b"Connection: secret"))
        held = pickle.dumps(heads)
        self.assertIn(b"Server: x", held)
        self.assertNotIn(b"secret", held)
        self.assertNotIn(b"77", held)

    def test_status_lines_are_bounded(self) -> None:
        heads = ResponseHeadParser()
        for number in range(1000):
            heads.parse(head(b"HTTP/1.1 200 reason-%d" % number))
        heads.parse(head(b"HTTP/1.1 200 " + b"long" * 1000))
        held = pickle.dumps(heads)
        # As a key and on the wire, which may be one object.
        self.assertLessEqual(held.count(b"reason-"), 2 * ResponseHeadParser.MAX_CACHED_STATUS_LINES)
        self.assertNotIn(b"longlong", held)


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
    """What holds for all heads."""

    @settings(max_examples=300, deadline=None)
    @given(STATUS_LINES, st.lists(LINES, max_size=5))
    def test_what_is_passed_on_is_read_by_h11_in_the_same_way(
        self, line: bytes, lines: list[bytes]
    ) -> None:
        found = outcome(SHARED, head(line, *lines))
        fresh = outcome(ResponseHeadParser(), head(line, *lines))
        if found is None or fresh is None:
            self.assertEqual(found, fresh)
            return
        if has_body(b"GET", found.status):
            self.assertEqual(found.length, fresh.length)
        found.length = fresh.length
        self.assertEqual(found, fresh)
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
        end = b"Transfer-Encoding: chunked\r\n\r\n" if found.length == CHUNKED else b"\r\n"
        connection.receive_data(found.forward_bytes + end)
        event = connection.next_event()
        assert isinstance(event, (h11.Response, h11.InformationalResponse))
        self.assertEqual((event.status_code, event.http_version), (found.status, b"1.1"))
        names = {name for name, _ in event.headers}
        self.assertFalse(
            names & {b"connection", b"x-hop" if b"Connection: X-Hop" in lines else b""}
        )
        if not has_body(b"GET", found.status):
            return
        body = {CHUNKED: b"5\r\nhello\r\n0\r\n\r\n", CLOSE_DELIMITED: b"hello"}
        content = b"hello" if found.length < 0 else b"x" * found.length
        connection.receive_data(body.get(found.length, content))
        if found.length == CLOSE_DELIMITED:
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
    def test_any_bytes_are_a_head_or_refused(self, data: bytes) -> None:
        outcome(SHARED, data)


class LocalReplyTests(SynchronousTestCase):
    """Answers of the proxy's own."""

    def test_dates(self) -> None:
        self.assertEqual(http_date(0.0), b"Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertEqual(http_date(784111777.9), b"Sun, 06 Nov 1994 08:49:37 GMT")

    def test_phrases(self) -> None:
        for status, phrase in ((400, b"Bad Request"), (502, b"Bad Gateway"), (200, b"OK")):
            self.assertEqual(reason_phrase(status), phrase)

    def test_the_form_of_an_error(self) -> None:
        body = jsend_error('a "quoted" \u00e4')
        self.assertEqual(body, b'{"status": "error", "data": "a \\"quoted\\" \\u00e4"}')
        self.assertEqual(
            local_reply_fields(body, ((b"Retry-After", b"1"),)),
            [
                (b"Content-Type", b"application/json"),
                (b"Content-Length", b"%d" % len(body)),
                (b"Retry-After", b"1"),
            ],
        )


class FieldBlockCacheTests(SynchronousTestCase):
    """Heads whose plain rest was seen before."""

    COMMON = b"HTTP/1.1 200 OK\r\nServer: x\r\nDate: y\r\nContent-Length: 5\r\n"

    def test_the_length_is_read_each_time(self) -> None:
        heads = ResponseHeadParser()
        for _ in range(4):
            for length in (5, 0, 7, 123456):
                data = self.COMMON.replace(b"5", b"%d" % length)
                found = heads.parse(data)
                self.assertEqual((found.length, found.forward_bytes), (length, data))
                self.assertTrue(found.persistent)
                self.assertTrue(found.has_date)

    def test_bad_lengths_are_refused_each_time(self) -> None:
        heads = ResponseHeadParser()
        for _ in range(4):
            heads.parse(self.COMMON)
            for value in (b"+5", b"", b"5 5", b"5,5", b"9" * 19, b"\xb2"):
                with self.assertRaises(ResponseError):
                    heads.parse(self.COMMON.replace(b"5", value))
            with self.assertRaises(ResponseError):
                heads.parse(self.COMMON + b"Content-Length: 5\r\n")
            with self.assertRaises(ResponseError):
                heads.parse(self.COMMON + b"Transfer-Encoding: chunked\r\n")

    def test_connection_is_read_each_time(self) -> None:
        heads = ResponseHeadParser()
        for _ in range(4):
            heads.parse(self.COMMON)
            found = heads.parse(self.COMMON + b"Connection: keep-alive\r\n")
            self.assertEqual((found.forward_bytes, found.persistent), (self.COMMON, True))
            found = heads.parse(self.COMMON + b"Connection: close\r\n")
            self.assertEqual((found.forward_bytes, found.persistent), (self.COMMON, False))
            found = heads.parse(self.COMMON.replace(b"HTTP/1.1", b"HTTP/1.0"))
            self.assertEqual((found.forward_bytes, found.persistent), (self.COMMON, False))

    def test_nothing_secret_or_framing_is_remembered(self) -> None:
        heads = ResponseHeadParser()
        for _ in range(4):
            heads.parse(self.COMMON + b"Set-Cookie: secret\r\nConnection: keep-alive\r\n")
            heads.parse(self.COMMON + b"Connection: keep-alive\r\n")
        text = (
            repr(heads._head_cache)
            + repr(heads._line_cache.plain)
            + repr(heads._line_cache.special)
        )
        self.assertTrue(heads._head_cache)
        for word in ("secret", "Content-Length", "keep-alive"):
            self.assertNotIn(word, text)

    def test_it_is_bounded(self) -> None:
        heads = ResponseHeadParser()
        for number in range(5000):
            data = self.COMMON.replace(b"y", b"%d" % number)
            heads.parse(data)
            heads.parse(data)
        self.assertLessEqual(len(heads._head_cache), heads.MAX_CACHED_HEADS)
