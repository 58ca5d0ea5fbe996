"""TODO."""

from __future__ import annotations

from typing import Protocol


class EjectionState(Protocol):
    """A server, as far as the passive health policy has to know it."""

    consecutive_failures: int
    cooldown: float
    ejected_until: float


class CheckState(Protocol):
    """
    A server, as far as the active health policy has to know it.

    `check_streak` counts checks with the same result, below 0 if they failed.
    """

    healthy: bool
    check_streak: int
