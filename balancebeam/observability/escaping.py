"""Escaping of text from clients and servers, so that it cannot forge log fields or lines."""

from __future__ import annotations

import re
from json.encoder import encode_basestring_ascii

# As nginx escapes by default: quotes, backslashes, control characters, and all non-ASCII.
_UNSAFE = re.compile(r'["\\\x00-\x1f\x7f-\U0010ffff]')
_UNSAFE_IN_WORD = re.compile(r'["\\\x00-\x20\x7f-\U0010ffff]')


def escape_quoted(data: bytes) -> str:
    """Escape `data` for a quoted field: unsafe bytes become `\\xHH`."""
    # The fastest test, because JSON escapes the same characters: it adds but the quotes.
    text = data.decode("utf-8", "backslashreplace")
    if len(encode_basestring_ascii(text)) == len(data) + 2:
        return text
    return _UNSAFE.sub(_hex_escape, data.decode("latin-1"))


def escape_quoted_text(text: str) -> str:
    """Escape `text` for a quoted field, by its bytes in UTF-8."""
    return escape_quoted(text.encode("utf-8", "surrogatepass"))


def escape_word(text: str) -> str:
    """Escape `text` for a field without quotes, spaces included; "-" if it is empty."""
    data = text.encode("utf-8", "surrogatepass").decode("latin-1")
    return _UNSAFE_IN_WORD.sub(_hex_escape, data) or "-"


def _hex_escape(match: re.Match[str]) -> str:
    return f"\\x{ord(match.group()):02X}"
