"""Text that somebody else chose, so that it fits into one field of a line."""

from __future__ import annotations

import re

# As nginx does: quotes, the backslash, control characters and all beyond ASCII.
_HOSTILE = re.compile(r'["\\\x00-\x1f\x7f-\U0010ffff]')
_HOSTILE_WORD = re.compile(r'["\\\x00-\x20\x7f-\U0010ffff]')

# For `bytes.translate`: what is left without these is to be escaped.
HARMLESS = bytes(set(range(0x20, 0x7F)) - {0x22, 0x5C})


def quoted(octets: bytes) -> str:
    """`octets` for between two quotes: whatever could end them is `\\xHH`."""
    text = octets.decode("latin-1")
    return _HOSTILE.sub(_hex, text) if octets.translate(None, HARMLESS) else text


def quoted_text(text: str) -> str:
    """The same of text, by its octets in UTF-8."""
    return quoted(text.encode("utf-8", "surrogatepass"))


def word(text: str) -> str:
    """`text` without blanks, for a field without quotes; "-" if it is empty."""
    octets = text.encode("utf-8", "surrogatepass").decode("latin-1")
    return _HOSTILE_WORD.sub(_hex, octets) or "-"


def _hex(match: re.Match[str]) -> str:
    return f"\\x{ord(match.group()):02X}"
