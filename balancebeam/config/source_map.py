"""Which line of a TOML file says what: `tomllib` tells the values, but not the places."""

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

# What indexes the parsed data: ("pool", 0, "upstreams", 1, "weight").
Path = tuple[Union[str, int], ...]

# A table or an array that is still open: its path, and the indices that an
# array has left; a table has none.
_Container = tuple[Path, Optional[Iterator[int]]]

# These always match, if nothing at all, and take linear time. A string of several
# lines ends at the first three quotes, and up to two more are its own.
_STRING = (
    r'"""[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"[^"\\]*(?:\\.[^"\\]*)*"'
    r"|'[^']*'"
)
_KEY = re.compile(rf"{_STRING}|[\w-]*", re.DOTALL)
_SCALAR = re.compile(rf"{_STRING}|[^,\]}}#\n]*", re.DOTALL)
_SPACE = re.compile(r"[ \t]*")
# Where a comma may stand is known to be right.
_GAP = re.compile(r"(?:[ \t\n,]+|#[^\n]*)*")


def key_lines(text: str) -> dict[Path, int]:
    """
    The lines, from 1 on, of all keys, tables and elements of arrays in `text`.

    `tomllib` must have accepted the text. What has a header of its own is found
    there, and everything else where it is first mentioned.
    """
    return _Scanner(text).scan()


def line_of(lines: dict[Path, int], path: Path) -> int:
    """The line of `path`, or of the nearest that it is part of; 0 if there is none."""
    prefixes = (path[:length] for length in range(len(path), 0, -1))
    return next((lines[prefix] for prefix in prefixes if prefix in lines), 0)


class _Scanner:
    """Goes through the text once. It has no recursion: no nesting is too deep for it."""

    def __init__(self, text: str) -> None:
        # As tomllib does: no other place in its text may hold a "\r".
        self._text = text.replace("\r\n", "\n")
        self._position = 0
        self._line = 1
        self._counted_to = 0
        self._lines: dict[Path, int] = {}
        # How many headers [[…]] each path has had.
        self._array_lengths: dict[Path, int] = {}

    def scan(self) -> dict[Path, int]:
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
        """Go past a header; the path of the table that follows."""
        brackets = 2 if self._text.startswith("[[", self._position) else 1
        self._position += brackets
        path = self._scan_dotted_key(())
        line = self._current_line()
        if brackets == 2:
            self._lines.setdefault(path, line)
            number = self._array_lengths.get(path, 0)
            self._array_lengths[path] = number + 1
            path = (*path, number)
        # Tables below it may have come before it.
        self._lines[path] = line
        self._position += brackets
        return path

    def _scan_key(self, table: Path) -> Path:
        """Go past a key of `table` and the "=" after it; the path of the value."""
        path = self._scan_dotted_key(table)
        self._lines[path] = self._current_line()
        self._position += 1
        self._skip(_SPACE)
        return path

    def _scan_dotted_key(self, table: Path) -> Path:
        """Go past a name, dotted or not, in `table`; its path."""
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
        """Go past one part of a name and the space around it."""
        self._skip(_SPACE)
        part = self._skip(_KEY)
        self._skip(_SPACE)
        if not part.startswith(('"', "'")):
            return part
        if part.startswith('"') and "\\" in part:
            # Who reads the values knows all the escapes.
            return str(tomllib.loads(f"part = {part}")["part"])
        return part[1:-1]

    def _scan_value(self, path: Path) -> None:
        """Go past the value at `path` and note the places of what is in it."""
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
        """Go to the next value in the innermost open container; `None` once all are closed."""
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
        """Go past what `pattern` matches here, and return that."""
        start = self._position
        match = pattern.match(self._text, start)
        self._position = match.end() if match else start
        return self._text[start : self._position]

    def _current_line(self) -> int:
        """The number of the line. Newlines are counted once, on the way."""
        self._line += self._text.count("\n", self._counted_to, self._position)
        self._counted_to = self._position
        return self._line
