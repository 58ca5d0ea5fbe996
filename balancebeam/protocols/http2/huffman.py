"""
The Huffman code of HPACK (RFC 7541, appendix B).

Text is decoded by zlib where that is compiled code. DEFLATE (RFC 1951) allows any canonical code
of at most 15 bits, so the symbols with such codes, which are all of text, become the code of a
DEFLATE block. The prefix of all longer codes is 15 ones. It becomes the end of the block, which
therefore also marks the end of a string, as padding consists of ones.

Strings with other symbols, invalid ones and short ones are decoded by a state machine, one row
per byte: a state is an inner node of the code tree, and an element of its row has the symbols
that the byte completes and the next row. Rows are built when they are first used: text uses about
30 of the 256. All of them take 35 ms and 6 MiB, which bounds what hostile input can cause.
"""

from __future__ import annotations

import platform
import zlib
from typing import Any

from balancebeam.protocols.http2.hpack_errors import HpackError

# Length in bits of the code of each byte, and of EOS. The code is canonical: codes of
# one length are consecutive numbers in the order of their symbols, so lengths define it.
_LENGTHS = (
    *(13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28),
    *(28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28),
    *(6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6),
    *(5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10),
    *(13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7),
    *(7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6),
    *(15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5),
    *(6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28),
    *(20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23),
    *(24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24),
    *(22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23),
    *(21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23),
    *(26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25),
    *(19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27),
    *(20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23),
    *(26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26),
    30,
)
_EOS = 256

# RFC 7541, 5.2: "A padding strictly longer than 7 bits MUST be treated as a decoding error."
_MAX_PADDING = 7
# Index in a row, after the elements for the 256 bytes: whether the string may end there.
_MAY_END = 256


def _assign_codes() -> tuple[str, ...]:
    """Return the code of each symbol as text of `0` and `1`."""
    codes = [""] * len(_LENGTHS)
    code = length = 0
    for symbol_length, symbol in sorted((bits, symbol) for symbol, bits in enumerate(_LENGTHS)):
        code <<= symbol_length - length
        length = symbol_length
        codes[symbol] = f"{code:0{length}b}"
        code += 1
    return tuple(codes)


CODES = _assign_codes()
_SYMBOLS = {code: symbol for symbol, code in enumerate(CODES)}

# Rows by the bits that lead to their state. A row is empty until it is used; then it has
# 256 pairs (decoded bytes, next row), and a bool at `_MAY_END`.
_ROWS: dict[str, list[Any]] = {}
_INVALID: list[Any] = []
_INVALID += [(b"", _INVALID)] * 256 + [False]


def _row(bits: str) -> list[Any]:
    """Return the row of the state that `bits` lead to, perhaps still empty."""
    return _ROWS.setdefault(bits, [])


# The state between two symbols.
_START = _row("")


def _build_row(row: list[Any]) -> None:
    """Compute the elements of an empty row."""
    start = next(bits for bits, other in _ROWS.items() if other is row)
    elements: list[Any] = []
    for byte in range(256):
        decoded = bytearray()
        bits = start
        following: list[Any] | None = None
        for bit in f"{byte:08b}":
            bits += bit
            symbol = _SYMBOLS.get(bits)
            if symbol == _EOS:
                # RFC 7541, 5.2: a string that contains EOS is a decoding error.
                following = _INVALID
                break
            if symbol is not None:
                decoded.append(symbol)
                bits = ""
        elements.append((bytes(decoded), _row(bits) if following is None else following))
    # RFC 7541, 5.2: padding is the most significant bits of EOS, which are all ones.
    row += elements
    row.append(len(start) <= _MAX_PADDING and "0" not in start)


# RFC 1951, 3.2.7: the longest code, and the order of the lengths of the code of lengths.
_MAX_DEFLATE_LENGTH = 15
_LENGTHS_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)

# DEFLATE fills bytes from the least significant bit, HPACK from the most significant one.
_REVERSED_BITS = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))

# 15 ones, which complete any padding to the end of the block, and a bit that is not used.
_END_OF_BLOCK = b"\xff\xfe"

# Bytes of a string below which the state machine is faster.
_MIN_INFLATED = 8


def _deflate_header() -> bytes:
    """Return the beginning of a DEFLATE stream in the code of HPACK, up to the first symbol."""

    def number(value: int, length: int) -> str:
        return f"{value:0{length}b}"[::-1]

    # Lengths have a code themselves, here numbers of four bits; repetitions are not used.
    lengths = "".join(number(4 if length <= 15 else 0, 3) for length in _LENGTHS_ORDER)
    symbols = [length if length <= _MAX_DEFLATE_LENGTH else 0 for length in _LENGTHS[:_EOS]]
    codes = "".join(f"{length:04b}" for length in (*symbols, _MAX_DEFLATE_LENGTH))
    # The last block, with dynamic codes: 257 symbols and, as it has to be, one distance.
    bits = f"1{number(2, 2)}{number(0, 5)}{number(0, 5)}{number(15, 4)}{lengths}{codes}{'0' * 4}"
    while len(bits) % 8:
        # An empty block with fixed codes, so that the first symbol begins a byte.
        bits = f"0{number(1, 2)}{'0' * 7}{bits}"
    return bytes(int(bits[start : start + 8][::-1], 2) for start in range(0, len(bits), 8))


def _build_inflater() -> Any:
    """Return a decompressor that expects the first symbol, or `None` if it would be slow."""
    if platform.python_implementation() != "CPython":
        return None
    # The window, which no match refers to, is the smallest.
    inflater = zlib.decompressobj(-9)
    inflater.decompress(_deflate_header())
    return inflater


_INFLATER = _build_inflater()


def decode_huffman(data: bytes) -> bytes:
    """
    Decode a string.

    Raises:
        HpackError: The string contains EOS, or its padding is invalid.
    """
    if _INFLATER is not None and len(data) >= _MIN_INFLATED:
        inflater = _INFLATER.copy()
        decoded: bytes = inflater.decompress((data + _END_OF_BLOCK).translate(_REVERSED_BITS))
        # The end is in the last byte if at most 7 bits of padding precede it. It is before if a
        # longer code or too much padding was found, and is not reached if a code is incomplete.
        if inflater.eof and not inflater.unused_data:
            return decoded
    return _decode_by_rows(data)


def _decode_by_rows(data: bytes) -> bytes:
    """Decode a string of any symbols; see `decode_huffman`."""
    row = _START
    while True:
        decoded: list[bytes] = []
        append = decoded.append
        try:
            for byte in data:
                part, row = row[byte]
                append(part)
            if row[_MAY_END]:
                return b"".join(decoded)
        except IndexError:
            # Happens once per row and process.
            _build_row(row)
            row = _START
            continue
        raise HpackError("invalid Huffman code: EOS or padding")


def encode_huffman(data: bytes) -> bytes:
    """Encode a string."""
    if not data:
        return b""
    bits = "".join([CODES[byte] for byte in data])
    length = (len(bits) + 7) // 8
    return int(bits.ljust(8 * length, "1"), 2).to_bytes(length, "big")


def huffman_length(data: bytes) -> int:
    """Return the length of a string once encoded, in bytes."""
    return (sum([_LENGTHS[byte] for byte in data]) + 7) // 8
