"""Violations of rules that concern several settings, and the keys that are set."""

from __future__ import annotations

from attrs import frozen

from balancebeam.config.reader import Table
from balancebeam.config.source_map import Path

# The message for keys that concern requests.
HTTP_ONLY = 'not available in mode "tcp": expected mode "http"'


@frozen
class Conflict:
    """
    A rule that some settings violate.

    Attributes:
        path: the key, or the table, with the tables of an array numbered from 0:
            `("frontend", 1, "route", 0, "pool")`.
        message: the mistake, and what is expected.
        element: the number of the parsed element, from 0, if `path` is that of a list; `None` for
            the whole value.
    """

    path: Path
    message: str
    element: int | None = None


class Keys:
    """
    The keys that are set: in a file, if `root` is its root table, or else by their values.

    A path has the form of `Conflict.path`.
    """

    def __init__(self, root: Table | None) -> None:
        self._root = root

    def is_set(self, path: Path, differs: bool) -> bool:
        """Return whether a key is set; `differs` is whether its value is not the default."""
        if self._root is None:
            return differs
        return str(path[-1]) in self._root.descend(path[:-1])

    def is_invalid(self, path: Path) -> bool:
        """Return whether the value of a key was rejected, so that the setting is a default."""
        if self._root is None:
            return False
        return path[-1] in self._root.descend(path[:-1]).invalid_keys
