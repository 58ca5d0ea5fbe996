"""
Values as they stand in a configuration file. All of these raise `ValueError`,
saying what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

from balancebeam.config.numbers import MAX_SECONDS

T = TypeVar("T")

_SIZE = re.compile(r"([0-9]{1,15})\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_STATUS = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")


def text(value: Any) -> str:
    """A string."""
    if not isinstance(value, str):
        raise ValueError(f"{_display(value)} is no text; write it in quotes")
    return value


def file_path(value: Any) -> str:
    """The path of a file."""
    path = text(value)
    if not path or "\0" in path:
        raise ValueError(f"{_display(value)} is no path of a file")
    return path


def boolean(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{_display(value)} is neither true nor false")
    return value


def name(value: Any) -> str:
    """The name of a frontend or a pool."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError(f"{_display(value)} is no name; give letters, digits, - and _")
    return value


def integer(minimum: int, maximum: int = 10**9) -> Callable[[Any], int]:
    """A whole number from `least` to `most`."""

    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ValueError(f"{_display(value)} is no whole number from {minimum} to {maximum}")
        return value

    return read


def seconds(value: Any) -> float:
    """A length of time in seconds."""
    return _seconds(value, allow_zero=False)


def seconds_or_zero(value: Any) -> float:
    """A length of time in seconds, or 0."""
    return _seconds(value, allow_zero=True)


def _seconds(value: Any, allow_zero: bool) -> float:
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= MAX_SECONDS or (number == 0 and not allow_zero):
        least = "0 or more" if allow_zero else "more than 0"
        raise ValueError(
            f"{_display(value)} is no length of time; give seconds, {least}, such as 10"
        )
    return float(number)


def fraction(value: Any) -> float:
    """A number from 0 to 1."""
    number = value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    if not 0 <= number <= 1:
        raise ValueError(f"{_display(value)} is no share; give a number from 0 to 1")
    return float(number)


def size(value: Any) -> int:
    """A number of octets: a whole number, or a text such as "10MB" or "1GiB"."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    octets = 0
    if match is not None:
        base = 1024 if match[3] else 1000
        octets = int(match[1]) * int(base ** " kmgt".index(match[2].lower() or " "))
    if not 0 < octets < 2**63:
        raise ValueError(f'{_display(value)} is no size; give octets, or a text such as "10MB"')
    return octets


def status_range(value: Any) -> tuple[int, int]:
    """ "200-299" or "200"."""
    shown = _display(value) if isinstance(value, int) else value
    match = _STATUS.fullmatch(shown) if isinstance(shown, str) else None
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f'{_display(value)} is no range of statuses; give one such as "200-299"')
    return int(match[1]), int(match[2] or match[1])


def one_of(choices: Sequence[str]) -> Callable[[Any], str]:
    """One of a few words."""

    def read(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"{_display(value)} is not known; give one of {', '.join(choices)}")
        chosen: str = value
        return chosen

    return read


def list_of(parse: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """A list; a single value will do."""

    def read_all(value: Any) -> tuple[T, ...]:
        values = value if isinstance(value, list) else [value]
        return tuple(parse(one) for one in values)

    return read_all


def parsed(parse: Callable[[str], T]) -> Callable[[Any], T]:
    """What `read` makes of a text."""
    return lambda value: parse(text(value))


def _display(value: Any) -> str:
    try:
        shown = repr(value) if not isinstance(value, bool) else str(value).lower()
    except (ValueError, RecursionError):
        # A number of thousands of digits, or as many tables in each other.
        return "this"
    return shown if len(shown) <= 60 else shown[:57] + "..."
