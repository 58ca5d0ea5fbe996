"""How many requests a client may make."""

from __future__ import annotations

from typing import Optional

from attrs import frozen


@frozen
class Refusal:
    """Why a request is not admitted, and when to come again (seconds)."""

    reason: str
    retry_after: int


class Unlimited:
    """Admits everybody."""

    def admit(self, client: str, now: float) -> Optional[Refusal]:
        return None
