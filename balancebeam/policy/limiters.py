"""How many requests a client may make."""

from __future__ import annotations

from typing import Protocol

from attrs import frozen


@frozen
class Refusal:
    """Why a request is not admitted, and when to come again (seconds)."""

    reason: str
    retry_after: int


class Limiter(Protocol):
    """Counts requests of clients, and refuses those that make too many."""

    def admit(self, client: str, now: float) -> Refusal | None:
        """Why `client` may make no request at `now`, if it may not."""
