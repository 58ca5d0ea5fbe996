"""
Parsers of single values, of options (text) and of the configuration file (TOML or JSON values).

Each parser returns the value in its final type, or raises a `ValueError` of the form
`invalid <thing> <value>: expected <form>`. The caller adds the option or the file, line and key.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Callable, TypeVar

from balancebeam.core.settings import MAX_WEIGHT

T = TypeVar("T")

# A year: longer durations are mistakes, and timers of the operating system overflow.
MAX_SECONDS = 366 * 24 * 3600.0

# Longer values are truncated in error messages.
_MAX_SHOWN = 60

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{0,12})?|\.[0-9]{1,12}")
_SIZE = re.compile(r"([0-9]{1,15})\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_STATUS = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*")

# RFC 3986, 3.3 and 3.4: the characters of a path and a query.
_TARGET = re.compile(r"/([A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*")


def parse_seconds(text: str, allow_zero: bool = False) -> float:
    """
    Parse a duration in seconds, at most `MAX_SECONDS`, from the text of an option.

    Args:
        text: a decimal number without sign and exponent, such as "10" or "0.5".
        allow_zero: whether 0 is valid.
    """
    return _check_seconds(float(text) if _DECIMAL.fullmatch(text) else math.nan, text, allow_zero)


def parse_count(text: str, minimum: int, maximum: int, thing: str = "number") -> int:
    """
    Parse a whole number from `minimum` to `maximum` from the text of an option.

    Args:
        thing: the name of the number in the error message.
    """
    if not (
        text.isascii() and text.isdigit() and len(text) < 10 and minimum <= int(text) <= maximum
    ):
        raise ValueError(
            f"invalid {thing} {display(text)}: expected a whole number from {minimum} to {maximum}"
        )
    return int(text)


def parse_weight(text: str) -> int:
    """Parse the weight of a server, from 0 to `MAX_WEIGHT`, from the text of an option."""
    return parse_count(text, 0, MAX_WEIGHT, "weight")


def parse_check_path(text: str) -> str:
    """Parse the path of a health check, with an optional query."""
    if _TARGET.fullmatch(text) is None:
        raise ValueError(f"invalid path {display(text)}: expected a path such as /health")
    return text


def string(value: Any) -> str:
    """Return a string."""
    if not isinstance(value, str):
        raise ValueError(f"invalid value {display(value)}: expected a string in quotes")
    return value


def file_path(value: Any) -> str:
    """Return the path of a file."""
    path = string(value)
    if not path or "\0" in path:
        raise ValueError(f"invalid path {display(value)}: expected the path of a file")
    return path


def boolean(value: Any) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"invalid value {display(value)}: expected true or false")
    return value


def name(value: Any) -> str:
    """Return the name of a frontend or a pool."""
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        raise ValueError(
            f"invalid name {display(value)}: expected letters, digits, '-', '_' and '.', "
            "with a letter, a digit or '_' first"
        )
    return value


def integer(minimum: int, maximum: int = 10**9, thing: str = "number") -> Callable[[Any], int]:
    """
    Return a parser of whole numbers from `minimum` to `maximum`.

    Args:
        thing: the name of the number in error messages.
    """

    def parse(value: Any) -> int:
        # A bool is an int to isinstance.
        if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
            raise ValueError(
                f"invalid {thing} {display(value)}: "
                f"expected a whole number from {minimum} to {maximum}"
            )
        return value

    return parse


weight = integer(0, MAX_WEIGHT, "weight")
"""Parser of the weight of a server, from 0 to `MAX_WEIGHT`."""


def seconds(value: Any) -> float:
    """Return a duration in seconds, more than 0 and at most `MAX_SECONDS`."""
    return _check_seconds(_number(value), value, allow_zero=False)


def seconds_or_zero(value: Any) -> float:
    """Return a duration in seconds, from 0 to `MAX_SECONDS`."""
    return _check_seconds(_number(value), value, allow_zero=True)


def _check_seconds(number: float, value: Any, allow_zero: bool) -> float:
    """Return `number`, which was parsed from `value`, if it is a valid duration."""
    if not 0 <= number <= MAX_SECONDS or (number == 0 and not allow_zero):
        minimum = "0 or more" if allow_zero else "more than 0"
        raise ValueError(
            f"invalid duration {display(value)}: expected seconds, {minimum}, such as 10 or 0.5"
        )
    return float(number)


def fraction(value: Any) -> float:
    """Return a number from 0 to 1."""
    number = _number(value)
    if not 0 <= number <= 1:
        raise ValueError(f"invalid fraction {display(value)}: expected a number from 0 to 1")
    return float(number)


def _number(value: Any) -> float:
    """Return `value` if it is a number, which a bool is not, and NaN otherwise."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def size(value: Any) -> int:
    """
    Return a size in bytes, at least 1 and less than 2 ** 63.

    Args:
        value: a whole number, or a string with a unit: "10MB" is decimal, "10MiB" is binary.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63:
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    byte_count = 0
    if match is not None:
        base = 1024 if match[3] else 1000
        byte_count = int(match[1]) * int(base ** " kmgt".index(match[2].lower() or " "))
    if not 0 < byte_count < 2**63:
        raise ValueError(
            f'invalid size {display(value)}: expected a number of bytes or a string such as "10MB"'
        )
    return byte_count


def status_range(value: Any) -> tuple[int, int]:
    """
    Return the first and the last status of a range.

    Args:
        value: a string such as "200-299" or "204", or one status as a number.
    """
    text = display(value) if isinstance(value, int) else value
    match = _STATUS.fullmatch(text) if isinstance(text, str) else None
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(
            f'invalid status range {display(value)}: expected a range such as "200-299"'
        )
    return int(match[1]), int(match[2] or match[1])


def one_of(choices: Sequence[str]) -> Callable[[Any], str]:
    """Return a parser that accepts each of `choices`."""

    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(
                f"invalid value {display(value)}: expected one of {', '.join(choices)}"
            )
        choice: str = value
        return choice

    return parse


def list_of(parse: Callable[[Any], T]) -> Callable[[Any], tuple[T, ...]]:
    """Return a parser of lists, with `parse` for each element; a single value is a list of one."""

    def parse_all(value: Any) -> tuple[T, ...]:
        elements = value if isinstance(value, list) else [value]
        return tuple(parse(element) for element in elements)

    return parse_all


def parsed(parse: Callable[[str], T]) -> Callable[[Any], T]:
    """Return a parser of strings, whose text `parse` turns into the value."""
    return lambda value: parse(string(value))


def display(value: Any) -> str:
    """Return the text that stands for `value` in error messages, at most 60 characters long."""
    try:
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
    except (ValueError, RecursionError):
        # An integer of thousands of digits, or tables nested as deeply.
        return "(too long)"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
