"""Structural interfaces (PEP 544) shared by several packages."""

from __future__ import annotations

from typing import Protocol


class Random(Protocol):
    """A source of random numbers, such as `random.Random`."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
