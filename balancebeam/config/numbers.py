"""Numbers as people write them."""

from __future__ import annotations

import math
import re

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,12}")

# A year; what is longer is a mistake, and timers overflow somewhere beyond.
LONGEST = 366 * 24 * 3600.0


def read_seconds(text: str, zero: bool = False) -> float:
    """A length of time in seconds. Raises `ValueError`."""
    seconds = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not (0 <= seconds <= LONGEST) or (seconds == 0 and not zero):
        least = "0 or more" if zero else "more than 0"
        raise ValueError(f"{text!r} is no length of time; give seconds, {least}, such as 10 or 0.5")
    return seconds


def read_count(text: str, least: int, most: int) -> int:
    """A whole number from `least` to `most`. Raises `ValueError`."""
    if not (text.isascii() and text.isdigit() and len(text) < 10 and least <= int(text) <= most):
        raise ValueError(f"{text!r} is no whole number from {least} to {most}")
    return int(text)
