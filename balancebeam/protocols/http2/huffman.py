"""
The Huffman code of HPACK (RFC 7541, appendix B).

Decoding follows one row of a state machine per byte: a state is an inner node of the
code tree, and an element of its row has the symbols that the byte completes and the
next row. Rows are built when they are first used: text uses about 30 of the 256.
All of them take 35 ms and 6 MiB, which bounds what hostile input can cause.
"""

from __future__ import annotations

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


def decode_huffman(data: bytes) -> bytes:
    """
    Decode a string.

    Raises:
        HpackError: The string contains EOS, or its padding is invalid.
    """
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
