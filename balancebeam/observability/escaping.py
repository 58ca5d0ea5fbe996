"""Text that somebody else chose, so that it fits into one field of a line."""

from __future__ import annotations

import re

# As nginx does: quotes, the backslash, control characters and all beyond ASCII.
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f-\U0010ffff]')
_UNSAFE_IN_WORD = re.compile(r'["\\\x00-\x20\x7f-\U0010ffff]')

# For `bytes.translate`: what is left without these is to be escaped.
SAFE_BYTES = bytes(set(range(0x20, 0x7F)) - {0x22, 0x5C})


def escape_quoted(data: bytes) -> str:
    """`data` for between two quotes: whatever could end them is `\\xHH`."""
    text = data.decode("latin-1")
    return _UNSAFE.sub(_hex_escape, text) if data.translate(None, SAFE_BYTES) else text


def escape_quoted_text(text: str) -> str:
    """The same of text, by its octets in UTF-8."""
    return escape_quoted(text.encode("utf-8", "surrogatepass"))


def escape_word(text: str) -> str:
    """`text` without blanks, for a field without quotes; "-" if it is empty."""
    octets = text.encode("utf-8", "surrogatepass").decode("latin-1")
    return _UNSAFE_IN_WORD.sub(_hex_escape, octets) or "-"


def _hex_escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match.group()):02X}"
