"""
The TCP door: bytes pass as they are.

A connection is an exchange like any other: it is admitted, gets a server,
another one if that cannot be reached, and is accounted for at its end. Then
the two ends are joined, and nothing stands between them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.python.failure import Failure

from balancebeam.core.ip import pack_client
from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.http1.factory import Part
from balancebeam.net.relay import Link, is_orderly
from balancebeam.net.ticker import Ticker
from balancebeam.net.transport import peer_name
from balancebeam.protocols.client_hello import ClientHelloReader, NoClientHello
from balancebeam.protocols.proxy_protocol import ProxiedConnection
from balancebeam.proxy.exchange import Exchange, Fields, Observer
from balancebeam.routing.route_table import Route, RouteTable
from balancebeam.upstream.tcp_pool import ServerLink


class TcpSite(ServerFactory):
    """
    Listens for TCP clients and has a spine, the one that `table` says, find
    servers for them. Where there are routes, clients are expected to begin TLS
    and to say which server they want.
    """

    noisy = False
    # Of what is passed on as it is nothing has to be understood.
    unread: Mapping[int, int] = MappingProxyType({})

    def __init__(self, table: RouteTable, ticker: Ticker, timeouts: FrontendTimeouts) -> None:
        self.ticker = ticker
        self.timeouts = timeouts
        self.observer: Observer | None = None
        self.draining = False
        self.channels: set[ClientLink] = set()
        self.parts: list[Part] = []
        self.route(table)
        ticker.add(self.sweep)

    def route(self, table: RouteTable) -> None:
        """New connections go where `table` says from now on."""
        self.default = table.default
        self.table = table if table.routes else None

    def sweep(self, now: float) -> None:
        """
        End connections whose client does not take the last of what it was
        sent, and those that are silent for too long; wait no longer for names.
        """
        timeouts = self.timeouts
        for channel in list(self.channels):
            channel.abort_if_stuck(now, timeouts.idle)
            if timeouts.tunnel:
                channel.exchange.end_if_idle(now, timeouts.tunnel)
            waits = channel.hello is not None and not channel.closing
            if waits and now - channel.since >= timeouts.header:
                channel.go(self.default)

    def buildProtocol(self, addr: IAddress | None) -> ClientLink:
        return self.channel_for(peer_name(addr))

    def channel_for(self, peer: str) -> ClientLink:
        """The link of a client that is called `peer`."""
        return ClientLink(self, peer)

    @property
    def busy(self) -> bool:
        """Whether anybody is connected."""
        return bool(self.channels) or any(part.busy for part in self.parts)

    def begin(self) -> None:
        """Clients come, perhaps once more after those before had to go."""
        self.draining = False

    def drain(self) -> None:
        """Connections go on until they end; there are no others."""
        self.draining = True

    def close_all(self) -> None:
        """Close every connection, whatever is going on."""
        for channel in list(self.channels):
            channel.exchange.stop()
        for part in self.parts:
            part.close_all()


class ClientLink(Link):
    """
    The client's end. `came_by` is the connection a PROXY header told of. While
    it is not known which server the client wants, `hello` reads it, and has
    done so `since`, on the ticker.
    """

    came_by: ProxiedConnection | None = None

    def __init__(self, site: TcpSite, client: str) -> None:
        super().__init__()
        self.site = site
        self.client = client
        self.client_key = pack_client(client)
        self.hello: ClientHelloReader | None = None
        self.since = 0.0
        self.exchange = TcpExchange(self)

    def connectionMade(self) -> None:
        super().connectionMade()
        site = self.site
        site.channels.add(self)
        if site.table is None:
            site.default.spine.forward(self.exchange, site.default.limiter)
        else:
            self.hello = ClientHelloReader()
            self.since = site.ticker.now

    def pass_on(self, data: bytes) -> None:
        reader = self.hello
        if reader is None:
            self.exchange.hold(data, last=False)
            return
        try:
            hello = reader.feed(data)
        except NoClientHello:
            # Those who do not speak TLS have no name to go by.
            self.go(self.site.default)
            return
        if hello is not None:
            name, table = hello.server_name, self.site.table
            if name is None or table is None:
                self.go(self.site.default)
            else:
                self.go(table.find(name.encode(), b"/"))

    def go(self, route: Route) -> None:
        """Take `route`, with what has come so far."""
        reader, self.hello = self.hello, None
        self.exchange.spine = route.spine
        if reader is not None and reader.received:
            self.exchange.hold(bytes(reader.received), last=False)
        route.spine.forward(self.exchange, route.limiter)

    def readConnectionLost(self) -> None:
        self.exchange.half_ended("the client closed")
        super().readConnectionLost()
        if self.hello is not None:
            self.go(self.site.default)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.hello = None
        super().connectionLost(reason)
        self.site.channels.discard(self)
        self.exchange.client_lost(clean=is_orderly(reason))
        del self.exchange


class TcpExchange(Exchange):
    """
    One connection. `why` says how it ended, `begun` is when it began on the
    reactor's clock, and `sent` and `received` are octets from and to the client.
    """

    method = b""
    why = ""

    def __init__(self, link: ClientLink) -> None:
        self.spine = link.site.default.spine
        self.observer = link.site.observer
        self.client = link.client
        self.link = link
        self.begun = self.spine.pool.reactor.seconds()
        self.served_by = ""
        self._server_link: ServerLink | None = None
        self._octets_seen = -1
        self._quiet_since = 0.0

    @property
    def sent(self) -> int:
        """Octets that came from the client."""
        return self.link.octets

    @property
    def received(self) -> int:
        """Octets that came from the server."""
        return self._server_link.octets if self._server_link is not None else 0

    # What limits and the spine look at.

    @property
    def client_key(self) -> bytes:
        return self.link.client_key

    @property
    def host(self) -> bytes | None:
        return None

    @property
    def target(self) -> bytes:
        return b""

    def field_values(self, name: bytes) -> list[bytes]:
        return []

    @property
    def came_by(self) -> ProxiedConnection | None:
        return self.link.came_by

    def client_transport(self) -> Any:
        return self.link.transport

    def rewind(self) -> bool:
        """Nothing is ever sent before a server has accepted."""
        return True

    def answer(self, status: int, text: str, fields: Fields = ()) -> None:
        """There is nothing to be said in a protocol that one does not know."""
        self.status = status
        self._finish(text)
        self.link.close()

    # Joined, and parted.

    def joined(self, server_link: ServerLink) -> None:
        """A server has accepted."""
        self._server_link = server_link
        self.served_by = server_link.server.name
        self.responded = True
        self.spine.answering(self)
        link = self.link
        link.join(server_link)
        self.resume_upload()
        if self.pending:
            pending, self.pending = self.pending, ()
            server_link.transport.write(b"".join(pending))
        if link.over:
            server_link.end()

    def server_gone(self, clean: bool) -> None:
        """The server's end is no more."""
        if self.ended:
            return
        server_link = self._server_link
        said_all = server_link is not None and server_link.over
        self._finish("the server closed" if clean or said_all else "the server reset it")
        if clean or said_all:
            # What it has said is still on its way to the client.
            self.link.close()
        else:
            self.link.abort()

    def half_ended(self, why: str) -> None:
        """One side has said all; who was first is why the connection ends in the end."""
        self.why = self.why or why

    def client_lost(self, clean: bool) -> None:
        """The client's end is no more."""
        if self.ended:
            return
        said_all = self.link.over
        why = "the client closed" if clean or said_all else "the client reset it"
        server_link = self._server_link
        if server_link is None:
            self.why = why
            self.client_gone()
            return
        self._finish(why)
        if clean or said_all:
            server_link.close()
        else:
            server_link.abort()

    def end_if_idle(self, now: float, limit: float) -> None:
        """End it if nothing has passed for `limit` seconds."""
        octets = self.sent + self.received
        if octets != self._octets_seen:
            self._octets_seen = octets
            self._quiet_since = now
        elif now - self._quiet_since >= limit:
            self._abort("it was idle")

    def stop(self) -> None:
        """The balancer is stopping, and waits for nobody to take the last of anything."""
        self._abort("the balancer is stopping")
        self.link.abort()
        if self._server_link is not None:
            self._server_link.abort()

    def _abort(self, why: str) -> None:
        if self.ended:
            return
        if self._server_link is None:
            self.why = why
            self.client_gone()
        else:
            self._finish(why)
            self._server_link.abort()
        self.link.abort()

    def _finish(self, why: str) -> None:
        self.why = self.why or why
        self.ended = True
        self.spine.finished(self)

    def pause_upload(self) -> None:
        if not self.upload_paused:
            self.upload_paused = True
            self.link.transport.pauseProducing()

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            if not self.link.over:
                self.link.transport.resumeProducing()
