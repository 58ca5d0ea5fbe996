"""Bodies in the three framings, however their bytes arrive."""

from __future__ import annotations

from typing import Union

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http1.body import (
    FORBIDDEN_TRAILERS,
    LAST_CHUNK,
    MAX_CHUNK_LINE,
    MAX_EXTENSIONS,
    MAX_TRAILER_FIELDS,
    MAX_TRAILERS,
    BodyError,
    ChunkedReader,
    CloseDelimitedReader,
    ContentLengthReader,
    encode_chunk,
    encode_chunked,
    encode_last_chunk,
    filter_trailers,
)

Reader = Union[ContentLengthReader, ChunkedReader]

# All that the grammar of a chunked body has, followed by the next request.
RICH = (
    b'5;a;b=c;d="e;\\""\r\nhello\r\n'
    + b"00b\r\n\r\n binary \x00\r\n"
    + b"0;last\r\nX-Sum: 1\r\nX-Other:2\r\n\r\n"
    + b"GET / HTTP/1.1\r\n"
)
RICH_CONTENT = b"hello" + b"\r\n binary \x00"
RICH_TRAILERS = b"X-Sum: 1\r\nX-Other:2\r\n"
RICH_TRAILING_DATA = b"GET / HTTP/1.1\r\n"


def feed(reader: Reader, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """Return the content of `pieces` and the trailing data; a complete reader is fed nothing."""
    content, rest = [], []
    for piece in pieces:
        if reader.complete:
            rest.append(piece)
        else:
            content.append(reader.feed(piece))
    return b"".join(content), reader.trailing_data + b"".join(rest)


def split(data: bytes, positions: list[int]) -> list[bytes]:
    """Cut `data` at `positions`, taken modulo its length."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def is_invalid(data: bytes) -> bool:
    """Whether `data` cannot be the beginning of a chunked body."""
    try:
        ChunkedReader().feed(data)
    except BodyError:
        return True
    return False


class ContentLengthReaderTests(SynchronousTestCase):
    """A body of known length."""

    def test_empty_body_is_complete_at_once(self) -> None:
        """A body of length 0 is complete before anything is fed."""
        reader = ContentLengthReader(0)
        self.assertTrue(reader.complete)
        self.assertEqual((reader.feed(b"next"), reader.trailing_data), (b"", b"next"))

    def test_complete_with_the_last_byte(self) -> None:
        """The body is complete when its last byte has been fed."""
        reader = ContentLengthReader(5)
        self.assertEqual(reader.feed(b"hel"), b"hel")
        self.assertEqual((reader.complete, reader.remaining), (False, 2))
        self.assertEqual(reader.feed(b"lo"), b"lo")
        self.assertEqual((reader.complete, reader.trailing_data), (True, b""))

    def test_trailing_data_is_separated(self) -> None:
        """Bytes after the end are kept as trailing data."""
        reader = ContentLengthReader(5)
        self.assertEqual(reader.feed(b"helloGET /"), b"hello")
        self.assertEqual((reader.complete, reader.trailing_data), (True, b"GET /"))

    def test_empty_input_changes_nothing(self) -> None:
        """Feeding no bytes does not complete a body."""
        reader = ContentLengthReader(1)
        self.assertEqual((reader.feed(b""), reader.complete), (b"", False))

    def test_split_anywhere(self) -> None:
        """The result does not depend on where the data is split in three."""
        data = b"hello world" + b"trailing_data"
        for first in range(len(data) + 1):
            for second in range(first, len(data) + 1):
                pieces = [data[:first], data[first:second], data[second:]]
                reader = ContentLengthReader(11)
                self.assertEqual(
                    feed(reader, pieces), (b"hello world", b"trailing_data"), msg=repr(pieces)
                )
                self.assertTrue(reader.complete)

    def test_largest_length(self) -> None:
        """A length of 2^63 - 1 is counted exactly."""
        reader = ContentLengthReader(2**63 - 1)
        reader.feed(b"x" * 1000)
        self.assertEqual((reader.complete, reader.remaining), (False, 2**63 - 1001))


class CloseDelimitedReaderTests(SynchronousTestCase):
    """A body that ends with its connection."""

    def test_all_data_belongs_to_the_body(self) -> None:
        """All data belongs to the body, which never completes."""
        reader = CloseDelimitedReader()
        for data in (b"0\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n"):
            self.assertEqual(reader.feed(data), data)
            self.assertFalse(reader.complete)
        self.assertEqual((reader.trailing_data, reader.trailers), (b"", b""))


class ChunkedReaderTests(SynchronousTestCase):
    """The chunked transfer coding, decoded strictly."""

    def test_empty_body(self) -> None:
        """The last chunk alone is an empty body."""
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"0\r\n\r\n"), b"")
        self.assertEqual((reader.complete, reader.trailing_data, reader.trailers), (True, b"", b""))

    def test_single_feed(self) -> None:
        """A body with extensions and trailers is decoded in one call."""
        reader = ChunkedReader()
        self.assertEqual(reader.feed(RICH), RICH_CONTENT)
        self.assertEqual(
            (reader.complete, reader.trailing_data, reader.trailers),
            (True, RICH_TRAILING_DATA, RICH_TRAILERS),
        )

    def test_split_anywhere(self) -> None:
        """The result does not depend on where the data is split in three."""
        for first in range(len(RICH) + 1):
            for second in range(first, len(RICH) + 1):
                pieces = [RICH[:first], RICH[first:second], RICH[second:]]
                reader = ChunkedReader()
                self.assertEqual(
                    feed(reader, pieces), (RICH_CONTENT, RICH_TRAILING_DATA), msg=repr(pieces)
                )
                self.assertEqual((reader.complete, reader.trailers), (True, RICH_TRAILERS))

    def test_byte_by_byte(self) -> None:
        """A body is decoded from single bytes."""
        reader = ChunkedReader()
        pieces = [RICH[i : i + 1] for i in range(len(RICH))]
        self.assertEqual(feed(reader, pieces), (RICH_CONTENT, RICH_TRAILING_DATA))
        self.assertEqual(reader.trailers, RICH_TRAILERS)

    def test_truncated_body_is_never_complete(self) -> None:
        """No proper prefix of a body is complete; its content is a prefix too."""
        end = len(RICH) - len(RICH_TRAILING_DATA)
        for length in range(end):
            reader = ChunkedReader()
            content = reader.feed(RICH[:length])
            self.assertFalse(reader.complete, msg=repr(RICH[:length]))
            self.assertTrue(RICH_CONTENT.startswith(content), msg=repr(RICH[:length]))

    def test_representation(self) -> None:
        """A reader shows its state and the rest of its chunk."""
        reader = ChunkedReader()
        self.assertEqual(repr(reader), "<ChunkedReader SIZE remaining=0>")
        reader.feed(b"5\r\nab")
        self.assertEqual(repr(reader), "<ChunkedReader DATA remaining=3>")

    def test_content_of_incomplete_chunk_is_returned(self) -> None:
        """Content is returned before its chunk is complete."""
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"a\r\n01234"), b"01234")
        self.assertEqual(reader.feed(b"567"), b"567")
        self.assertEqual(reader.feed(b"89\r\n1\r\nx"), b"89x")

    def test_valid_sizes(self) -> None:
        """Chunk sizes are hexadecimal, in either case, with leading zeros."""
        for size, length in (
            (b"1", 1),
            (b"a", 10),
            (b"A", 10),
            (b"1f", 31),
            (b"0000000000000001", 1),
        ):
            reader = ChunkedReader()
            content = b"x" * length
            self.assertEqual(
                reader.feed(size + b"\r\n" + content + b"\r\n0\r\n\r\n"), content, msg=repr(size)
            )
            self.assertTrue(reader.complete, msg=repr(size))

    def test_up_to_sixteen_zeros_are_the_last_chunk(self) -> None:
        """A size of one to sixteen zeros is the last chunk; seventeen are rejected."""
        for size in (b"0", b"00", b"0" * 16):
            reader = ChunkedReader()
            reader.feed(size + b"\r\n\r\n")
            self.assertTrue(reader.complete, msg=repr(size))
        self.assertTrue(is_invalid(b"0" * 17 + b"\r\n"))

    def test_largest_size(self) -> None:
        """A chunk size of 2^63 - 1 is accepted."""
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"7fffffffffffffff\r\nabc"), b"abc")
        self.assertFalse(reader.complete)

    def test_invalid_sizes(self) -> None:
        """Signs, prefixes, whitespace and sizes of 2^63 or more are rejected."""
        for size in (
            b"",
            b" ",
            b"+5",
            b"-5",
            b"-0",
            b"0x5",
            b"0X5",
            b"x5",
            b"5_0",
            b" 5",
            b"5 ",
            b"5\t",
            b"5 5",
            b"5.0",
            b"5,5",
            b"5h",
            b"g",
            b"\xb2",
            b"\xd9\xa3",
            b"5\x00",
            b"5\x0b",
            b"5\r",
            b"8000000000000000",
            b"ffffffffffffffff",
            b"10000000000000005",
            b"00000000000000005",
            b"f" * 100,
        ):
            self.assertTrue(is_invalid(size + b"\r\nhello\r\n0\r\n\r\n"), msg=repr(size))

    def test_valid_extensions(self) -> None:
        """Extensions of the grammar of RFC 9112, 7.1.1 are accepted and removed."""
        for extension in (
            b";a",
            b";a=b",
            b";a;b;c=d",
            b';a=""',
            b';a="b c"',
            b';a="b;c"',
            b';a="\\""',
            b';a="\\\\"',
            b';a="\xff\t"',
            b";!#$%&'*+-.^_`|~=1",
        ):
            reader = ChunkedReader()
            content = reader.feed(b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n")
            self.assertEqual((content, reader.complete), (b"hello", True), msg=repr(extension))

    def test_invalid_extensions(self) -> None:
        """Malformed extensions, with whitespace or bare line ends, are rejected."""
        for extension in (
            b";",
            b";;a",
            b";a=",
            b";=b",
            b" ;a",
            b"; a",
            b";a =b",
            b";a= b",
            b";a ",
            b"z",
            b":a",
            b';a="',
            b';a="b',
            b';a="b"c',
            b';a="\\"',
            b';a="\x00"',
            b";a=\x00",
            b";a\xff",
            b";a\nb",
            b";a\rb",
            b';a="b\nc"',
            b';a="b\rc"',
        ):
            self.assertTrue(is_invalid(b"5" + extension + b"\r\nhello\r\n"), msg=repr(extension))

    def test_invalid_chunk_ends(self) -> None:
        """Chunk data is followed by exactly CRLF."""
        for end in (b"x", b"\n", b"\rx", b"\r\r", b"\n\r", b" \r\n", b"0\r\n\r\n"):
            self.assertTrue(is_invalid(b"5\r\nhello" + end), msg=repr(end))

    def test_invalid_chunk_end_in_two_pieces(self) -> None:
        """A chunk end is checked across two calls."""
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"5\r\nhello"), b"hello")
        self.assertEqual(reader.feed(b"\r"), b"")
        self.assertRaises(BodyError, reader.feed, b"\r")

    def test_bare_line_feeds_are_rejected_at_once(self) -> None:
        """A bare LF is rejected without waiting for more data."""
        for data in (
            b"5\n",
            b"5\nhello\n0\n\n",
            b"5;a\n",
            b"0\r\n\n",
            b"0\n\n",
            b"0\r\nX: 1\n",
            b"0\r\nX: 1\r\nY: 2\n\r\n\r\n",
        ):
            self.assertTrue(is_invalid(data), msg=repr(data))

    def test_size_line_is_bounded(self) -> None:
        """A size line has a maximum length, complete or not."""
        self.assertFalse(is_invalid(b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\n"))
        self.assertTrue(is_invalid(b"1;" + b"a" * (MAX_CHUNK_LINE - 1) + b"\r\n"))
        self.assertTrue(is_invalid(b"1;" + b"a" * MAX_CHUNK_LINE))

    def test_total_of_extensions_is_bounded(self) -> None:
        """The extensions of all chunks together have a maximum length."""
        reader = ChunkedReader()
        chunk = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
        for _ in range(MAX_EXTENSIONS // 1024):
            self.assertEqual(reader.feed(chunk), b"x")
        self.assertEqual(reader.feed(b"1\r\nx\r\n"), b"x")
        self.assertRaises(BodyError, reader.feed, chunk)

    def test_trailers_are_bounded(self) -> None:
        """The trailer section has a maximum number of fields and length."""
        self.assertTrue(is_invalid(b"0\r\n" + b"X: 1\r\n" * (MAX_TRAILER_FIELDS + 1) + b"\r\n"))
        self.assertFalse(is_invalid(b"0\r\n" + b"X: 1\r\n" * MAX_TRAILER_FIELDS + b"\r\n"))
        long = b"X: " + b"a" * MAX_TRAILERS
        self.assertTrue(is_invalid(b"0\r\n" + long))
        self.assertTrue(is_invalid(b"0\r\n" + long + b"\r\n\r\n"))

    def test_invalid_trailers(self) -> None:
        """Lines that are not valid field lines are rejected in trailers."""
        for line in (
            b"no colon",
            b" X: leading blank",
            b"X : 1",
            b": 1",
            b"X: \x00",
            b"X: a\rb",
            b"X: a\r\n folded: 1",
        ):
            self.assertTrue(is_invalid(b"0\r\n" + line + b"\r\n\r\n"), msg=repr(line))

    def test_forbidden_trailers_are_removed(self) -> None:
        """Forbidden trailer fields are removed, in any case and with underscores."""
        for name in sorted(FORBIDDEN_TRAILERS):
            for spelling in (name, name.title(), name.upper().replace(b"-", b"_")):
                reader = ChunkedReader()
                reader.feed(b"0\r\nX-A: 1\r\n" + spelling + b": 1\r\nX-B: 2\r\n\r\n")
                self.assertEqual(reader.trailers, b"X-A: 1\r\nX-B: 2\r\n", msg=repr(spelling))
        for name in (
            *(b"content-length", b"transfer-encoding", b"host", b"set-cookie"),
            *(b"client-cert", b"client-cert-chain"),
        ):
            self.assertIn(name, FORBIDDEN_TRAILERS)

    def test_allowed_trailers_are_unchanged(self) -> None:
        """Allowed trailer fields are forwarded byte for byte."""
        self.assertEqual(
            filter_trailers([b"x-SUM:1 ", b"Server-Timing: a;dur=1"]),
            b"x-SUM:1 \r\nServer-Timing: a;dur=1\r\n",
        )


class ChunkEncodingTests(SynchronousTestCase):
    """The chunked transfer coding, encoded."""

    def test_chunk(self) -> None:
        """A chunk is its size in hexadecimal, CRLF, the content and CRLF."""
        self.assertEqual(encode_chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")

    def test_last_chunk(self) -> None:
        """The last chunk is followed by the trailers and an empty line."""
        self.assertEqual(encode_last_chunk(b""), b"0\r\n\r\n")
        self.assertEqual(LAST_CHUNK, b"0\r\n\r\n")

    def test_parts_of_a_chunked_body(self) -> None:
        """A part of a body is one chunk; an empty part is nothing, which would end the body."""
        self.assertEqual(encode_chunked(b"abc", False, b""), b"3\r\nabc\r\n")
        self.assertEqual(encode_chunked(b"", False, b""), b"")
        self.assertEqual(encode_chunked(b"", True, b""), b"0\r\n\r\n")
        self.assertEqual(encode_chunked(b"a", True, b"x: y\r\n"), b"1\r\na\r\n0\r\nx: y\r\n\r\n")
        self.assertEqual(encode_last_chunk(b"X: 1\r\n"), b"0\r\nX: 1\r\n\r\n")


TOKENS = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=5).map(str.encode)
QUOTED = st.text('ab ;=,\t\\"', max_size=5).map(
    lambda text: b'"' + text.replace("\\", "\\\\").replace('"', '\\"').encode() + b'"'
)
EXTENSIONS = st.lists(
    st.one_of(
        TOKENS.map(lambda name: b";" + name),
        st.tuples(TOKENS, st.one_of(TOKENS, QUOTED)).map(lambda pair: b";%b=%b" % pair),
    ),
    max_size=2,
).map(b"".join)
CHUNKS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=40), EXTENSIONS, st.integers(0, 3), st.booleans()),
    max_size=6,
)
POSITIONS = st.lists(st.integers(0, 10_000), max_size=8)


def encode(chunks: list[tuple[bytes, bytes, int, bool]], trailers: bytes) -> bytes:
    """Encode a chunked body with everything that the grammar allows."""
    encoded = b""
    for content, extension, zeros, upper in chunks:
        size = b"0" * zeros + b"%x" % len(content)
        encoded += (size.upper() if upper else size) + extension + b"\r\n" + content + b"\r\n"
    return encoded + b"0\r\n" + trailers + b"\r\n"


def decode_with_h11(encoded: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Return content, trailers and trailing data of a chunked body, decoded by h11."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + encoded
    )
    content = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            return content, list(event.headers), connection.trailing_data[0]
        elif not isinstance(event, h11.Request):
            raise AssertionError(f"h11 made {event} of {encoded!r}")


class ChunkedPropertyTests(SynchronousTestCase):
    """Properties of all chunked bodies."""

    @settings(max_examples=150, deadline=None)
    @given(CHUNKS, st.sampled_from([b"", b"X-Sum: 1\r\n"]), POSITIONS, st.binary(max_size=9))
    def test_content_of_any_chunking_and_split(
        self,
        chunks: list[tuple[bytes, bytes, int, bool]],
        trailers: bytes,
        positions: list[int],
        trailing_data: bytes,
    ) -> None:
        """The content does not depend on chunk sizes or on how the data arrives."""
        content = b"".join(piece for piece, _, _, _ in chunks)
        reader = ChunkedReader()
        pieces = split(encode(chunks, trailers) + trailing_data, positions)
        self.assertEqual(feed(reader, pieces), (content, trailing_data))
        self.assertEqual((reader.complete, reader.trailers), (True, trailers))

    @settings(max_examples=100, deadline=None)
    @given(CHUNKS, st.sampled_from([b"", b"X-Sum: 1\r\n"]), POSITIONS)
    def test_reencoded_body_is_parsed_by_h11(
        self, chunks: list[tuple[bytes, bytes, int, bool]], trailers: bytes, positions: list[int]
    ) -> None:
        """h11 decodes a body that was decoded and encoded again to the same content."""
        reader, encoded = ChunkedReader(), b""
        for piece in split(encode(chunks, trailers), positions):
            content = reader.feed(piece) if not reader.complete else b""
            encoded += encode_chunk(content) if content else b""
        encoded += encode_last_chunk(reader.trailers)
        expected = b"".join(piece for piece, _, _, _ in chunks)
        fields = [(b"x-sum", b"1")] if trailers else []
        self.assertEqual(decode_with_h11(encoded), (expected, fields, b""))

    @settings(max_examples=200, deadline=None)
    @given(
        st.one_of(
            st.binary(max_size=60),
            st.lists(
                st.sampled_from(
                    [b"5", b"0", b"\r", b"\n", b"\r\n", b";a", b'"', b"=", b"hello", b"X: 1", b" "]
                ),
                max_size=14,
            ).map(b"".join),
        ),
        POSITIONS,
    )
    def test_any_bytes_are_a_body_or_an_error(self, data: bytes, positions: list[int]) -> None:
        """Any bytes give content or `BodyError`, and the same in pieces."""

        def outcome(pieces: list[bytes]) -> tuple[str, bytes, bytes]:
            """Return whether the body is complete, its content and trailing data; or the error."""
            reader = ChunkedReader()
            try:
                content, trailing_data = feed(reader, pieces)
            except BodyError as error:
                return type(error).__name__, b"", b""
            return str(reader.complete), content, trailing_data

        whole, pieces = outcome([data]), outcome(split(data, positions))
        if "True" in (whole[0], pieces[0]):
            self.assertEqual(whole, pieces)


class BodyRegressionTests(SynchronousTestCase):
    """Bodies that were rejected by mistake."""

    def test_longest_lines_in_two_pieces(self) -> None:
        """The CR of a line in two pieces counted towards the limit of the line."""
        for wire in (
            b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\nx\r\n0\r\n\r\n",
            b"0\r\nX: " + b"a" * (MAX_TRAILERS - 3) + b"\r\n\r\n",
        ):
            whole = ChunkedReader()
            whole.feed(wire)
            self.assertTrue(whole.complete)
            reader = ChunkedReader()
            split = wire.rindex(b"a") + 2  # between CR and LF
            reader.feed(wire[:split])
            reader.feed(wire[split:])
            self.assertTrue(reader.complete)
