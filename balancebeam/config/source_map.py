"""
Source map: the line of each key, table and array element of a TOML file.

`tomllib` returns the values without their positions, so a scanner of its own finds them. It scans
only text that `tomllib` has accepted, so it need not detect errors.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from itertools import count
from typing import Optional, Union

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The keys and indices of a value in the parsed data: ("pool", 0, "upstreams", 1, "weight").
Path = tuple[Union[str, int], ...]

# A table or an array that is not closed yet: its path, and the iterator of the indices of an
# array, or `None` for a table.
_Container = tuple[Path, Optional[Iterator[int]]]

# All patterns match the empty string at least, and take linear time. A multi-line string ends at
# the first three quotes; up to two quotes before them are part of the string (TOML 1.0, String).
_STRING = (
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"[^"\\]*(?:\\.[^"\\]*)*"'
    r"|'[^']*'"
)
_KEY = re.compile(rf"{_STRING}|[\w-]*", re.DOTALL)
_SCALAR = re.compile(rf"{_STRING}|[^,\]}}#\n]*", re.DOTALL)
_SPACE = re.compile(r"[ \t]*")
# Whitespace, newlines, comments and commas, whose positions tomllib has checked.
_GAP = re.compile(r"(?:[ \t\n,]+|#[^\n]*)*")


def key_lines(text: str) -> dict[Path, int]:
    """
    Return the line numbers of all keys, tables and array elements of a document.

    Args:
        text: the document, which `tomllib` has accepted.

    Returns:
        The numbers, from 1, by path. A table with a header has the line of the header; any other
        value has the line where its key or the value is first mentioned.
    """
    return _Scanner(text).scan()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """Return the line of `path`, or of the nearest table or array around it; 0 without any."""
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((lines[prefix] for prefix in prefixes if prefix in lines), 0)


class _Scanner:
    """Scanner of one document, in one pass and without recursion, for nesting of any depth."""

    def __init__(self, text: str) -> None:
        # As in tomllib, which accepts "\r" nowhere else.
        self._text = text.replace("\r\n", "\n")
        self._position = 0
        self._line = 1
        self._counted_to = 0
        self._lines: dict[Path, int] = {}
        # The number of headers [[…]] of each path so far.
        self._array_lengths: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
        """Return the line number of each path."""
        table: Path = ()
        self._skip(_GAP)
        while self._position < len(self._text):
            if self._text[self._position] == "[":
                table = self._scan_header()
            else:
                self._scan_value(self._scan_key(table))
            self._skip(_GAP)
        return self._lines

    def _scan_header(self) -> Path:
        """Skip a header; return the path of its table."""
        brackets = 2 if self._text.startswith("[[", self._position) else 1
        self._position += brackets
        path = self._scan_dotted_key(())
        line = self._current_line()
        if brackets == 2:
            self._lines.setdefault(path, line)
            number = self._array_lengths.get(path, 0)
            self._array_lengths[path] = number + 1
            path = (*path, number)
        # Not setdefault: headers of tables within this one may come first and mention it.
        self._lines[path] = line
        self._position += brackets
        return path

    def _scan_key(self, table: Path) -> Path:
        """Skip a key of `table` and the "=" after it; return the path of the value."""
        path = self._scan_dotted_key(table)
        self._lines[path] = self._current_line()
        self._position += 1
        self._skip(_SPACE)
        return path

    def _scan_dotted_key(self, table: Path) -> Path:
        """Skip a key, dotted or not, relative to `table`; return its path."""
        path = (*table, self._scan_key_part())
        line = self._current_line()
        while self._text.startswith(".", self._position):
            self._position += 1
            self._lines.setdefault(path, line)
            if path in self._array_lengths:
                path = (*path, self._array_lengths[path] - 1)
            path = (*path, self._scan_key_part())
        return path

    def _scan_key_part(self) -> str:
        """Skip one part of a dotted key and the whitespace around it; return its name."""
        self._skip(_SPACE)
        part = self._skip(_KEY)
        self._skip(_SPACE)
        if not part.startswith(('"', "'")):
            return part
        if part.startswith('"') and "\\" in part:
            # tomllib decodes the escapes.
            return str(tomllib.loads(f"part = {part}")["part"])
        return part[1:-1]

    def _scan_value(self, path: Path) -> None:
        """Skip the value at `path` and record the lines of the keys and elements in it."""
        containers: list[_Container] = []
        value: Path | None = path
        while value is not None:
            opening = self._text[self._position : self._position + 1]
            if opening in ("[", "{"):
                self._position += 1
                containers.append((value, count() if opening == "[" else None))
            else:
                self._skip(_SCALAR)
            value = self._next_value(containers)

    def _next_value(self, containers: list[_Container]) -> Path | None:
        """
        Skip to the next value in the innermost open container.

        Returns:
            The path of that value, or `None` when all containers are closed.
        """
        while containers:
            self._skip(_GAP)
            if self._text[self._position : self._position + 1] in ("]", "}", ""):
                self._position += 1
                containers.pop()
                continue
            table, indices = containers[-1]
            if indices is None:
                return self._scan_key(table)
            path = (*table, next(indices))
            self._lines[path] = self._current_line()
            return path
        return None

    def _skip(self, pattern: re.Pattern[str]) -> str:
        """Skip the match of `pattern` at the current position; return its text."""
        start = self._position
        match = pattern.match(self._text, start)
        self._position = match.end() if match else start
        return self._text[start : self._position]

    def _current_line(self) -> int:
        """Return the current line number. Each newline is counted once, so scans stay linear."""
        self._line += self._text.count("\n", self._counted_to, self._position)
        self._counted_to = self._position
        return self._line
