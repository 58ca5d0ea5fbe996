"""Bounded caches of the parts of access log lines that repeat."""

from __future__ import annotations

from typing import TypeVar

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

# Entries of a cache: with the longest texts and keys it takes 3 MiB.
_MAX_ENTRIES = 4096

# Characters of a text that is remembered.
_MAX_LENGTH = 512

# Entries of a cache by `RequestHead.repeated_block`, of which each takes up to 2 KiB.
MAX_BLOCKS = 1024


def remember(
    cache: dict[KeyT, ValueT], key: KeyT, value: ValueT, max_entries: int = _MAX_ENTRIES
) -> ValueT:
    """
    Add `value` to `cache`, and return it.

    A full cache is emptied, so that what never returns leaves it too.
    """
    if len(cache) >= max_entries:
        cache.clear()
    cache[key] = value
    return value


def remember_text(
    cache: dict[KeyT, str], key: KeyT, text: str, max_entries: int = _MAX_ENTRIES
) -> str:
    """Return `text`, and add it to `cache` unless it is long."""
    return remember(cache, key, text, max_entries) if len(text) <= _MAX_LENGTH else text
