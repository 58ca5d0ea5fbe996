"""Values of command line options: parsed, with a message for each mistake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, TypeVar

from twisted.python import usage

T = TypeVar("T")


class OptionValues(usage.Options):
    """Options whose invalid values are collected, so that one run reports all of them."""

    def __init__(self) -> None:
        super().__init__()
        self._problems: list[str] = []

    def _parse_values(self, name: str, texts: Sequence[str], parse: Callable[[str], T]) -> list[T]:
        """Parse every text that the option `name` has; invalid texts are reported and left out."""
        values: list[T] = []
        for text in texts:
            try:
                values.append(parse(text))
            except ValueError as error:
                self._problems.append(f"--{name}: {error}")
        if name == "bind":
            duplicates = sorted({str(value) for value in values if values.count(value) > 1})
            self._problems += [f"--bind: duplicate address {address}" for address in duplicates]
        return values

    def _parse_option(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The parsed value of the option `name`; `None` if it is absent or invalid."""
        if self[name] is None:
            return None
        return next(iter(self._parse_values(name, [self[name]], parse)), None)
