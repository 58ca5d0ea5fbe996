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
from balancebeam.downstream.http1.channel import Http1Channel
from balancebeam.downstream.http1.timeouts import check_timeouts
from balancebeam.net.addresses import peer_ip
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import Observer
from balancebeam.proxy.forwarding import ForwardingPolicy
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.routing.route_table import RouteTable


class PendingHandshakes(Interface):
    """Who holds connections that are not channels yet."""

    @property
    def has_connections(self) -> bool:
        """Whether there are any."""

    def close_all(self) -> None:
        """Close them."""


class Http1Factory(Site):
    """
    Listens for HTTP clients and hands their requests to a `BalancerResource`,
    the one that `table` says.

    `trusted_proxies` are the proxies whose word about a client is taken, `forwarding` says
    what servers are told. `max_body` is the largest body in octets, `None` for
    no limit. A site that is `draining` lets clients go after their answers.
    """

    noisy = False

    def __init__(
        self,
        table: RouteTable,
        ticker: Ticker,
        timeouts: FrontendTimeouts,
        trusted_proxies: TrustedProxies,
        forwarding: ForwardingPolicy,
        max_body: int | None = None,
    ) -> None:
        dispatcher = table.default.dispatcher
        super().__init__(dispatcher, reactor=dispatcher.reactor)
        self.ticker = ticker
        self.timeouts = timeouts
        self.max_body = max_body
        self._observer: Observer | None = None
        self.draining = False
        # Whether there is more to do for a request than to forward it.
        self.needs_accounting = False
        # Requests that could not be read, by the status of their answers.
        self.rejected_requests: defaultdict[int, int] = defaultdict(int)
        self.parser = RequestHeadParser()
        self.channels: set[Http1Channel] = set()
        # Listeners of a kind of their own, whose clients come here in the end.
        self.pending_handshakes: list[PendingHandshakes] = []
        self.trusted_proxies = trusted_proxies
        self.forwarding = forwarding
        self.set_route_table(table)
        ticker.add(self.sweep)

    def set_route_table(self, table: RouteTable) -> None:
        """Requests go where `table` says from now on."""
        self.resource = table.default.dispatcher
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
        self.needs_accounting = self.draining or observer is not None

    def count_rejected(self, request: RejectedRequest) -> None:
        """Account for `request`, of which there is no more to be said."""
        self.rejected_requests[request.status] += 1
        if self._observer is not None:
            self._observer.request_rejected(request)

    def set_forwarding(self, trusted_proxies: TrustedProxies, forwarding: ForwardingPolicy) -> None:
        """Believe these proxies, and tell servers of clients in this way, from now on."""
        self.trusted_proxies, self.forwarding = trusted_proxies, forwarding
        for channel in self.channels:
            channel.update_trust(trusted_proxies.contains(channel.client))

    def buildProtocol(self, addr: IAddress | None) -> Http1Channel:  # type: ignore[override]
        return self.build_channel(peer_ip(addr))

    def build_channel(self, peer: str) -> Http1Channel:
        """The channel of a client that is called `peer`."""
        return Http1Channel(self, peer, self.trusted_proxies.contains(peer))

    def startFactory(self) -> None:
        """`Site` would keep a clock for its log here; ours is elsewhere."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def sweep(self, now: float) -> None:
        """End what clients leave hanging for too long."""
        for channel in list(self.channels):
            check_timeouts(channel, self.timeouts, now, self.ticker.interval)

    @property
    def has_connections(self) -> bool:
        """Whether anybody is connected."""
        return bool(self.channels) or any(part.has_connections for part in self.pending_handshakes)

    def resume_accepting(self) -> None:
        """Clients come, perhaps once more after those before had to go."""
        self.draining = False
        self.needs_accounting = self._observer is not None

    def drain(self) -> None:
        """Close idle connections soon, and the others after their answers; tunnels go on."""
        self.draining = self.needs_accounting = True
        for channel in list(self.channels):
            channel.drain()

    def close_all(self) -> None:
        """Close every client's connection, whatever is going on."""
        for channel in list(self.channels):
            channel.abort()
        for part in self.pending_handshakes:
            part.close_all()
