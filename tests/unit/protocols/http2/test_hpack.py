"""HPACK: integers, strings, header blocks and the encoder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.http2.hpack import (
    HeaderLimits,
    Table,
    decode_block,
    decode_integer,
    decode_string,
    lower_limit,
)
from balancebeam.protocols.http2.hpack_encoder import (
    EMPTY_TABLE,
    encode_field,
    encode_fields,
    encode_integer,
    encode_string,
)
from balancebeam.protocols.http2.hpack_errors import HeaderFlood, HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.huffman import decode_huffman, encode_huffman, huffman_length
from balancebeam.protocols.http2.static_table import STATIC_TABLE
from balancebeam.protocols.http2.table_state import HeaderDecoder, SharedTables

Fields = list[tuple[bytes, bytes]]

LIMITS = HeaderLimits(max_list_size=2**20, max_fields=1000)

# Stories of https://github.com/http2jp/hpack-test-case, one or more of each encoder. To run all
# of them, set HPACK_TEST_CASES to a clone of that repository.
STORIES = Path(__file__).parents[3] / "data" / "hpack"

NAMES = st.sampled_from((b":path", b"cookie", b"etag", b"x-a", b"x-b")) | st.binary(max_size=20)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=60)), max_size=8)


def new_decoder(limits: HeaderLimits = LIMITS) -> HeaderDecoder[Fields]:
    """Return a decoder that shares nothing."""
    return HeaderDecoder(SharedTables(list), limits)


def decode_all(decoder: HeaderDecoder[Fields], *blocks: str) -> list[Fields]:
    """Decode blocks in hexadecimal."""
    return [decoder.decode(bytes.fromhex(block)) for block in blocks]


class IntegerTests(SynchronousTestCase):
    """RFC 7541, 5.1."""

    def test_examples(self) -> None:
        """The examples of RFC 7541, C.1."""
        for encoded, mask, value in (
            (b"\x0a", 31, 10),
            (b"\x1f\x9a\x0a", 31, 1337),
            (b"*", 255, 42),
        ):
            self.assertEqual(decode_integer(encoded, 0, mask), (value, len(encoded)))
            self.assertEqual(encode_integer(value, mask, 0), encoded)

    @given(st.integers(0, 2**32 - 1), st.integers(4, 7))
    def test_round_trip(self, value: int, bits: int) -> None:
        """An encoded integer is decoded to the same, whatever the bits before it."""
        mask = 2**bits - 1
        encoded = encode_integer(value, mask, 0xFF & ~mask)
        self.assertEqual(decode_integer(encoded + b"x", 0, mask), (value, len(encoded)))

    def test_too_large(self) -> None:
        """Integers above 32 bits, of endless zeros, or cut off are errors."""
        endless = b"\x7f" + b"\x80" * 1000 + b"\x00"
        for data in (b"\x7f\xff\xff\xff\xff\x7f", endless, b"\x7f", b"\x7f\x80", b""):
            self.assertRaises(HpackError, decode_integer, data, 0, 0x7F)


class HuffmanTests(SynchronousTestCase):
    """RFC 7541, 5.2 and appendix B."""

    def check_encoding(self, data: bytes) -> None:
        """Check that a string, unless it is invalid, is encoded to the same bytes again."""
        try:
            decoded = decode_huffman(data)
        except HpackError:
            return
        self.assertEqual(encode_huffman(decoded), data)

    @given(st.binary(max_size=100))
    def test_round_trip(self, data: bytes) -> None:
        """A string is encoded as the other implementation encodes it, and decoded again."""
        encoded = encode_huffman(data)
        self.assertEqual(huffman_length(data), len(encoded))
        self.assertEqual(decode_huffman(encoded), data)
        if data:
            # Without an index, and a name of one byte.
            block = b"\x00\x01a" + encode_integer(len(encoded), 0x7F, 0x80) + encoded
            decoded = hpack.Decoder().decode(block, raw=True)
            self.assertEqual([tuple(field) for field in decoded], [(b"a", data)])

    def test_every_byte(self) -> None:
        """Every byte has its code."""
        for value in range(256):
            data = bytes((value,)) * 3
            self.assertEqual(decode_huffman(encode_huffman(data)), data)

    def test_padding(self) -> None:
        """Padding of 8 bits or more, padding with a zero, and EOS are errors."""
        # "a" is 00011; "!" is 1111111000.
        self.assertEqual(decode_huffman(b"\x1f"), b"a")
        for data in (b"\x1f\xff", b"\x1e", b"\x18", b"\xff", b"\xff\xff\xff\xff", b"\xff" * 40):
            self.assertRaises(HpackError, decode_huffman, data)

    @given(st.binary(max_size=30))
    def test_arbitrary_bytes(self, data: bytes) -> None:
        """Whatever is decoded is encoded to the same bytes: each string has one encoding."""
        self.check_encoding(data)

    @given(st.text("aZ0 /=;{<\x7f", min_size=8), st.binary(max_size=2), st.integers(0, 2))
    def test_ends_of_texts(self, text: str, end: bytes, dropped: int) -> None:
        """A text whose end is incomplete, or padded too much, is decoded to nothing else."""
        encoded = encode_huffman(text.encode())
        self.check_encoding(encoded[: len(encoded) - dropped] + end)

    def test_padding_of_texts(self) -> None:
        """The rules of padding hold behind a text of any length modulo 8 bits."""
        for length in range(8, 24):
            encoded = encode_huffman(b"a" * length)
            self.assertEqual(decode_huffman(encoded), b"a" * length)
            padding = -5 * length % 8
            for end in (b"\xff", b"\xff\xfe", b"\xff" * 4):
                self.assertRaises(HpackError, decode_huffman, encoded + end)
            for bit in range(padding):
                # Some of these end with another symbol.
                self.check_encoding(encoded[:-1] + bytes((encoded[-1] ^ 1 << bit,)))

    def test_string(self) -> None:
        """The encoder uses the Huffman code only if it is shorter; both are decoded."""
        for data in (b"www.example.com", b"\x00\xff", b""):
            for huffman in (False, True):
                encoded = encode_string(data, huffman)
                self.assertLessEqual(len(encoded), len(data) + 1)
                self.assertEqual(decode_string(encoded, 0), (data, len(encoded)))
        self.assertRaises(HpackError, decode_string, b"\x05abcd", 0)


class ExampleTests(SynchronousTestCase):
    """RFC 7541, appendix C."""

    def test_representations(self) -> None:
        """C.2: literals with, without and never indexing, and an indexed field."""
        for block, field, entries in (
            (
                "400a637573746f6d2d6b65790d637573746f6d2d686561646572",
                (b"custom-key", b"custom-header"),
                1,
            ),
            ("040c2f73616d706c652f70617468", (b":path", b"/sample/path"), 0),
            ("100870617373776f726406736563726574", (b"password", b"secret"), 0),
            ("82", (b":method", b"GET"), 0),
        ):
            decoded = decode_block(bytes.fromhex(block), Table(), LIMITS)
            self.assertEqual(decoded.fields, [field])
            self.assertEqual(len(decoded.table.fields) - len(STATIC_TABLE), entries)
            self.assertEqual(decoded.sensitive, field[0] == b"password")

    def test_requests(self) -> None:
        """C.3 and C.4: three requests on a connection, without and with the Huffman code."""
        first = [
            *((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")),
            (b":authority", b"www.example.com"),
        ]
        third = [
            *((b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/index.html")),
            *((b":authority", b"www.example.com"), (b"custom-key", b"custom-value")),
        ]
        expected = [first, [*first, (b"cache-control", b"no-cache")], third]
        plain = (
            "828684410f7777772e6578616d706c652e636f6d",
            "828684be58086e6f2d6361636865",
            "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
        )
        huffman = (
            "828684418cf1e3c2e5f23a6ba0ab90f4ff",
            "828684be5886a8eb10649cbf",
            "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
        )
        self.assertEqual(decode_all(new_decoder(), *plain), expected)
        self.assertEqual(decode_all(new_decoder(), *huffman), expected)

    def test_responses(self) -> None:
        """C.6: three responses with a table of 256 bytes, which evict entries."""
        decoder = new_decoder()
        decoder.set_max_table_size(256)
        responses = decode_all(
            decoder,
            "3fe101488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff"
            "6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            "4883640effc1c0bf",
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335"
            "dfdfcd5b3960d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
        )
        self.assertEqual([len(fields) for fields in responses], [4, 4, 6])
        self.assertEqual([fields[0][1] for fields in responses], [b"302", b"307", b"200"])
        self.assertEqual(responses[1][1:], responses[0][1:])
        self.assertEqual(
            responses[2][-1],
            (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
        )

    def test_stories(self) -> None:
        """Blocks of independent encoders, which also change the table size, are decoded."""
        folder = Path(os.environ.get("HPACK_TEST_CASES", STORIES))
        paths = [path for path in folder.rglob("*.json") if path.parent.name != "raw-data"]
        self.assertGreater(len(paths), 10)
        shared: SharedTables[Fields] = SharedTables(list, set_path)
        for path in sorted(paths):
            cases = json.loads(path.read_text())["cases"]
            # The second and third connection find memoised blocks.
            for _ in range(3):
                decoder = HeaderDecoder(shared, LIMITS)
                for case in cases:
                    if case.get("header_table_size") is not None:
                        decoder.set_max_table_size(case["header_table_size"])
                    fields = [
                        (name.encode(), value.encode())
                        for field in case["headers"]
                        for name, value in field.items()
                    ]
                    decoded = decoder.decode(bytes.fromhex(case["wire"]))
                    self.assertEqual(decoded, fields, f"{path.name}: {case['seqno']}")


def set_path(fields: Fields, path: bytes) -> Fields:
    """Return the fields with another :path."""
    return [(name, path if name == b":path" else value) for name, value in fields]


class InvalidBlockTests(SynchronousTestCase):
    """Blocks that are rejected."""

    def test_indexes(self) -> None:
        """Index 0 and indexes beyond the table are errors."""
        for block in ("80", "be", "ff00", "7f000161", "0f30016100", "ffffffff0f"):
            with self.assertRaises(HpackError, msg=block):
                decode_all(new_decoder(), block)

    def test_incomplete_blocks(self) -> None:
        """A block that ends within a field is an error."""
        block = encode_fields([(b"x-name", b"value")], huffman=True)
        for length in range(1, len(block)):
            self.assertRaises(HpackError, new_decoder().decode, block[:length])

    def test_size_updates(self) -> None:
        """A size update behind a field or above the limit is an error; others are followed."""
        for block in ("8220", "3fe21f", "203fe21f"):
            with self.assertRaises(HpackError, msg=block):
                decode_all(new_decoder(), block)
        self.assertEqual(decode_all(new_decoder(), "20", "203fe11f82")[1], [(b":method", b"GET")])

    def test_required_size_update(self) -> None:
        """After a lower limit the next block starts with a size update, to the lowest limit."""
        for limits, wrong, right in (
            ((100,), ("82", "3f4682", "3fe11f82"), "3f4582"),
            ((0,), ("82", "2182"), "2082"),
            # RFC 7541, 4.2: the lowest of several limits, then perhaps the last one.
            ((0, 4096), ("82", "3fe11f82"), "203fe11f82"),
        ):
            for block in (*wrong, right):
                decoder = new_decoder()
                decode_all(decoder, "400161016182")
                for limit in limits:
                    decoder.set_max_table_size(limit)
                if block == right:
                    self.assertEqual(decode_all(decoder, block, "82")[1], [(b":method", b"GET")])
                else:
                    with self.assertRaises(HpackError, msg=block):
                        decode_all(decoder, block)

    def test_higher_limit_requires_nothing(self) -> None:
        """A higher limit needs no size update, and a limit set twice changes nothing."""
        table = Table()
        self.assertIs(lower_limit(table, 4096), table)
        decoder = new_decoder()
        decoder.set_max_table_size(8192)
        self.assertEqual(decode_all(decoder, "82", "3fe13f82"), [[(b":method", b"GET")]] * 2)

    def test_entry_larger_than_the_table(self) -> None:
        """An entry larger than the table empties it and is no error (RFC 7541, 4.4)."""
        decoder = new_decoder()
        large = b"\x40\x01a" + encode_string(bytes(5000))
        decode_all(decoder, "4001610162", "be")
        self.assertEqual(decoder.decode(large), [(b"a", bytes(5000))])
        self.assertRaises(HpackError, decoder.decode, b"\xbe")

    def test_limits(self) -> None:
        """A list beyond a limit is rejected after the table was updated."""
        insert = bytes.fromhex("4001610162")
        for limits in (HeaderLimits(100, 100), HeaderLimits(10000, 2)):
            decoder = new_decoder(limits)
            self.assertRaises(HeaderListTooLarge, decoder.decode, b"\x82\x84\x86" + insert)
            self.assertEqual(decoder.decode(b"\xbe"), [(b"a", b"b")])
            self.assertEqual(len(decoder.decode(b"\x82\x84")), 2)

    def test_compression_bomb(self) -> None:
        """A block of references to a large entry builds no list beyond the limit."""
        limits = HeaderLimits(32 * 1024, 1000)
        insert = decode_block(b"\x40\x01a" + encode_string(bytes(4000)), Table(), limits)
        decoded = decode_block(b"\xbe" * 4000, insert.table, limits)
        self.assertIsNone(decoded.fields)
        self.assertRaises(HeaderFlood, decode_block, b"\xbe" * 4001, insert.table, limits)
        flood = b"\x20\x3f\xe1\x1f" * 5
        self.assertRaises(HpackError, decode_block, flood, Table(), limits)

    @given(st.lists(st.binary(max_size=60), max_size=5))
    def test_arbitrary_bytes(self, blocks: list[bytes]) -> None:
        """Arbitrary bytes cause no other errors."""
        decoder = new_decoder(HeaderLimits(200, 4))
        try:
            for block in blocks:
                try:
                    decoder.decode(block)
                except HeaderListTooLarge:
                    continue
        except HpackError:
            pass


class OtherImplementationTests(SynchronousTestCase):
    """The library hpack as encoder and decoder."""

    @given(st.lists(st.tuples(FIELDS, st.sampled_from((None, 0, 40, 100, 300, 4096))), max_size=8))
    @settings(max_examples=200)
    def test_decoder(self, blocks: list[tuple[Fields, int | None]]) -> None:
        """Blocks of the library are decoded, with evictions and changes of the table size."""
        encoder = hpack.Encoder()
        decoder = new_decoder()
        for fields, size in blocks:
            if size is not None:
                encoder.header_table_size = size
                decoder.set_max_table_size(size)
            self.assertEqual(decoder.decode(encoder.encode(fields)), fields)

    @given(FIELDS, st.booleans())
    def test_encoder(self, fields: Fields, huffman: bool) -> None:
        """The library decodes our blocks, also behind the update to an empty table."""
        for prefix in (b"", EMPTY_TABLE):
            decoded = hpack.Decoder().decode(prefix + encode_fields(fields, huffman), raw=True)
            self.assertEqual([tuple(field) for field in decoded], fields)

    def test_encoded_forms(self) -> None:
        """Static fields take one byte, names an index; credentials are never indexed."""
        self.assertEqual(encode_field(b":status", b"200"), b"\x88")
        self.assertEqual(encode_field(b":status", b"201"), b"\x08\x03201")
        self.assertEqual(encode_field(b"server", b"x"), b"\x0f\x27\x01x")
        self.assertEqual(encode_field(b"set-cookie", b"a=b"), b"\x1f\x28\x03a=b")
        self.assertEqual(encode_field(b"x-a", b"1"), b"\x00\x03x-a\x011")
        self.assertEqual(decode_block(b"\x1f\x28\x03a=b", Table(), LIMITS).sensitive, True)
