"""One table of a configuration file, read key by key; mistakes are collected, not raised."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Callable, TypeVar

from balancebeam.config.source_map import Path, key_lines, line_of

T = TypeVar("T")

_BARE = re.compile(r"[A-Za-z0-9_-]+")


class Document:
    """A file that is being read: where its keys are, and what is wrong with it."""

    def __init__(self, file: str, text: str) -> None:
        self.problems: list[str] = []
        self._file = file
        self._said: set[Path] = set()
        self._lines = key_lines(text)

    def place(self, path: Path) -> str:
        """The file and the line of what is at `path`."""
        line = line_of(self._lines, path)
        return f"{self._file}:{line}" if line else self._file

    def __contains__(self, path: Path) -> bool:
        return path in self._lines

    def said(self, path: Path) -> bool:
        """Whether there is a mistake in what is at `path`."""
        return path in self._said

    def say(self, path: Path, what: str) -> None:
        """Note a mistake at `path`."""
        self._said.update(path[:length] for length in range(1, len(path) + 1))
        key = ".".join(_shown_key(part) for part in path if isinstance(part, str))
        self.problems.append(one_line(f"{self.place(path)}: {key + ': ' if key else ''}{what}"))


class Table:
    """
    The table at `path` of a document. Every key that is asked for is known;
    `close` complains of all others. `bad` are the keys with a value that was
    refused, so that a default stands for it.
    """

    def __init__(self, document: Document, path: Path, content: dict[str, Any]) -> None:
        self.document = document
        self.path = path
        self.bad: set[str] = set()
        self._known: list[str] = []
        self._found: dict[str, list[Table]] = {}
        self._content = content

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def take(self, key: str, read: Callable[[Any], T], default: T) -> T:
        """What `read` makes of the value of `key`; `default` without one, or with a bad one."""
        self._known.append(key)
        if key not in self._content:
            return default
        try:
            return read(self._content[key])
        except ValueError as error:
            self.bad.add(key)
            self.say(key, str(error))
            return default

    def each(
        self, key: str, read: Callable[[Any], T], default: tuple[T, ...] = ()
    ) -> tuple[T, ...]:
        """What `read` makes of each value in the list of `key`; `default` without one."""
        self._known.append(key)
        if key not in self._content:
            return default
        value = self._content[key]
        found = []
        for number, one in enumerate(value if isinstance(value, list) else [value]):
            try:
                found.append(read(one))
            except ValueError as error:
                self.bad.add(key)
                self.document.say((*self.path, key, number), str(error))
        return tuple(found)

    def raw(self, key: str) -> list[tuple[Path, Any]]:
        """The values in the list of `key`, and where they are."""
        self._known.append(key)
        value = self._content.get(key, [])
        if not isinstance(value, list):
            self.say(key, "is no list")
            return []
        return [((*self.path, key, number), one) for number, one in enumerate(value)]

    def table(self, key: str) -> Table | None:
        """The table called `key`, if there is one."""
        self._known.append(key)
        if key not in self._content:
            return None
        if key not in self._found:
            self._found[key] = self._those({(*self.path, key): self._content[key]})
        return next(iter(self._found[key]), None)

    def tables(self, key: str) -> list[Table]:
        """The tables called `key`; one that stands alone will do."""
        if key not in self._found:
            self._found[key] = self._tables(key)
        return self._found[key]

    def _tables(self, key: str) -> list[Table]:
        self._known.append(key)
        value = self._content.get(key, [])
        if isinstance(value, dict):
            return self._those({(*self.path, key): value})
        if not isinstance(value, list):
            self.say(key, f"is no table; write [[{key}]]")
            return []
        return self._those({(*self.path, key, number): one for number, one in enumerate(value)})

    def _those(self, values: dict[Path, Any]) -> list[Table]:
        """Those of `values` that are tables; complain of the others."""
        for path, value in values.items():
            if not isinstance(value, dict):
                self.document.say(path, "is no table")
        return [
            Table(self.document, path, value)
            for path, value in values.items()
            if isinstance(value, dict)
        ]

    def say(self, key: str, what: str) -> None:
        """Note a mistake about `key`."""
        self.document.say((*self.path, key), what)

    def close(self) -> None:
        """Complain of what nobody asked for."""
        for key in self._content:
            if key not in self._known:
                self.say(key, f"is not known; {nearest(key, self._known)}")


def one_line(text: str) -> str:
    """`text`, with escapes for what would end the line or is not seen."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def _shown_key(key: str) -> str:
    return key if _BARE.fullmatch(key) else json.dumps(key, ensure_ascii=False)


def nearest(word: str, known: Iterable[str]) -> str:
    """What was probably meant, or all that could have been."""
    choices = sorted(known)
    close = get_close_matches(word, choices, 1, 0.5)
    return f"did you mean {close[0]}?" if close else f"there is {', '.join(choices) or 'none'}"
