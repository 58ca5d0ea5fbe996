"""
The http door: a `Site` that speaks HTTP/1.1 straight to its transports.

`twisted.web`'s own channel and `Request` cost more than all the rest of a
request, and spool bodies before they show them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Protocol as Interface

from twisted.internet.interfaces import IAddress
from twisted.web.server import Site

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.http1.channel import HttpChannel
from balancebeam.downstream.http1.timeouts import end_if_too_slow
from balancebeam.net.ticker import Ticker
from balancebeam.net.transport import peer_name
from balancebeam.protocols.http1.request_head import RequestHeads
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import Observer
from balancebeam.proxy.forwarding import Onward
from balancebeam.proxy.rejected import UnreadRequest
from balancebeam.routing.route_table import RouteTable


class Part(Interface):
    """Who holds connections that are not channels yet."""

    @property
    def busy(self) -> bool:
        """Whether there are any."""

    def close_all(self) -> None:
        """Close them."""


class BalancerSite(Site):
    """
    Listens for HTTP clients and hands their requests to a `BalancerResource`,
    the one that `table` says.

    `trusted` are the proxies whose word about a client is taken, `onward` says
    what servers are told. `max_body` is the largest body in octets, `None` for
    no limit. A site that is `draining` lets clients go after their answers.
    """

    noisy = False

    def __init__(
        self,
        table: RouteTable,
        ticker: Ticker,
        timeouts: FrontendTimeouts,
        trusted: TrustedProxies,
        onward: Onward,
        max_body: int | None = None,
    ) -> None:
        spine = table.default.spine
        super().__init__(spine, reactor=spine.reactor)
        self.ticker = ticker
        self.timeouts = timeouts
        self.max_body = max_body
        self._observer: Observer | None = None
        self.draining = False
        # Whether there is more to do for a request than to forward it.
        self.unusual = False
        # Requests that could not be read, by the status of their answers.
        self.unread: defaultdict[int, int] = defaultdict(int)
        self.heads = RequestHeads()
        self.channels: set[HttpChannel] = set()
        # Listeners of a kind of their own, whose clients come here in the end.
        self.parts: list[Part] = []
        self.trusted = trusted
        self.onward = onward
        self.route(table)
        ticker.add(self.sweep)

    def route(self, table: RouteTable) -> None:
        """Requests go where `table` says from now on."""
        self.resource = table.default.spine
        self.default = table.default
        # Most have nothing to look for.
        self.table = table if table.routes else None

    @property
    def observer(self) -> Observer | None:
        """Who is told of requests that have ended."""
        return self._observer

    @observer.setter
    def observer(self, observer: Observer | None) -> None:
        self._observer = observer
        self.unusual = self.draining or observer is not None

    def refused(self, request: UnreadRequest) -> None:
        """Account for `request`, of which there is no more to be said."""
        self.unread[request.status] += 1
        if self._observer is not None:
            self._observer.request_refused(request)

    def tell(self, trusted: TrustedProxies, onward: Onward) -> None:
        """Believe these proxies, and tell servers of clients in this way, from now on."""
        self.trusted, self.onward = trusted, onward
        for channel in self.channels:
            channel.meet(trusted.includes(channel.client))

    def buildProtocol(self, addr: IAddress | None) -> HttpChannel:  # type: ignore[override]
        return self.channel_for(peer_name(addr))

    def channel_for(self, peer: str) -> HttpChannel:
        """The channel of a client that is called `peer`."""
        return HttpChannel(self, peer, self.trusted.includes(peer))

    def startFactory(self) -> None:
        """`Site` would keep a clock for its log here; ours is elsewhere."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def sweep(self, now: float) -> None:
        """End what clients leave hanging for too long."""
        for channel in list(self.channels):
            end_if_too_slow(channel, self.timeouts, now, self.ticker.interval)

    @property
    def busy(self) -> bool:
        """Whether anybody is connected."""
        return bool(self.channels) or any(part.busy for part in self.parts)

    def begin(self) -> None:
        """Clients come, perhaps once more after those before had to go."""
        self.draining = False
        self.unusual = self._observer is not None

    def drain(self) -> None:
        """Close idle connections soon, and the others after their answers; tunnels go on."""
        self.draining = self.unusual = True
        for channel in list(self.channels):
            channel.drain()

    def close_all(self) -> None:
        """Close every client's connection, whatever is going on."""
        for channel in list(self.channels):
            channel.abort()
        for part in self.parts:
            part.close_all()
