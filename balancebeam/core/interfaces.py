"""TODO."""

from __future__ import annotations

from typing import Protocol


class Random(Protocol):
    """A source of randomness: `random.Random`."""

    def random(self) -> float: ...
