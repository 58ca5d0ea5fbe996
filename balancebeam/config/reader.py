"""One table of a configuration file, read key by key; mistakes are collected, not raised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Callable, TypeVar

from balancebeam.config.source_map import Path, key_lines, line_of

T = TypeVar("T")

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Document:
    """A file that is being read: where its keys are, and what is wrong with it."""

    def __init__(self, file: str, text: str) -> None:
        self.problems: list[str] = []
        self._file = file
        self._error_paths: set[Path] = set()
        self._lines = key_lines(text)

    def location(self, path: Path) -> str:
        """The file and the line of what is at `path`."""
        line = line_of(self._lines, path)
        return f"{self._file}:{line}" if line else self._file

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def has_error(self, path: Path) -> bool:
        """Whether there is a mistake in what is at `path`."""
        return path in self._error_paths

    def add_error(self, path: Path, message: str) -> None:
        """Note a mistake at `path`."""
        self._error_paths.update(path[:length] for length in range(1, len(path) + 1))
        key = ".".join(_quote_key(part) for part in path if isinstance(part, str))
        self.problems.append(
            escape_control(f"{self.location(path)}: {key + ': ' if key else ''}{message}")
        )


class Table:
    """
    The table at `path` of a document. Every key that is asked for is known;
    `reject_unknown_keys` complains of all others. `invalid_keys` are the keys with a value that was
    refused, so that a default stands for it.
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
        """What `read` makes of the value of `key`; `default` without one, or with a bad one."""
        self._known_keys.append(key)
        if key not in self._content:
            return default
        try:
            return parse(self._content[key])
        except ValueError as error:
            self.invalid_keys.add(key)
            self.add_error(key, str(error))
            return default

    def get_list(
        self, key: str, parse: Callable[[Any], T], default: tuple[T, ...] = ()
    ) -> tuple[T, ...]:
        """What `read` makes of each value in the list of `key`; `default` without one."""
        self._known_keys.append(key)
        if key not in self._content:
            return default
        value = self._content[key]
        found = []
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            try:
                found.append(parse(one))
            except ValueError as error:
                self.invalid_keys.add(key)
                self.document.add_error((*self.path, key, number), str(error))
        return tuple(found)

    def get_raw_list(self, key: str) -> list[tuple[Path, Any]]:
        """The values in the list of `key`, and where they are."""
        self._known_keys.append(key)
        value = self._content.get(key, [])
        if not isinstance(value, list):
            self.add_error(key, "is no list")
            return []
        return [((*self.path, key, number), one) for number, one in enumerate(value)]

    def table(self, key: str) -> Table | None:
        """The table called `key`, if there is one."""
        self._known_keys.append(key)
        if key not in self._content:
            return None
        if key not in self._tables_by_key:
            self._tables_by_key[key] = self._subtables({(*self.path, key): self._content[key]})
        return next(iter(self._tables_by_key[key]), None)

    def tables(self, key: str) -> list[Table]:
        """The tables called `key`; one that stands alone will do."""
        if key not in self._tables_by_key:
            self._tables_by_key[key] = self._read_tables(key)
        return self._tables_by_key[key]

    def _read_tables(self, key: str) -> list[Table]:
        self._known_keys.append(key)
        value = self._content.get(key, [])
        if isinstance(value, dict):
            return self._subtables({(*self.path, key): value})
        if not isinstance(value, list):
            self.add_error(key, f"is no table; write [[{key}]]")
            return []
        return self._subtables({(*self.path, key, number): one for number, one in enumerate(value)})

    def _subtables(self, values: dict[Path, Any]) -> list[Table]:
        """Those of `values` that are tables; complain of the others."""
        for path, value in values.items():
            if not isinstance(value, dict):
                self.document.add_error(path, "is no table")
        return [
            Table(self.document, path, value)
            for path, value in values.items()
            if isinstance(value, dict)
        ]

    def add_error(self, key: str, message: str) -> None:
        """Note a mistake about `key`."""
        self.document.add_error((*self.path, key), message)

    def reject_unknown_keys(self) -> None:
        """Complain of what nobody asked for."""
        for key in self._content:
            if key not in self._known_keys:
                self.add_error(key, f"is not known; {suggest(key, self._known_keys)}")


def escape_control(text: str) -> str:
    """`text`, with escapes for what would end the line or is not seen."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _quote_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def suggest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, or all that could have been."""
    choices = sorted(known)
    close = get_close_matches(word, choices, 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(choices) or 'none'}"
