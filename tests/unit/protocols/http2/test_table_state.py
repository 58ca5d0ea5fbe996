"""Memoised decoding of header blocks: same results as without, and nothing of others."""

from __future__ import annotations

import gc
from collections.abc import Sequence

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http2.hpack import Field, HeaderLimits, Table, decode_block, lower_limit
from balancebeam.protocols.http2.hpack_encoder import encode_integer, encode_string
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.table_state import (
    LOCAL_ENTRIES,
    HeaderDecoder,
    SharedTables,
    TableState,
)

Fields = tuple[Field, ...]

LIMITS = HeaderLimits(max_list_size=400, max_fields=8)

# Representations of which blocks are made: sharing, paths, credentials, insertions, updates.
PARTS = (
    *(b"\x82", b"\x87", b"\xbe", b"\xbf", b"\xc0", b"\x84"),
    *(
        b"\x04\x01/",
        b"\x04\x02/a",
        b"\x14\x02/a",
        b"\x14\x01/",
        b"\x04\x82\x60\xd5",
        b"\x04\x7f\x00",
    ),
    *(b"\x41\x01a", b"\x41\x02bb", b"\x40\x01x\x011", b"\x40\x01x\x012", b"\x44\x02/i"),
    *(
        b"\x60\x03a=1",
        b"\x0f\x11\x03a=1",
        b"\x10\x01n\x01v",
        b"\x00\x01n\x01v",
        b"\x20",
        b"\x3f\xe1\x1f",
    ),
    *(b"\x00\x01n\x7f\x29" + b"v" * 168, b"\x80"),
)
BLOCKS = st.lists(st.sampled_from(PARTS), max_size=6).map(b"".join)


def with_path(fields: Fields, path: bytes) -> Fields | None:
    """Replace :path, unless it is one that has to be interpreted."""
    if path.startswith(b"/a"):
        return None
    return tuple((name, path if name == b":path" else value) for name, value in fields)


def interpret(fields: Sequence[Field]) -> Fields:
    """Return the fields; an empty block and duplicates of :path are malformed."""
    if not fields or sum(name == b":path" for name, _ in fields) > 1:
        raise ValueError("malformed")
    return tuple(fields)


class PlainDecoder:
    """The decoder without memos."""

    def __init__(self) -> None:
        self.table = Table()

    def decode(self, block: bytes) -> Fields:
        """Decode and interpret a block."""
        decoded = decode_block(block, self.table, LIMITS)
        self.table = decoded.table
        if decoded.fields is None:
            raise HeaderListTooLarge("header list exceeds the limit")
        return interpret(decoded.fields)


def outcome(decoder: PlainDecoder | HeaderDecoder[Fields], block: bytes) -> object:
    """Return the result or the class of the error."""
    try:
        return decoder.decode(block)
    except (HpackError, HeaderListTooLarge, ValueError) as error:
        return type(error)


def path_block(path: bytes, first: bytes = b"\x04", before: bytes = b"\x82\x87") -> bytes:
    """Return a request whose path is an unindexed literal."""
    return before + first + encode_string(path, huffman=True) + b"\x00\x03x-a\x011"


class EquivalenceTests(SynchronousTestCase):
    """The memoised decoder gives the results of the plain decoder."""

    @given(
        st.lists(BLOCKS, min_size=1, max_size=4),
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60),
        st.sampled_from((1, 3, 4096)),
    )
    @settings(max_examples=300)
    def test_interleaved_connections(
        self, blocks: list[bytes], steps: list[tuple[int, int]], max_entries: int
    ) -> None:
        """Whatever blocks are sent on whatever connections, the results are the same."""
        shared = SharedTables(interpret, with_path, max_entries=max_entries)
        pairs = [(HeaderDecoder(shared, LIMITS), PlainDecoder()) for _ in range(4)]
        for connection, number in steps:
            memoised, plain = pairs[connection]
            block = blocks[number % len(blocks)]
            expected = outcome(plain, block)
            self.assertEqual(outcome(memoised, block), expected)
            if expected is HpackError:
                # The connection is closed; another one takes its place.
                pairs[connection] = (HeaderDecoder(shared, LIMITS), PlainDecoder())

    @given(st.lists(st.tuples(BLOCKS, st.sampled_from((None, None, 0, 50, 4096))), max_size=8))
    def test_size_limits(self, steps: list[tuple[bytes, int | None]]) -> None:
        """The results are the same when the limit of the table changes between blocks."""
        shared = SharedTables(interpret, with_path)
        for _ in range(3):
            memoised, plain = HeaderDecoder(shared, LIMITS), PlainDecoder()
            for block, limit in steps:
                if limit is not None:
                    memoised.set_max_table_size(limit)
                    plain.table = lower_limit(plain.table, limit)
                expected = outcome(plain, block)
                self.assertEqual(outcome(memoised, block), expected)
                if expected is HpackError:
                    break

    @given(st.lists(st.binary(min_size=1, max_size=8).map(lambda path: b"/" + path), max_size=20))
    def test_paths(self, paths: list[bytes]) -> None:
        """Blocks that differ in their path only have results with their own paths."""
        shared = SharedTables(interpret, with_path)
        encoder = hpack.Encoder()
        decoder = HeaderDecoder(shared, LIMITS)
        plain = PlainDecoder()
        for path in paths:
            block = encoder.encode([(b":authority", b"a")]) + path_block(path)
            self.assertEqual(outcome(decoder, block), outcome(plain, block))


class SharingTests(SynchronousTestCase):
    """Which states and results connections share."""

    def setUp(self) -> None:
        self.interpreted = 0

        def count(fields: Sequence[Field]) -> Fields:
            self.interpreted += 1
            return interpret(fields)

        self.shared = SharedTables(count, with_path)

    def connect(self) -> HeaderDecoder[Fields]:
        """Return the decoder of a new connection."""
        return HeaderDecoder(self.shared, LIMITS)

    def test_second_sight(self) -> None:
        """A block is memoised when it is seen twice, also on different connections."""
        first = b"\x82\x87\x84\x41\x01a"
        for expected in (1, 2, 2, 2):
            decoder = self.connect()
            decoder.decode(first)
            self.assertEqual(self.interpreted, expected)

    def test_changed_tables_are_shared(self) -> None:
        """Connections that send the same blocks reach the same state."""
        states: list[TableState[Fields]] = []
        for _ in range(4):
            decoder = self.connect()
            for block in (b"\x82\x87\x84\x41\x01a", b"\x82\x87\x84\xbe"):
                decoder.decode(block)
            states.append(decoder._state)
        self.assertIs(states[2], states[3])
        self.assertIsNot(states[0], states[3])

    def test_credentials_are_local(self) -> None:
        """A block with a credential or a never-indexed value is in no shared memo."""
        for block in (b"\x60\x03a=1", b"\x0f\x11\x03a=1", b"\x10\x01n\x01v", b"\x57\x01b"):
            for _ in range(4):
                self.interpreted = 0
                decoder = self.connect()
                decoder.decode(block)
                self.assertFalse(decoder._state.shared, block)
                self.assertEqual(self.interpreted, 1, block)
            self.assertNotIn(block, self.shared.root(LIMITS).memo)
            self.assertNotIn(block, self.shared.root(LIMITS).older)

    def test_credentials_are_memoised_locally(self) -> None:
        """A connection that repeats a credential finds its own block."""
        decoder = self.connect()
        for _ in range(6):
            decoder.decode(b"\x82\x87\x84\x1f\x08\x01b")
        self.assertLessEqual(self.interpreted, 3)
        self.connect().decode(b"\x82\x87\x84\x1f\x08\x01b")
        self.assertLessEqual(self.interpreted, 4)

    def test_paths_are_cut_out(self) -> None:
        """Blocks with new paths are not interpreted again, wherever the path is."""
        for before in (b"\x82\x87", b"\x82\x01\x03a.b\x87", b"\x01\x03c.d"):
            decoder = self.connect()
            self.interpreted = 0
            for number in range(20):
                path = b"/p%d" % number
                self.assertIn((b":path", path), decoder.decode(path_block(path, before=before)))
            self.assertLessEqual(self.interpreted, 4)

    def test_never_indexed_paths_are_not_kept(self) -> None:
        """A path that was sent as never indexed is in no shared memo."""
        decoder = self.connect()
        for _ in range(5):
            decoder.decode(path_block(b"/secret", first=b"\x14"))
        state = decoder._state
        self.assertTrue(state.shared)
        self.assertEqual(state.memo, {})
        self.assertNotIn(
            b"secret", repr([entry[0] for entry in state.memo_without_path.values()]).encode()
        )
        self.assertLess(self.interpreted, 3)

    def test_path_beyond_the_limit(self) -> None:
        """A path that takes the list beyond its limit is rejected, also by look-up."""
        decoder = self.connect()
        for number in range(5):
            decoder.decode(path_block(b"/p%d" % number))
        size = sum(len(name) + len(value) + 32 for name, value in decoder.decode(path_block(b"")))
        longest = LIMITS.max_list_size - size
        self.assertIsInstance(decoder.decode(path_block(b"/" * longest)), tuple)
        self.assertRaises(HeaderListTooLarge, decoder.decode, path_block(b"/" * (longest + 1)))

    def test_limits_are_part_of_a_state(self) -> None:
        """A block within the limits of a connection is still rejected on a stricter one."""
        block = path_block(b"/" * 50)
        for _ in range(3):
            self.connect().decode(block)
        strict = HeaderDecoder(self.shared, HeaderLimits(100, 8))
        self.assertRaises(HeaderListTooLarge, strict.decode, block)


class BoundsTests(SynchronousTestCase):
    """Memory under hostile blocks."""

    def test_good_client_beside_a_hostile_one(self) -> None:
        """Ever new blocks, sent once or twice, do not evict what another client repeats."""
        for repeat in (1, 2):
            interpreted: list[Fields] = []

            def note(fields: Sequence[Field], interpreted: list[Fields] = interpreted) -> Fields:
                interpreted.append(tuple(fields))
                return tuple(fields)

            shared = SharedTables(note, max_entries=100)
            good = HeaderDecoder(shared, LIMITS)
            hostile = [HeaderDecoder(shared, LIMITS) for _ in range(repeat)]
            block = b"\x82\x87\x84"
            for number in range(3000):
                good.decode(block)
                for decoder in hostile:
                    decoder.decode(b"\x00\x01n" + encode_string(b"%d" % number))
            own = sum(fields[0][0] == b":method" for fields in interpreted)
            self.assertEqual(own, 2)
            self.assertLessEqual(self.entries(shared), 200)

    def test_states_are_bounded(self) -> None:
        """States that no memo and no connection refers to are freed."""
        shared = SharedTables(interpret, max_entries=50)
        for number in range(1000):
            for _ in range(2):
                decoder = HeaderDecoder(shared, LIMITS)
                decoder.decode(b"\x82\x40\x01n" + encode_string(b"%d" % number))
        self.assertLessEqual(self.entries(shared), 100)
        gc.collect()
        self.assertLessEqual(len(shared._states), 102)

    def test_local_memo(self) -> None:
        """The memo of a connection is bounded in number and in bytes."""
        shared = SharedTables(interpret, with_path)
        decoder = HeaderDecoder(shared, HeaderLimits(65536, 100))
        decoder.decode(b"\x60\x03a=1")
        for number in range(500):
            block = b"\x82" + b"\x00\x01n" + encode_string(b"%d" % number + bytes(number * 50))
            for _ in range(2):
                decoder.decode(block)
            state = decoder._state
            self.assertLessEqual(len(state.memo) + len(state.memo_without_path), LOCAL_ENTRIES)
            self.assertLessEqual(sum(map(len, state.memo)), 65536)

    def test_integers_of_paths(self) -> None:
        """A path whose length is cut off or too large is an error, also by look-up."""
        shared = SharedTables(interpret, with_path)
        decoder = HeaderDecoder(shared, LIMITS)
        for _ in range(4):
            decoder.decode(path_block(b"/x"))
            decoder.decode(path_block(b"/y"))
        for rest in (b"", b"\x7f", b"\x7f\x80", b"\x03/a", encode_integer(2**33, 0x7F, 0)):
            self.assertRaises(
                HpackError, HeaderDecoder(shared, LIMITS).decode, b"\x82\x87\x04" + rest
            )

    @staticmethod
    def entries(shared: SharedTables[Fields]) -> int:
        """Number of entries of both generations."""
        return sum(
            len(memo)
            for state in shared._active
            for memo in (
                *(state.memo, state.older),
                *(state.memo_without_path, state.older_without_path),
            )
        )
