"""Requests that wait until a server may be given one more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from balancebeam.core.settings import QueueSettings
from balancebeam.proxy.exchange import Exchange


class RequestQueue:
    """
    First come, first served: no more than `settings.limit` at once, and none
    for longer than `settings.timeout` seconds.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self.settings = settings
        # Since when each of them waits, on the ticker, in that order.
        self.queued_at: dict[Exchange, float] = {}

    def __len__(self) -> int:
        return len(self.queued_at)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(list(self.queued_at))

    def __contains__(self, exchange: Exchange) -> bool:
        return exchange in self.queued_at

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self.queued_at) >= self.settings.limit

    @property
    def head_is_retry(self) -> bool:
        """Whether the first one failed at some server already."""
        return any(exchange.attempted_servers for exchange in islice(self.queued_at, 1))

    def enqueue(self, exchange: Exchange, now: float) -> None:
        """Wait, behind all others."""
        self.queued_at[exchange] = now

    def remove(self, exchange: Exchange) -> None:
        """Wait no more, if it did."""
        self.queued_at.pop(exchange, None)

    def pop_expired(self, now: float) -> list[Exchange]:
        """Those that have waited for too long, who leave by this."""
        late = []
        for exchange, since in self.queued_at.items():
            if now - since < self.settings.timeout:
                break
            late.append(exchange)
        for exchange in late:
            del self.queued_at[exchange]
        return late
