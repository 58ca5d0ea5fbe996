"""
The http door: a `Site` that speaks HTTP/1.1 straight to its transports.

`twisted.web`'s own channel and `Request` cost more than all the rest of a
request, and spool bodies before they show them.
"""

from __future__ import annotations

from typing import Protocol as Interface

from twisted.internet.interfaces import (
    IAddress,
)
from twisted.web.server import Site

from balancebeam.doors.channel import HttpChannel
from balancebeam.doors.patience import end_if_too_slow
from balancebeam.doors.resource import BalancerResource
from balancebeam.model import Timeouts
from balancebeam.ticker import Ticker
from balancebeam.transport import peer_name


class Part(Interface):
    """Who holds connections that are not channels yet."""

    def close_all(self) -> None:
        """Close them."""


class BalancerSite(Site):
    """
    Listens for HTTP clients and hands their requests to a `BalancerResource`.

    `max_body` is the largest body in octets, `None` for no limit.
    """

    noisy = False

    def __init__(
        self,
        spine: BalancerResource,
        ticker: Ticker,
        timeouts: Timeouts = Timeouts(),
        max_body: int | None = None,
    ) -> None:
        super().__init__(spine, reactor=spine.reactor)
        self.spine = spine
        self.ticker = ticker
        self.timeouts = timeouts
        self.max_body = max_body
        self.heads = spine.heads
        self.channels: set[HttpChannel] = set()
        # Listeners of a kind of their own, whose clients come here in the end.
        self.parts: list[Part] = []
        ticker.add(self.sweep)

    def buildProtocol(self, addr: IAddress | None) -> HttpChannel:  # type: ignore[override]
        return self.channel_for(peer_name(addr))

    def channel_for(self, peer: str) -> HttpChannel:
        """The channel of a client that is called `peer`."""
        return HttpChannel(self, peer, self.spine.trusted.includes(peer))

    def startFactory(self) -> None:
        """`Site` would keep a clock for its log here; ours is elsewhere."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def sweep(self, now: float) -> None:
        """End what clients leave hanging for too long."""
        for channel in list(self.channels):
            end_if_too_slow(channel, self.timeouts, now, self.ticker.interval)

    def close_all(self) -> None:
        """Close every client's connection, whatever is going on."""
        for channel in list(self.channels):
            channel.abort()
        for part in self.parts:
            part.close_all()
