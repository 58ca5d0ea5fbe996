"""What the check thresholds read and change of a server."""

from __future__ import annotations

import typing


class CheckState(typing.Protocol):
    """
    The active-check state of a server.

    Attributes:
        healthy: The verdict of the checks so far.
        check_streak: Consecutive checks with the same result; negative if they failed.
    """

    healthy: bool
    check_streak: int
