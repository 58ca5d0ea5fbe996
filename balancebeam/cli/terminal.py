"""Text for terminals: safe, aligned, and as wide as there is room."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_GAP = 2
_INDENT = 4

# What a column is folded to, at the least.
_MIN_COLUMN_WIDTH = 16

# SGR, as ECMA-48 has it.
_COLORS: Mapping[str, str] = {
    "up": "\x1b[32m",
    "down": "\x1b[31m",
    "draining": "\x1b[33m",
    "maintenance": "\x1b[33m",
}
_RESET = "\x1b[0m"


class Terminal(NamedTuple):
    """How many cells a line has, if that matters, and whether there are colours."""

    width: int | None = None
    colors: bool = False


class Column(NamedTuple):
    """those with `align_right` are to the right; one that is `wrappable` gives way when there is no room."""

    heading: str
    align_right: bool = False
    wrappable: bool = False
    color: bool = False


def escape(text: str, allow: str = "") -> str:
    """`text` without anything that a terminal would obey, but what is in `allow`."""
    return "".join(
        character if character.isprintable() or character in allow else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def width(text: str) -> int:
    """How many cells `text` takes."""
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, max_width: int) -> list[str]:
    """`text` in pieces of at most `max_width` cells, cut at blanks where there are some."""
    pieces, piece, cells = [], "", 0
    for character in text:
        if cells + _width(character) > max_width and piece:
            head, blank, tail = piece.rpartition(" ")
            if blank and character != " ":
                piece, rest = head, tail
            else:
                rest = ""
            pieces.append(piece.rstrip())
            piece, cells = rest, width(rest)
            if character == " " and not piece:
                continue
        piece += character
        cells += _width(character)
    return [*pieces, piece]


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], terminal: Terminal = Terminal()
) -> str:
    """
    `rows` under the headings of `columns`. When there is no room, the last
    column's texts stand below the rows instead, and then others are folded.
    """
    rows = [[escape(cell) for cell in row] for row in rows]
    widths = [
        max([width(column.heading), *(width(row[number]) for row in rows)])
        for number, column in enumerate(columns)
    ]
    below = terminal.width is not None and _total(widths) > terminal.width
    if below:
        columns, widths = columns[:-1], _shrink(columns[:-1], widths[:-1], terminal.width or 0)
    lines = _row([column.heading for column in columns], columns, widths, Terminal())
    for row in rows:
        lines += _row(row[: len(columns)], columns, widths, terminal)
        if below and row[-1]:
            room = max(_MIN_COLUMN_WIDTH, (terminal.width or 0) - _INDENT)
            lines += [" " * _INDENT + piece for piece in wrap(row[-1], room)]
    return "".join(f"{line}\n" for line in lines)


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + _GAP * (len(widths) - 1)


def _shrink(columns: Sequence[Column], widths: list[int], max_width: int) -> list[int]:
    """`widths`, of which those of the widest wrappable columns are less, to fit in `max_width`."""
    widths = list(widths)
    while _total(widths) > max_width:
        wide = [
            (widths[number], number)
            for number, column in enumerate(columns)
            if column.wrappable and widths[number] > _MIN_COLUMN_WIDTH
        ]
        if not wide:
            break
        widths[max(wide)[1]] -= 1
    return widths


def _row(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], terminal: Terminal
) -> list[str]:
    """The lines of one row."""
    folded = [wrap(cell, most) for cell, most in zip(cells, widths)]
    lines = []
    for number in range(max(map(len, folded))):
        pieces = []
        for cell, pieces_of, column, most in zip(cells, folded, columns, widths):
            piece = pieces_of[number] if number < len(pieces_of) else ""
            blanks = " " * (most - width(piece))
            if terminal.colors and column.color and piece and cell in _COLORS:
                piece = f"{_COLORS[cell]}{piece}{_RESET}"
            pieces.append(blanks + piece if column.align_right else piece + blanks)
        lines.append((" " * _GAP).join(pieces).rstrip())
    return lines
