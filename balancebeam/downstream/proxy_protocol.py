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

from balancebeam.downstream.http1.factory import Http1Factory
from balancebeam.downstream.http1.timeouts import DRAIN_IDLE_TIMEOUT
from balancebeam.downstream.tcp.session import TcpFactory
from balancebeam.net.addresses import peer_ip
from balancebeam.protocols.proxy_protocol import (
    ProxyInfo,
    ProxyProtocolError,
    parse_proxy_header,
)


class ProxyProtocolFactory(ServerFactory):
    """Lets in the clients of `wrapped_factory` whose connections begin with a PROXY header."""

    noisy = False
    log = Logger()

    def __init__(self, wrapped_factory: Http1Factory | TcpFactory) -> None:
        self.wrapped_factory = wrapped_factory
        self.handshakes: set[ProxyProtocolHandshake] = set()
        wrapped_factory.ticker.add(self.sweep)
        wrapped_factory.pending_handshakes.append(self)

    def buildProtocol(self, addr: IAddress | None) -> ProxyProtocolHandshake:  # type: ignore[override]
        return ProxyProtocolHandshake(self, peer_ip(addr))

    def sweep(self, now: float) -> None:
        """Close connections whose header takes too long."""
        limit = self.wrapped_factory.timeouts.header
        for handshake in list(self.handshakes):
            waited = now - handshake.started_at
            if waited >= limit:
                handshake.close("its header is too slow")
            elif (
                self.wrapped_factory.draining
                and handshake.no_input
                and waited >= DRAIN_IDLE_TIMEOUT
            ):
                handshake.close("")

    @property
    def has_connections(self) -> bool:
        """Whether any connection has not said yet who is there."""
        return bool(self.handshakes)

    def close_all(self) -> None:
        """Close all connections that have not said yet who is there."""
        for handshake in list(self.handshakes):
            handshake.close("")


class ProxyProtocolHandshake(Protocol):
    """Reads one PROXY header, and hands the connection on."""

    def __init__(self, factory: ProxyProtocolFactory, peer: str) -> None:
        self.factory: ProxyProtocolFactory = factory
        self.started_at = factory.wrapped_factory.ticker.now
        self._peer = peer
        self._buffer = b""

    @property
    def no_input(self) -> bool:
        """Whether nothing has come."""
        return not self._buffer

    def connectionMade(self) -> None:
        self.factory.handshakes.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self not in self.factory.handshakes:
            return
        self._buffer += data
        try:
            header = parse_proxy_header(self._buffer)
        except ProxyProtocolError as error:
            self.close(str(error))
            return
        if header is not None:
            connection, length = header
            self._switch_protocol(connection, self._buffer[length:])

    def _switch_protocol(self, connection: ProxyInfo | None, rest: bytes) -> None:
        self.factory.handshakes.discard(self)
        channel = self.factory.wrapped_factory.build_channel(
            connection.source if connection else self._peer
        )
        channel.proxy_info = connection
        transport: Any = self.transport
        transport.protocol = channel
        channel.makeConnection(transport)
        if rest:
            channel.dataReceived(rest)

    def close(self, reason: str) -> None:
        """Nobody is let in without a header. `reason` is for the log."""
        self.factory.handshakes.discard(self)
        if reason:
            self.factory.log.info(
                "{peer} sent no PROXY header: {reason}", peer=self._peer, reason=reason
            )
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.handshakes.discard(self)
