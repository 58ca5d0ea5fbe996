"""Requests that wait until a server may be given one more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from balancebeam.core.settings import QueueSettings
from balancebeam.proxy.exchange import Exchange


class WaitingLine:
    """
    First come, first served: no more than `settings.limit` at once, and none
    for longer than `settings.timeout` seconds.
    """

    def __init__(self, settings: QueueSettings) -> None:
        self.settings = settings
        # Since when each of them waits, on the ticker, in that order.
        self.since: dict[Exchange, float] = {}

    def __len__(self) -> int:
        return len(self.since)

    def __iter__(self) -> Iterator[Exchange]:
        return iter(list(self.since))

    def __contains__(self, exchange: Exchange) -> bool:
        return exchange in self.since

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return len(self.since) >= self.settings.limit

    @property
    def first_was_tried(self) -> bool:
        """Whether the first one failed at some server already."""
        return any(exchange.tried for exchange in islice(self.since, 1))

    def join(self, exchange: Exchange, now: float) -> None:
        """Wait, behind all others."""
        self.since[exchange] = now

    def leave(self, exchange: Exchange) -> None:
        """Wait no more, if it did."""
        self.since.pop(exchange, None)

    def overdue(self, now: float) -> list[Exchange]:
        """Those that have waited for too long, who leave by this."""
        late = []
        for exchange, since in self.since.items():
            if now - since < self.settings.timeout:
                break
            late.append(exchange)
        for exchange in late:
            del self.since[exchange]
        return late
