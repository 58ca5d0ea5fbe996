"""
A listener whose clients come through proxies that speak the PROXY protocol.

Every connection begins with a header that says who is really there. When it
has been read, the client's channel takes the transport over, and costs no
more than any other.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.downstream.http1.factory import BalancerSite
from balancebeam.downstream.http1.timeouts import DRAINED
from balancebeam.downstream.tcp.session import TcpSite
from balancebeam.net.transport import peer_name
from balancebeam.protocols.proxy_protocol import (
    ProxiedConnection,
    ProxyProtocolError,
    read_proxy_header,
)


class ProxiedSite(ServerFactory):
    """Lets in the clients of `site` whose connections begin with a PROXY header."""

    noisy = False
    log = Logger()

    def __init__(self, site: BalancerSite | TcpSite) -> None:
        self.site = site
        self.greetings: set[Greeting] = set()
        site.ticker.add(self.sweep)
        site.parts.append(self)

    def buildProtocol(self, addr: IAddress | None) -> Greeting:  # type: ignore[override]
        return Greeting(self, peer_name(addr))

    def sweep(self, now: float) -> None:
        """Close connections whose header takes too long."""
        limit = self.site.timeouts.header
        for greeting in list(self.greetings):
            waited = now - greeting.since
            if waited >= limit:
                greeting.close("its header is too slow")
            elif self.site.draining and greeting.silent and waited >= DRAINED:
                greeting.close("")

    @property
    def busy(self) -> bool:
        """Whether any connection has not said yet who is there."""
        return bool(self.greetings)

    def close_all(self) -> None:
        """Close all connections that have not said yet who is there."""
        for greeting in list(self.greetings):
            greeting.close("")


class Greeting(Protocol):
    """Reads one PROXY header, and hands the connection on."""

    def __init__(self, factory: ProxiedSite, peer: str) -> None:
        self.factory: ProxiedSite = factory
        self.since = factory.site.ticker.now
        self._peer = peer
        self._data = b""

    @property
    def silent(self) -> bool:
        """Whether nothing has come."""
        return not self._data

    def connectionMade(self) -> None:
        self.factory.greetings.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self not in self.factory.greetings:
            return
        self._data += data
        try:
            header = read_proxy_header(self._data)
        except ProxyProtocolError as error:
            self.close(str(error))
            return
        if header is not None:
            connection, length = header
            self._hand_on(connection, self._data[length:])

    def _hand_on(self, connection: ProxiedConnection | None, rest: bytes) -> None:
        self.factory.greetings.discard(self)
        channel = self.factory.site.channel_for(connection.source if connection else self._peer)
        channel.came_by = connection
        transport: Any = self.transport
        transport.protocol = channel
        channel.makeConnection(transport)
        if rest:
            channel.dataReceived(rest)

    def close(self, why: str) -> None:
        """Nobody is let in without a header. `why` is for the log."""
        self.factory.greetings.discard(self)
        if why:
            self.factory.log.info("{peer} sent no PROXY header: {why}", peer=self._peer, why=why)
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.greetings.discard(self)
