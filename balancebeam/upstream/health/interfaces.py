"""TODO."""

from __future__ import annotations

from typing import Protocol


class Watched(Protocol):
    """A server, as far as the passive health policy has to know it."""

    failures: int
    cooldown: float
    avoided_until: float


class Checked(Protocol):
    """
    A server, as far as the active health policy has to know it.

    `checks_in_row` counts checks with the same result, below 0 if they failed.
    """

    healthy: bool
    checks_in_row: int
