"""
Accepts client connections through proxies that send PROXY protocol headers.

A connection begins with a header that names the client. After it, the transport is handed over
to the client's channel, so that later bytes cost nothing extra.
"""

from __future__ import annotations

from typing import Any, Callable, Optional

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.downstream.context import DRAIN_IDLE_TIMEOUT, ConnectionSet
from balancebeam.downstream.factory import DownstreamFactory
from balancebeam.net.addresses import peer_ip
from balancebeam.net.ticker import sweep_each
from balancebeam.protocols.proxy_protocol import (
    ProxyInfo,
    ProxyProtocolError,
    parse_proxy_header,
)

# Builds a protocol for the address of a client, and the addresses in the header if it has any.
ChannelBuilder = Callable[[str, Optional[ProxyInfo]], Protocol]


class ProxyProtocolFactory(ServerFactory):
    """
    Reads a PROXY header from each connection, and then passes it to `wrapped_factory`.

    Attributes:
        wrapped_factory: Accepts the clients.
        build_channel: Builds the protocol of a connection after its header: the client's channel,
            or its TLS handshake.
        handshakes: Connections whose header is incomplete.
    """

    noisy = False
    log = Logger()

    def __init__(self, wrapped_factory: DownstreamFactory) -> None:
        self.wrapped_factory = wrapped_factory
        self.build_channel: ChannelBuilder = wrapped_factory.build_channel
        self.handshakes: ConnectionSet[ProxyProtocolHandshake] = ConnectionSet()
        wrapped_factory.ticker.add(self.sweep)
        wrapped_factory.pending_handshakes.append(self)

    def buildProtocol(self, addr: IAddress | None) -> ProxyProtocolHandshake:  # type: ignore[override]
        return ProxyProtocolHandshake(self, peer_ip(addr))

    def sweep(self, now: float) -> None:
        """Abort connections whose header is late, and idle ones while draining."""
        sweep_each(self.handshakes, lambda handshake: self._check_timeouts(handshake, now))

    def _check_timeouts(self, handshake: ProxyProtocolHandshake, now: float) -> None:
        factory = self.wrapped_factory
        elapsed = now - handshake.started_at
        if elapsed >= factory.timeouts.header:
            handshake.close("header timeout expired")
        elif factory.draining and handshake.no_input and elapsed >= DRAIN_IDLE_TIMEOUT:
            handshake.close("")

    @property
    def has_connections(self) -> bool:
        """Whether the header of any connection is incomplete."""
        return bool(self.handshakes)

    @property
    def byte_counts(self) -> tuple[int, int]:
        """Bytes received and sent on connections without a complete header."""
        return self.handshakes.byte_counts

    def close_all(self) -> None:
        """Abort all connections whose header is incomplete."""
        for handshake in list(self.handshakes):
            handshake.close("")


class ProxyProtocolHandshake(Protocol):
    """
    Reads one PROXY header, then replaces itself by the client's channel.

    Attributes:
        started_at: When the connection was accepted, on the ticker.
    """

    def __init__(self, factory: ProxyProtocolFactory, peer: str) -> None:
        self.factory: ProxyProtocolFactory = factory
        self.started_at = factory.wrapped_factory.ticker.now
        self._peer = peer
        self._buffer = b""

    @property
    def no_input(self) -> bool:
        """Whether nothing has been received."""
        return not self._buffer

    def connectionMade(self) -> None:
        self.factory.handshakes.add(self)

    def dataReceived(self, data: bytes) -> None:
        if self not in self.factory.handshakes:
            # Already aborted.
            return
        self._buffer += data
        try:
            header = parse_proxy_header(self._buffer)
        except ProxyProtocolError as error:
            self.close(str(error))
            return
        if header is not None:
            proxy_info, length = header
            self._switch_protocol(proxy_info, self._buffer[length:])

    def _switch_protocol(self, proxy_info: ProxyInfo | None, rest: bytes) -> None:
        """
        Hand the transport over to the client's channel.

        Args:
            proxy_info: The addresses in the header; `None` if it has none (a health check by
                the proxy itself), so that the peer is the client.
            rest: What was received after the header.
        """
        self.factory.handshakes.hand_over(self)
        client = proxy_info.source if proxy_info else self._peer
        channel = self.factory.build_channel(client, proxy_info)
        transport: Any = self.transport
        transport.protocol = channel
        channel.makeConnection(transport)
        if rest:
            channel.dataReceived(rest)

    def close(self, reason: str) -> None:
        """Abort the connection; `reason` is logged unless it is empty."""
        self.factory.handshakes.discard(self)
        if reason:
            self.factory.log.info(
                "connection from {peer} aborted: no valid PROXY protocol header: {reason}",
                peer=self._peer,
                reason=reason,
            )
        transport: Any = self.transport
        transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.handshakes.discard(self)
