"""Finds the literal of :path in a header block without decoding the block."""

from __future__ import annotations

from balancebeam.protocols.http2.hpack import PATH_LITERAL, PATH_LITERAL_MASK, decode_integer
from balancebeam.protocols.http2.hpack_errors import HpackError

# Fields that `find_path` skips: the other pseudo-fields of requests are :method, :scheme,
# :authority and :protocol (RFC 8441).
_MAX_FIELDS_BEFORE_PATH = 4


def path_end(block: bytes, start: int) -> int:
    """Return where the :path literal at `start` ends; 0 if there is none, or no end of it."""
    if start + 1 >= len(block) or block[start] & PATH_LITERAL_MASK != PATH_LITERAL:
        return 0
    length = block[start + 1] & 0x7F
    end = start + 2 + length
    if length == 0x7F:
        try:
            length, end = decode_integer(block, start + 1, 0x7F)
        except HpackError:
            # The decoder of the whole block raises the error again.
            return 0
        end += length
    return end if end <= len(block) else 0


def without_path(block: bytes, start: int, end: int) -> bytes:
    """Return the key of a block for look-ups without the string of :path."""
    return block[: start + 1] + block[end:]


def find_path(block: bytes) -> int:
    """
    Return where the literal of :path starts, or -1 if it is not among the first fields.

    The result is used for look-ups, which fail if it is wrong.
    """
    position = 0
    end = len(block)
    for _ in range(_MAX_FIELDS_BEFORE_PATH):
        if position + 1 >= end:
            return -1
        byte = block[position]
        if byte & PATH_LITERAL_MASK == PATH_LITERAL:
            return position
        if byte >= 0x80:
            position += 1
            continue
        # Literals with an indexed name and a short value are skipped, no others.
        mask = 0x3F if byte >= 0x40 else 0x0F
        if byte & mask in (0, mask) or 0x20 <= byte < 0x40:
            return -1
        position += 2 + (block[position + 1] & 0x7F)
    if position < end and block[position] & PATH_LITERAL_MASK == PATH_LITERAL:
        return position
    return -1
