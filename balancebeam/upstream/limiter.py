"""The service that admits requests, or does not."""

from __future__ import annotations

from twisted.application import service

from balancebeam.policy.limiters import Limiter, Refusal
from balancebeam.ticker import Ticker


class LimiterService(service.Service):
    """Holds the limiter, if there is one, and gives it the time."""

    name = "limiter"

    def __init__(self, limiter: Limiter | None, ticker: Ticker) -> None:
        self._limiter = limiter
        self._ticker = ticker

    def admit(self, client: str) -> Refusal | None:
        """Why `client` may make no request now, if it may not."""
        if self._limiter is None:
            return None
        return self._limiter.admit(client, self._ticker.now)
