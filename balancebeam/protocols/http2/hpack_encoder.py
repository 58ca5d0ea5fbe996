"""
A stateless encoder of header fields (RFC 7541).

It never inserts into the dynamic table, so an encoded field or block is valid on every
connection, and callers can memoise it.
"""

from __future__ import annotations

from collections.abc import Iterable

from balancebeam.protocols.http2.hpack import SENSITIVE_NAMES
from balancebeam.protocols.http2.huffman import encode_huffman, huffman_length
from balancebeam.protocols.http2.static_table import FIELD_INDEXES, NAME_INDEXES

# The dynamic table size update to 0, to be put before the first header block that is sent
# after the peer's SETTINGS_HEADER_TABLE_SIZE of less than 4096: RFC 7541, 4.2 requires
# the encoder to follow a reduction. Later changes need no further update.
EMPTY_TABLE = b"\x20"


def encode_integer(value: int, mask: int, pattern: int) -> bytes:
    """
    Encode an integer (RFC 7541, 5.1).

    Args:
        value: The integer.
        mask: The bits of the first byte that belong to it.
        pattern: The other bits of that byte.
    """
    if value < mask:
        return bytes((pattern | value,))
    encoded = bytearray((pattern | mask,))
    value -= mask
    while value >= 0x80:
        encoded.append(0x80 | (value & 0x7F))
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_string(value: bytes, huffman: bool = False) -> bytes:
    """
    Encode a string literal (RFC 7541, 5.2).

    Args:
        value: The string.
        huffman: Use the Huffman code if it is shorter.
    """
    if huffman and huffman_length(value) < len(value):
        encoded = encode_huffman(value)
        return encode_integer(len(encoded), 0x7F, 0x80) + encoded
    return encode_integer(len(value), 0x7F, 0) + value


def encode_field(name: bytes, value: bytes, huffman: bool = False) -> bytes:
    """
    Encode a field.

    Args:
        name: The name in lower case.
        value: The value.
        huffman: Use the Huffman code for strings that it shortens.
    """
    index = FIELD_INDEXES.get((name, value))
    if index is not None:
        return bytes((0x80 | index,))
    # RFC 7541, 7.1.3: credentials are "never indexed", so that no later hop compresses them.
    pattern = 0x10 if name in SENSITIVE_NAMES else 0x00
    index = NAME_INDEXES.get(name)
    if index is not None:
        return encode_integer(index, 0x0F, pattern) + encode_string(value, huffman)
    return bytes((pattern,)) + encode_string(name, huffman) + encode_string(value, huffman)


def encode_fields(fields: Iterable[tuple[bytes, bytes]], huffman: bool = False) -> bytes:
    """Encode fields to a header block."""
    return b"".join([encode_field(name, value, huffman) for name, value in fields])
