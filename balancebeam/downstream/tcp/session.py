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

from balancebeam.core.ip import pack_address
from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.http1.factory import PendingHandshakes
from balancebeam.net.addresses import peer_ip
from balancebeam.net.relay import Relay, is_clean_close
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.client_hello import ClientHelloError, ClientHelloReader
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import Exchange, Fields, Observer
from balancebeam.routing.route_table import Route, RouteTable
from balancebeam.upstream.tcp_pool import ServerRelay


class TcpFactory(ServerFactory):
    """
    Listens for TCP clients and has a dispatcher, the one that `table` says, find
    servers for them. Where there are routes, clients are expected to begin TLS
    and to say which server they want.
    """

    noisy = False
    # Of what is passed on as it is nothing has to be understood.
    rejected_requests: Mapping[int, int] = MappingProxyType({})

    def __init__(self, table: RouteTable, ticker: Ticker, timeouts: FrontendTimeouts) -> None:
        self.ticker = ticker
        self.timeouts = timeouts
        self.observer: Observer | None = None
        self.draining = False
        self.channels: set[ClientRelay] = set()
        self.pending_handshakes: list[PendingHandshakes] = []
        self.set_route_table(table)
        ticker.add(self.sweep)

    def set_route_table(self, table: RouteTable) -> None:
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
            channel.abort_if_stalled(now, timeouts.idle)
            if timeouts.tunnel:
                channel.exchange.check_idle_timeout(now, timeouts.tunnel)
            waits = channel.client_hello is not None and not channel.closing
            if waits and now - channel.preread_since >= timeouts.header:
                channel.dispatch(self.default)

    def buildProtocol(self, addr: IAddress | None) -> ClientRelay:
        return self.build_channel(peer_ip(addr))

    def build_channel(self, peer: str) -> ClientRelay:
        """The link of a client that is called `peer`."""
        return ClientRelay(self, peer)

    @property
    def has_connections(self) -> bool:
        """Whether anybody is connected."""
        return bool(self.channels) or any(part.has_connections for part in self.pending_handshakes)

    def resume_accepting(self) -> None:
        """Clients come, perhaps once more after those before had to go."""
        self.draining = False

    def drain(self) -> None:
        """Connections go on until they end; there are no others."""
        self.draining = True

    def close_all(self) -> None:
        """Close every connection, whatever is going on."""
        for channel in list(self.channels):
            channel.exchange.shutdown()
        for part in self.pending_handshakes:
            part.close_all()


class ClientRelay(Relay):
    """
    The client's end. `proxy_info` is the connection a PROXY header told of. While
    it is not known which server the client wants, `client_hello` reads it, and has
    done so `preread_since`, on the ticker.
    """

    proxy_info: ProxyInfo | None = None

    def __init__(self, site: TcpFactory, client: str) -> None:
        super().__init__()
        self.site = site
        self.client = client
        self.client_key = pack_address(client)
        self.client_hello: ClientHelloReader | None = None
        self.preread_since = 0.0
        self.exchange = TcpSession(self)

    def connectionMade(self) -> None:
        super().connectionMade()
        site = self.site
        site.channels.add(self)
        if site.table is None:
            site.default.dispatcher.dispatch(self.exchange, site.default.admission)
        else:
            self.client_hello = ClientHelloReader()
            self.preread_since = site.ticker.now

    def preread(self, data: bytes) -> None:
        reader = self.client_hello
        if reader is None:
            self.exchange.buffer_body(data, last=False)
            return
        try:
            hello = reader.feed(data)
        except ClientHelloError:
            # Those who do not speak TLS have no name to go by.
            self.dispatch(self.site.default)
            return
        if hello is not None:
            name, table = hello.server_name, self.site.table
            if name is None or table is None:
                self.dispatch(self.site.default)
            else:
                self.dispatch(table.find(name.encode(), b"/"))

    def dispatch(self, route: Route) -> None:
        """Take `route`, with what has come so far."""
        reader, self.client_hello = self.client_hello, None
        self.exchange.dispatcher = route.dispatcher
        if reader is not None and reader.received:
            self.exchange.buffer_body(bytes(reader.received), last=False)
        route.dispatcher.dispatch(self.exchange, route.admission)

    def readConnectionLost(self) -> None:
        self.exchange.half_closed("the client closed")
        super().readConnectionLost()
        if self.client_hello is not None:
            self.dispatch(self.site.default)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.client_hello = None
        super().connectionLost(reason)
        self.site.channels.discard(self)
        self.exchange.client_connection_lost(clean=is_clean_close(reason))
        del self.exchange


class TcpSession(Exchange):
    """
    One connection. `close_reason` says how it ended, `started_at` is when it began on the
    reactor's clock, and `bytes_from_client` and `bytes_from_server` are octets from and to the client.
    """

    method = b""
    close_reason = ""

    def __init__(self, client_relay: ClientRelay) -> None:
        self.dispatcher = client_relay.site.default.dispatcher
        self.observer = client_relay.site.observer
        self.client = client_relay.client
        self.client_relay = client_relay
        self.started_at = self.dispatcher.connections.reactor.seconds()
        self.server_name = ""
        self._server_relay: ServerRelay | None = None
        self._last_byte_count = -1
        self._last_activity = 0.0

    @property
    def bytes_from_client(self) -> int:
        """Octets that came from the client."""
        return self.client_relay.bytes_received

    @property
    def bytes_from_server(self) -> int:
        """Octets that came from the server."""
        return self._server_relay.bytes_received if self._server_relay is not None else 0

    # What limits and the dispatcher look at.

    @property
    def client_key(self) -> bytes:
        return self.client_relay.client_key

    @property
    def host(self) -> bytes | None:
        return None

    @property
    def target(self) -> bytes:
        return b""

    def field_values(self, name: bytes) -> list[bytes]:
        return []

    @property
    def proxy_info(self) -> ProxyInfo | None:
        return self.client_relay.proxy_info

    def client_transport(self) -> Any:
        return self.client_relay.transport

    def rewind(self) -> bool:
        """Nothing is ever sent before a server has accepted."""
        return True

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        """There is nothing to be said in a protocol that one does not know."""
        self.status = status
        self._finish(text)
        self.client_relay.close()

    # Joined, and parted.

    def server_connected(self, server_relay: ServerRelay) -> None:
        """A server has accepted."""
        self._server_relay = server_relay
        self.server_name = server_relay.server.name
        self.downstream_response_started = True
        self.dispatcher.response_started(self)
        link = self.client_relay
        link.connect_peer(server_relay)
        self.resume_upload()
        if self.pending_body:
            pending_body, self.pending_body = self.pending_body, ()
            server_relay.transport.write(b"".join(pending_body))
        if link.read_closed:
            server_relay.half_close()

    def server_disconnected(self, clean: bool) -> None:
        """The server's end is no more."""
        if self.finished:
            return
        server_relay = self._server_relay
        said_all = server_relay is not None and server_relay.read_closed
        self._finish("the server closed" if clean or said_all else "the server reset it")
        if clean or said_all:
            # What it has said is still on its way to the client.
            self.client_relay.close()
        else:
            self.client_relay.abort()

    def half_closed(self, reason: str) -> None:
        """One side has said all; who was first is why the connection ends in the end."""
        self.close_reason = self.close_reason or reason

    def client_connection_lost(self, clean: bool) -> None:
        """The client's end is no more."""
        if self.finished:
            return
        said_all = self.client_relay.read_closed
        why = "the client closed" if clean or said_all else "the client reset it"
        server_relay = self._server_relay
        if server_relay is None:
            self.close_reason = why
            self.client_disconnected()
            return
        self._finish(why)
        if clean or said_all:
            server_relay.close()
        else:
            server_relay.abort()

    def check_idle_timeout(self, now: float, limit: float) -> None:
        """End it if nothing has passed for `limit` seconds."""
        octets = self.bytes_from_client + self.bytes_from_server
        if octets != self._last_byte_count:
            self._last_byte_count = octets
            self._last_activity = now
        elif now - self._last_activity >= limit:
            self._abort("it was idle")

    def shutdown(self) -> None:
        """The balancer is stopping, and waits for nobody to take the last of anything."""
        self._abort("the balancer is stopping")
        self.client_relay.abort()
        if self._server_relay is not None:
            self._server_relay.abort()

    def _abort(self, reason: str) -> None:
        if self.finished:
            return
        if self._server_relay is None:
            self.close_reason = reason
            self.client_disconnected()
        else:
            self._finish(reason)
            self._server_relay.abort()
        self.client_relay.abort()

    def _finish(self, reason: str) -> None:
        self.close_reason = self.close_reason or reason
        self.finished = True
        self.dispatcher.request_finished(self)

    def pause_upload(self) -> None:
        if not self.upload_paused:
            self.upload_paused = True
            self.client_relay.transport.pauseProducing()

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            if not self.client_relay.read_closed:
                self.client_relay.transport.resumeProducing()
