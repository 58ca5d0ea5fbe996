"""Text for terminals: escaping, character widths, wrapping and aligned tables."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Cells between two columns, and before the last column's text when it is below its row.
_GAP = 2
_INDENT = 4

# Cells. Wrappable columns do not become narrower, since shorter pieces of an address are
# unreadable; in a terminal with less space the table is wider than the terminal.
_MIN_COLUMN_WIDTH = 16

# Select Graphic Rendition (ECMA-48, 8.3.117) for each server state.
_COLORS: Mapping[str, str] = {
    "up": "\x1b[32m",
    "down": "\x1b[31m",
    "draining": "\x1b[33m",
    "maintenance": "\x1b[33m",
}
_RESET = "\x1b[0m"


class Terminal(NamedTuple):
    """
    Properties of the output.

    Attributes:
        width: cells of a line; None if it is unlimited, as for a file.
        colors: whether colors are shown.
    """

    width: int | None = None
    colors: bool = False


class Column(NamedTuple):
    """
    Layout of a table column.

    Attributes:
        heading: text of the first line.
        align_right: whether cells are aligned to the right.
        wrappable: whether the column may be narrowed, and its cells wrapped, to fit the table
            in the terminal.
        color: whether cells that are names of server states are colored.
    """

    heading: str
    align_right: bool = False
    wrappable: bool = False
    color: bool = False


def state_color(state: str) -> str | None:
    """Return the control sequence for the color of a server state, `None` for other texts."""
    return _COLORS.get(state)


def escape(text: str, allow: str = "") -> str:
    """
    Replace control and other unprintable characters by `\\uXXXX`.

    So data from the balancer cannot send escape sequences to the terminal.

    Args:
        allow: unprintable characters that are kept.
    """
    return "".join(
        character if character.isprintable() or character in allow else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    code_point = ord(character)
    return f"\\u{code_point:04x}" if code_point < 0x10000 else f"\\U{code_point:08x}"


def width(text: str) -> int:
    """Return the number of terminal cells that `text` occupies."""
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    # Wide and fullwidth characters (Unicode Standard Annex 11).
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def wrap(text: str, max_width: int) -> list[str]:
    """
    Split `text` into lines of at most `max_width` cells.

    Lines end at a space if they contain one. A character that is wider than `max_width` is a
    line of its own.
    """
    lines, line, cells = [], "", 0
    for character in text:
        if cells + _width(character) > max_width and line:
            head, space, tail = line.rpartition(" ")
            if space and character != " ":
                line, rest = head, tail
            else:
                rest = ""
            lines.append(line.rstrip())
            line, cells = rest, width(rest)
            if character == " " and not line:
                continue
        line += character
        cells += _width(character)
    return [*lines, line]


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[str]], terminal: Terminal = Terminal()
) -> str:
    """
    Format `rows` under the headings of `columns`, with escaped cells.

    If the table is wider than the terminal, the last column's text moves below its row; if
    that is not enough, the wrappable columns are narrowed.
    """
    rows = [[escape(cell) for cell in row] for row in rows]
    widths = [
        max([width(column.heading), *(width(row[index]) for row in rows)])
        for index, column in enumerate(columns)
    ]
    last_below = terminal.width is not None and _total(widths) > terminal.width
    if last_below:
        columns, widths = columns[:-1], _shrink(columns[:-1], widths[:-1], terminal.width or 0)
    lines = _row([column.heading for column in columns], columns, widths, Terminal())
    for row in rows:
        lines += _row(row[: len(columns)], columns, widths, terminal)
        if last_below and row[-1]:
            max_width = max(_MIN_COLUMN_WIDTH, (terminal.width or 0) - _INDENT)
            lines += [" " * _INDENT + line for line in wrap(row[-1], max_width)]
    return "".join(f"{line}\n" for line in lines)


def _total(widths: Sequence[int]) -> int:
    """Return the width of a table whose columns have `widths`."""
    return sum(widths) + _GAP * (len(widths) - 1)


def _shrink(columns: Sequence[Column], widths: list[int], max_width: int) -> list[int]:
    """Narrow the widest wrappable columns until the table fits in `max_width`, if it can."""
    widths = list(widths)
    while _total(widths) > max_width:
        candidates = [
            (widths[index], index)
            for index, column in enumerate(columns)
            if column.wrappable and widths[index] > _MIN_COLUMN_WIDTH
        ]
        if not candidates:
            break
        widths[max(candidates)[1]] -= 1
    return widths


def _row(
    cells: Sequence[str], columns: Sequence[Column], widths: Sequence[int], terminal: Terminal
) -> list[str]:
    """Return the lines of one row; it has several if a cell is wrapped."""
    wrapped = [wrap(cell, column_width) for cell, column_width in zip(cells, widths)]
    lines = []
    for index in range(max(map(len, wrapped))):
        pieces = []
        for cell, cell_lines, column, column_width in zip(cells, wrapped, columns, widths):
            piece = cell_lines[index] if index < len(cell_lines) else ""
            padding = " " * (column_width - width(piece))
            if terminal.colors and column.color and piece and cell in _COLORS:
                piece = f"{_COLORS[cell]}{piece}{_RESET}"
            pieces.append(padding + piece if column.align_right else piece + padding)
        lines.append((" " * _GAP).join(pieces).rstrip())
    return lines
