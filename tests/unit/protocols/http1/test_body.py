"""Bodies: where one ends, however it arrives."""

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
    encode_last_chunk,
    filter_trailers,
)

Reader = Union[ContentLengthReader, ChunkedReader]

# Everything that a chunked body may have, and then the next request.
RICH = (
    b'5;a;b=c;d="e;\\""\r\nhello\r\n'
    + b"00b\r\n\r\n binary \x00\r\n"
    + b"0;last\r\nX-Sum: 1\r\nX-Other:2\r\n\r\n"
    + b"GET / HTTP/1.1\r\n"
)
RICH_CONTENT = b"hello" + b"\r\n binary \x00"
RICH_TRAILERS = b"X-Sum: 1\r\nX-Other:2\r\n"
RICH_EXCESS = b"GET / HTTP/1.1\r\n"


def feed(reader: Reader, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """The content in `pieces`, and what is behind it; nothing is fed to a complete reader."""
    content, rest = [], []
    for piece in pieces:
        if reader.complete:
            rest.append(piece)
        else:
            content.append(reader.feed(piece))
    return b"".join(content), reader.trailing_data + b"".join(rest)


def split(data: bytes, places: list[int]) -> list[bytes]:
    """`data` cut at `places`."""
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def breaks(data: bytes) -> bool:
    """Whether `data` cannot be the beginning of a chunked body."""
    try:
        ChunkedReader().feed(data)
    except BodyError:
        return True
    return False


class ContentLengthReaderTests(SynchronousTestCase):
    """A body of known length."""

    def test_no_body_is_complete_at_once(self) -> None:
        reader = ContentLengthReader(0)
        self.assertTrue(reader.complete)
        self.assertEqual((reader.feed(b"next"), reader.trailing_data), (b"", b"next"))

    def test_complete_with_the_last_octet(self) -> None:
        reader = ContentLengthReader(5)
        self.assertEqual(reader.feed(b"hel"), b"hel")
        self.assertEqual((reader.complete, reader.remaining), (False, 2))
        self.assertEqual(reader.feed(b"lo"), b"lo")
        self.assertEqual((reader.complete, reader.trailing_data), (True, b""))

    def test_excess_is_kept_apart(self) -> None:
        reader = ContentLengthReader(5)
        self.assertEqual(reader.feed(b"helloGET /"), b"hello")
        self.assertEqual((reader.complete, reader.trailing_data), (True, b"GET /"))

    def test_nothing_changes_nothing(self) -> None:
        reader = ContentLengthReader(1)
        self.assertEqual((reader.feed(b""), reader.complete), (b"", False))

    def test_split_anywhere(self) -> None:
        data = b"hello world" + b"excess"
        for first in range(len(data) + 1):
            for second in range(first, len(data) + 1):
                pieces = [data[:first], data[first:second], data[second:]]
                reader = ContentLengthReader(11)
                self.assertEqual(
                    feed(reader, pieces), (b"hello world", b"excess"), msg=repr(pieces)
                )
                self.assertTrue(reader.complete)

    def test_lengths_of_any_size(self) -> None:
        reader = ContentLengthReader(2**63 - 1)
        reader.feed(b"x" * 1000)
        self.assertEqual((reader.complete, reader.remaining), (False, 2**63 - 1001))


class CloseDelimitedReaderTests(SynchronousTestCase):
    """A body that ends with its connection never ends by itself."""

    def test_everything_belongs_to_it(self) -> None:
        reader = CloseDelimitedReader()
        for data in (b"0\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n"):
            self.assertEqual(reader.feed(data), data)
            self.assertFalse(reader.complete)
        self.assertEqual((reader.trailing_data, reader.trailers), (b"", b""))


class ChunkedReaderTests(SynchronousTestCase):
    """The chunked coding, read strictly."""

    def test_an_empty_body(self) -> None:
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"0\r\n\r\n"), b"")
        self.assertEqual((reader.complete, reader.trailing_data, reader.trailers), (True, b"", b""))

    def test_all_at_once(self) -> None:
        reader = ChunkedReader()
        self.assertEqual(reader.feed(RICH), RICH_CONTENT)
        self.assertEqual(
            (reader.complete, reader.trailing_data, reader.trailers),
            (True, RICH_EXCESS, RICH_TRAILERS),
        )

    def test_split_anywhere(self) -> None:
        for first in range(len(RICH) + 1):
            for second in range(first, len(RICH) + 1):
                pieces = [RICH[:first], RICH[first:second], RICH[second:]]
                reader = ChunkedReader()
                self.assertEqual(
                    feed(reader, pieces), (RICH_CONTENT, RICH_EXCESS), msg=repr(pieces)
                )
                self.assertEqual((reader.complete, reader.trailers), (True, RICH_TRAILERS))

    def test_octet_by_octet(self) -> None:
        reader = ChunkedReader()
        pieces = [RICH[i : i + 1] for i in range(len(RICH))]
        self.assertEqual(feed(reader, pieces), (RICH_CONTENT, RICH_EXCESS))
        self.assertEqual(reader.trailers, RICH_TRAILERS)

    def test_a_body_that_is_cut_is_never_complete(self) -> None:
        end = len(RICH) - len(RICH_EXCESS)
        for length in range(end):
            reader = ChunkedReader()
            content = reader.feed(RICH[:length])
            self.assertFalse(reader.complete, msg=repr(RICH[:length]))
            self.assertTrue(RICH_CONTENT.startswith(content), msg=repr(RICH[:length]))

    def test_content_goes_on_before_its_chunk_is_complete(self) -> None:
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"a\r\n01234"), b"01234")
        self.assertEqual(reader.feed(b"567"), b"567")
        self.assertEqual(reader.feed(b"89\r\n1\r\nx"), b"89x")

    def test_sizes_that_are_read(self) -> None:
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

    def test_any_number_of_zeros_up_to_sixteen_is_the_last_chunk(self) -> None:
        for size in (b"0", b"00", b"0" * 16):
            reader = ChunkedReader()
            reader.feed(size + b"\r\n\r\n")
            self.assertTrue(reader.complete, msg=repr(size))
        self.assertTrue(breaks(b"0" * 17 + b"\r\n"))

    def test_the_largest_size(self) -> None:
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"7fffffffffffffff\r\nabc"), b"abc")
        self.assertFalse(reader.complete)

    def test_sizes_that_are_refused(self) -> None:
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
            self.assertTrue(breaks(size + b"\r\nhello\r\n0\r\n\r\n"), msg=repr(size))

    def test_extensions_that_are_read(self) -> None:
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

    def test_extensions_that_are_refused(self) -> None:
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
            self.assertTrue(breaks(b"5" + extension + b"\r\nhello\r\n"), msg=repr(extension))

    def test_chunk_ends_that_are_refused(self) -> None:
        for end in (b"x", b"\n", b"\rx", b"\r\r", b"\n\r", b" \r\n", b"0\r\n\r\n"):
            self.assertTrue(breaks(b"5\r\nhello" + end), msg=repr(end))

    def test_a_broken_chunk_end_is_noticed_in_pieces_as_well(self) -> None:
        reader = ChunkedReader()
        self.assertEqual(reader.feed(b"5\r\nhello"), b"hello")
        self.assertEqual(reader.feed(b"\r"), b"")
        self.assertRaises(BodyError, reader.feed, b"\r")

    def test_bare_line_feeds_are_noticed_at_once(self) -> None:
        for data in (
            b"5\n",
            b"5\nhello\n0\n\n",
            b"5;a\n",
            b"0\r\n\n",
            b"0\n\n",
            b"0\r\nX: 1\n",
            b"0\r\nX: 1\r\nY: 2\n\r\n\r\n",
        ):
            self.assertTrue(breaks(data), msg=repr(data))

    def test_a_size_line_is_bounded(self) -> None:
        self.assertFalse(breaks(b"1;" + b"a" * (MAX_CHUNK_LINE - 2) + b"\r\n"))
        self.assertTrue(breaks(b"1;" + b"a" * (MAX_CHUNK_LINE - 1) + b"\r\n"))
        self.assertTrue(breaks(b"1;" + b"a" * MAX_CHUNK_LINE))

    def test_extensions_are_bounded_in_all(self) -> None:
        reader = ChunkedReader()
        one = b"1;" + b"a" * 1023 + b"\r\nx\r\n"
        for _ in range(MAX_EXTENSIONS // 1024):
            self.assertEqual(reader.feed(one), b"x")
        self.assertEqual(reader.feed(b"1\r\nx\r\n"), b"x")
        self.assertRaises(BodyError, reader.feed, one)

    def test_trailers_are_bounded(self) -> None:
        self.assertTrue(breaks(b"0\r\n" + b"X: 1\r\n" * (MAX_TRAILER_FIELDS + 1) + b"\r\n"))
        self.assertFalse(breaks(b"0\r\n" + b"X: 1\r\n" * MAX_TRAILER_FIELDS + b"\r\n"))
        long = b"X: " + b"a" * MAX_TRAILERS
        self.assertTrue(breaks(b"0\r\n" + long))
        self.assertTrue(breaks(b"0\r\n" + long + b"\r\n\r\n"))

    def test_trailers_that_are_refused(self) -> None:
        for line in (
            b"no colon",
            b" X: leading blank",
            b"X : 1",
            b": 1",
            b"X: \x00",
            b"X: a\rb",
            b"X: a\r\n folded: 1",
        ):
            self.assertTrue(breaks(b"0\r\n" + line + b"\r\n\r\n"), msg=repr(line))

    def test_trailers_that_go_no_further(self) -> None:
        for name in sorted(FORBIDDEN_TRAILERS):
            for spelled in (name, name.title(), name.upper().replace(b"-", b"_")):
                reader = ChunkedReader()
                reader.feed(b"0\r\nX-A: 1\r\n" + spelled + b": 1\r\nX-B: 2\r\n\r\n")
                self.assertEqual(reader.trailers, b"X-A: 1\r\nX-B: 2\r\n", msg=repr(spelled))
        for name in (b"content-length", b"transfer-encoding", b"host", b"set-cookie"):
            self.assertIn(name, FORBIDDEN_TRAILERS)

    def test_trailers_pass_as_they_were_spelled(self) -> None:
        self.assertEqual(
            filter_trailers([b"x-SUM:1 ", b"Server-Timing: a;dur=1"]),
            b"x-SUM:1 \r\nServer-Timing: a;dur=1\r\n",
        )


class ChunkEncodingTests(SynchronousTestCase):
    """What we write ourselves."""

    def test_chunks(self) -> None:
        self.assertEqual(encode_chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")

    def test_the_end(self) -> None:
        self.assertEqual(encode_last_chunk(b""), b"0\r\n\r\n")
        self.assertEqual(LAST_CHUNK, b"0\r\n\r\n")
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
PLACES = st.lists(st.integers(0, 10_000), max_size=8)


def encode(chunks: list[tuple[bytes, bytes, int, bool]], trailers: bytes) -> bytes:
    """A chunked body in all the ways that the grammar has."""
    wire = b""
    for content, extension, zeros, upper in chunks:
        size = b"0" * zeros + b"%x" % len(content)
        wire += (size.upper() if upper else size) + extension + b"\r\n" + content + b"\r\n"
    return wire + b"0\r\n" + trailers + b"\r\n"


def read_by_h11(wire: bytes) -> tuple[bytes, list[tuple[bytes, bytes]], bytes]:
    """Content, trailers and excess of a chunked body, as h11 reads it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + wire
    )
    content = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            content += event.data
        elif isinstance(event, h11.EndOfMessage):
            return content, list(event.headers), connection.trailing_data[0]
        elif not isinstance(event, h11.Request):
            raise AssertionError(f"h11 made {event} of {wire!r}")


class ChunkedPropertyTests(SynchronousTestCase):
    """What holds for all bodies."""

    @settings(max_examples=150, deadline=None)
    @given(CHUNKS, st.sampled_from([b"", b"X-Sum: 1\r\n"]), PLACES, st.binary(max_size=9))
    def test_any_chunking_and_any_split_give_the_content(
        self,
        chunks: list[tuple[bytes, bytes, int, bool]],
        trailers: bytes,
        places: list[int],
        excess: bytes,
    ) -> None:
        content = b"".join(piece for piece, _, _, _ in chunks)
        reader = ChunkedReader()
        pieces = split(encode(chunks, trailers) + excess, places)
        self.assertEqual(feed(reader, pieces), (content, excess))
        self.assertEqual((reader.complete, reader.trailers), (True, trailers))

    @settings(max_examples=100, deadline=None)
    @given(CHUNKS, st.sampled_from([b"", b"X-Sum: 1\r\n"]), PLACES)
    def test_what_is_framed_anew_is_read_by_h11(
        self, chunks: list[tuple[bytes, bytes, int, bool]], trailers: bytes, places: list[int]
    ) -> None:
        reader, wire = ChunkedReader(), b""
        for piece in split(encode(chunks, trailers), places):
            content = reader.feed(piece) if not reader.complete else b""
            wire += encode_chunk(content) if content else b""
        wire += encode_last_chunk(reader.trailers)
        expected = b"".join(piece for piece, _, _, _ in chunks)
        fields = [(b"x-sum", b"1")] if trailers else []
        self.assertEqual(read_by_h11(wire), (expected, fields, b""))

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
        PLACES,
    )
    def test_any_bytes_are_a_body_or_a_body_error(self, data: bytes, places: list[int]) -> None:
        def outcome(pieces: list[bytes]) -> tuple[str, bytes, bytes]:
            reader = ChunkedReader()
            try:
                content, excess = feed(reader, pieces)
            except BodyError as error:
                return type(error).__name__, b"", b""
            return str(reader.complete), content, excess

        whole, pieces = outcome([data]), outcome(split(data, places))
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
