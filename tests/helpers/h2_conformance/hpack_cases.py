"""Header compression: RFC 7541."""

from __future__ import annotations

from tests.helpers.h2_conformance import frames
from tests.helpers.h2_conformance.case import Case, case, section
from tests.helpers.h2_conformance.expectations import connection_error
from tests.helpers.h2_conformance.frames import COMPRESSION_ERROR, GET_BLOCK, headers

# A literal without indexing, with the new name x-test; its value follows.
LITERAL = b"\x00\x06x-test"

# Huffman codes of letters and of EOS, RFC 7541 appendix B.
T, E, S, EOS = "01001", "00101", "01000", "1" * 30


def huffman_value(bits: str) -> bytes:
    """Return a string literal in Huffman code with exactly these bits."""
    encoded = int(bits, 2).to_bytes(len(bits) // 8, "big")
    return bytes([0x80 | len(encoded)]) + encoded


def undecodable(title: str, block: bytes) -> Case:
    """Return the case of a header block that cannot be decoded."""
    return case(
        f"{title} is a connection error", headers(block), connection_error(COMPRESSION_ERROR)
    )


def table_above_limit(server: dict[int, int]) -> bytes:
    """Return a request with a dynamic table that is larger than the server's limit."""
    size = server.get(frames.HEADER_TABLE_SIZE, frames.DEFAULT_TABLE_SIZE) + 1
    # An integer with a prefix of 5 bits, RFC 7541 5.1.
    update, rest = [0x3F], size - 31
    while rest >= 0x80:
        update.append(0x80 | rest & 0x7F)
        rest >>= 7
    return headers(bytes([*update, rest]) + GET_BLOCK)


HPACK_CASES = (
    *section(
        "hpack/2.3.3",
        "7541 2.3.3",
        undecodable("an indexed field with an index beyond the tables", GET_BLOCK + b"\xc6"),
        undecodable("a literal with an index beyond the tables", GET_BLOCK + b"\x7f\x07\x00"),
    ),
    *section(
        "hpack/4.2",
        "7541 4.2",
        undecodable("a table size update at the end of a block", GET_BLOCK + b"\x21"),
    ),
    *section(
        "hpack/5.2",
        "7541 5.2",
        undecodable(
            "Huffman code with padding of more than 7 bits",
            GET_BLOCK + LITERAL + huffman_value(T + E + S + T + "1" * 12),
        ),
        undecodable(
            "Huffman code padded with zeros",
            GET_BLOCK + LITERAL + huffman_value(T + E + S + T + "0" * 4),
        ),
        undecodable(
            "Huffman code with EOS",
            GET_BLOCK + LITERAL + huffman_value(T + E + EOS + S + T + "1" * 6),
        ),
    ),
    *section("hpack/6.1", "7541 6.1", undecodable("index 0", GET_BLOCK + b"\x80")),
    *section(
        "hpack/6.3",
        "7541 6.3",
        case(
            "a table size above the server's limit is a connection error",
            table_above_limit,
            connection_error(COMPRESSION_ERROR),
        ),
    ),
)
