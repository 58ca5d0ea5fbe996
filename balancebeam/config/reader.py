"""
Reader of a parsed TOML document: tables are read key by key, and mistakes are collected.

A `Document` holds the mistakes and the line of every key. A `Table` returns the values of one
table, parsed, with a default for a missing or invalid key. So one run reports all mistakes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Callable, TypeVar

from balancebeam.config.source_map import Path, key_lines, line_of
from balancebeam.config.values import display

T = TypeVar("T")

# From 0 to 1: two wrong letters in a key of four still suggest it.
_MIN_SIMILARITY = 0.5

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Document:
    """
    A configuration file while it is read: the lines of its keys, and its mistakes.

    Attributes:
        problems: one message for each mistake, `<file>:<line>: <key>: <mistake>`.
        known_keys: the valid keys of each table that has been read, by its path.
        find_tables: returns the headers of the tables in which a key is valid.
    """

    def __init__(
        self, file: str, text: str, find_tables: Callable[[str], list[str]] = lambda key: []
    ) -> None:
        """
        Args:
            file: the path of the file.
            text: its content.
            find_tables: returns the headers of the tables in which a key is valid.
        """
        self.problems: list[str] = []
        self.known_keys: dict[Path, list[str]] = {}
        self.find_tables = find_tables
        self._file = file
        self._error_paths: set[Path] = set()
        self._lines = key_lines(text)

    def location(self, path: Path) -> str:
        """Return `<file>:<line>` of the key at `path`, or of the nearest table around it."""
        line = line_of(self._lines, path)
        return f"{self._file}:{line}" if line else self._file

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def has_error(self, path: Path) -> bool:
        """Return whether there is a mistake at or below `path`."""
        return path in self._error_paths

    def add_error(self, path: Path, message: str) -> None:
        """Record a mistake at `path`."""
        self._error_paths.update(path[:length] for length in range(1, len(path) + 1))
        key = _dotted(path)
        self.problems.append(
            escape_control(f"{self.location(path)}: {key + ': ' if key else ''}{message}")
        )


class Table:
    """
    One table of a document.

    Reading a key, present or not, marks it as known. After all keys have been read,
    `reject_unknown_keys` reports the others.

    Attributes:
        document: the document, which collects the mistakes.
        path: where the table is in the document.
        invalid_keys: the keys whose value was rejected, so that the default replaces it.
    """

    def __init__(self, document: Document, path: Path, content: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.invalid_keys: set[str] = set()
        self._known_keys: list[str] = []
        self._tables_by_key: dict[str, list[Table]] = {}
        self._content = content

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def get(self, key: str, parse: Callable[[Any], T], default: T) -> T:
        """
        Return the value of `key`, parsed, or `default` if it is missing or invalid.

        Args:
            parse: returns the parsed value, or raises `ValueError`.
        """
        self._known_keys.append(key)
        if key not in self._content:
            return default
        try:
            return parse(self._content[key])
        except ValueError as error:
            self.reject(key, str(error))
            return default

    def get_list(
        self, key: str, parse: Callable[[Any], T], default: tuple[T, ...] = ()
    ) -> tuple[T, ...]:
        """
        Return the elements of the list at `key`, parsed, or `default` if the key is missing.

        Invalid elements are left out. A single value is a list of one.
        """
        self._known_keys.append(key)
        if key not in self._content:
            return default
        value = self._content[key]
        elements = []
        for number, element in enumerate(value if isinstance(value, list) else [value]):
            try:
                elements.append(parse(element))
            except ValueError as error:
                self.invalid_keys.add(key)
                self.document.add_error((*self.path, key, number), str(error))
        return tuple(elements)

    def get_raw_list(self, key: str) -> list[tuple[Path, Any]]:
        """Return the path and the unparsed value of each element of the list at `key`."""
        self._known_keys.append(key)
        value = self._content.get(key, [])
        if not isinstance(value, list):
            self.add_error(key, f"invalid value {display(value)}: expected a list")
            return []
        return [((*self.path, key, number), element) for number, element in enumerate(value)]

    def table(self, key: str) -> Table | None:
        """Return the table at `key`; `None` if it is missing or not a table."""
        self._known_keys.append(key)
        if key not in self._content:
            return None
        if key not in self._tables_by_key:
            self._tables_by_key[key] = self._subtables({(*self.path, key): self._content[key]})
        return next(iter(self._tables_by_key[key]), None)

    def tables(self, key: str) -> list[Table]:
        """Return the tables of the array at `key`; a single table is an array of one."""
        if key not in self._tables_by_key:
            self._tables_by_key[key] = self._read_tables(key)
        return self._tables_by_key[key]

    def _read_tables(self, key: str) -> list[Table]:
        self._known_keys.append(key)
        value = self._content.get(key, [])
        if isinstance(value, dict):
            return self._subtables({(*self.path, key): value})
        if not isinstance(value, list):
            header = _dotted((*self.path, key))
            self.add_error(key, f"invalid value {display(value)}: expected a table [[{header}]]")
            return []
        return self._subtables(
            {(*self.path, key, number): element for number, element in enumerate(value)}
        )

    def _subtables(self, values: dict[Path, Any]) -> list[Table]:
        """Return the tables among `values`; report the other values."""
        for path, value in values.items():
            if not isinstance(value, dict):
                self.document.add_error(path, f"invalid value {display(value)}: expected a table")
        return [
            Table(self.document, path, value)
            for path, value in values.items()
            if isinstance(value, dict)
        ]

    def descend(self, path: Path) -> Table:
        """
        Return a table below this one that has been read.

        Args:
            path: keys; the number after the key of an array counts the tables that were read,
                which leaves out values that are not tables.
        """
        table = self
        for position, part in enumerate(path):
            if isinstance(part, str):
                number = path[position + 1] if position + 1 < len(path) else 0
                table = table.tables(part)[number if isinstance(number, int) else 0]
        return table

    def add_error(self, key: str, message: str, element: int | None = None) -> None:
        """
        Record a mistake that concerns `key`.

        Args:
            key: the key.
            message: the mistake.
            element: the number of the parsed element of a list; `None` for the whole value.
        """
        path: Path = (*self.path, key)
        # Without the invalid elements, the others have other numbers.
        if element is not None and key not in self.invalid_keys:
            path = (*path, element)
        self.document.add_error(path, message)

    def reject(self, key: str, message: str) -> None:
        """Record a mistake that makes the value of `key` invalid, or its absence."""
        self.invalid_keys.add(key)
        self.add_error(key, message)

    def reject_unknown_keys(self) -> None:
        """Report the keys that have not been read."""
        self.document.known_keys[self.path] = self._known_keys
        for key in self._content:
            if key not in self._known_keys:
                hint = suggest(key, self._known_keys)
                tables = self.document.find_tables(key)
                if tables:
                    hint = f"{key} belongs in {' or '.join(tables)}; {hint}"
                self.add_error(key, f"unknown key: {hint}")


def escape_control(text: str) -> str:
    """Return `text` with escapes for line ends and other characters that are not printable."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _dotted(path: Path) -> str:
    """Return the keys of `path` as a dotted key of TOML, without the numbers of arrays."""
    return ".".join(_quote_key(part) for part in path if isinstance(part, str))


def _quote_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def suggest(word: str, choices: Iterable[str]) -> str:
    """Return the end of an error message: the choice most similar to `word`, or all of them."""
    names = sorted(choices)
    similar = get_close_matches(word, names, 1, _MIN_SIMILARITY)
    if similar:
        return f"did you mean {similar[0]}?"
    return f"expected {'one of ' if len(names) > 1 else ''}{', '.join(names) or 'none'}"
