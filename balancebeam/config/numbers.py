"""Numbers as people write them."""

from __future__ import annotations

import math
import re

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,12}")

# A year; what is longer is a mistake, and timers overflow somewhere beyond.
MAX_SECONDS = 366 * 24 * 3600.0


def parse_seconds(text: str, allow_zero: bool = False) -> float:
    """A length of time in seconds. Raises `ValueError`."""
    seconds = float(text) if _DECIMAL.fullmatch(text) else math.nan
    if not (0 <= seconds <= MAX_SECONDS) or (seconds == 0 and not allow_zero):
        least = "0 or more" if allow_zero else "more than 0"
        raise ValueError(f"{text!r} is no length of time; give seconds, {least}, such as 10 or 0.5")
    return seconds


def parse_count(text: str, minimum: int, maximum: int) -> int:
    """A whole number from `least` to `most`. Raises `ValueError`."""
    if not (
        text.isascii() and text.isdigit() and len(text) < 10 and minimum <= int(text) <= maximum
    ):
        raise ValueError(f"{text!r} is no whole number from {minimum} to {maximum}")
    return int(text)
