"""Base class of the factories of client connections."""

from __future__ import annotations

from abc import ABC, abstractmethod

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol, ServerFactory

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.context import FrontendContext
from balancebeam.downstream.interfaces import ClientChannel, PendingHandshakes
from balancebeam.net.addresses import peer_ip
from balancebeam.net.ticker import Ticker, sweep_each
from balancebeam.protocols.http1.local_reply import jsend_error, local_reply
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Observer
from balancebeam.proxy.rejected import is_head_request
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.proxy.timeline import DRAINING
from balancebeam.routing.route_table import RouteTable
from balancebeam.tls.interfaces import TlsInfo

# The message for an HTTP request without TLS.
PLAINTEXT_REASON = "plain HTTP request on a TLS port: use https://"


class DownstreamFactory(ServerFactory, ABC):
    """
    Accepts the client connections of one frontend.

    Attributes:
        context: The state that the connections share; changed through the factory.
        pending_handshakes: Wrapping factories, whose connections become channels of this
            factory after a handshake.
    """

    noisy = False

    def __init__(self, context: FrontendContext) -> None:
        self.context = context
        self.pending_handshakes: list[PendingHandshakes] = []
        self.ticker.add(self.sweep)

    @property
    def ticker(self) -> Ticker:
        """The clock of timeouts and timestamps."""
        return self.context.ticker

    @property
    def timeouts(self) -> FrontendTimeouts:
        """Client timeouts."""
        return self.context.timeouts

    @timeouts.setter
    def timeouts(self, timeouts: FrontendTimeouts) -> None:
        self.context.timeouts = timeouts

    @property
    def observer(self) -> Observer[Exchange] | None:
        """Notified of finished exchanges and rejected requests."""
        return self.context.observer

    @observer.setter
    def observer(self, observer: Observer[Exchange] | None) -> None:
        self.context.set_observer(observer)

    @property
    def default(self) -> RouteTarget:
        """The route of requests that match no other."""
        return self.context.default_route

    @property
    def draining(self) -> bool:
        """Whether connections close after the exchange in progress."""
        return self.context.draining

    @property
    def channels(self) -> set[ClientChannel]:
        """The open connections, except pending handshakes."""
        return self.context.channels

    @property
    def byte_counts(self) -> tuple[int, int]:
        """
        Bytes received from and sent to clients so far, on open and on closed connections.

        On the wire, so with TLS records and PROXY headers, also of failed handshakes.
        """
        received, sent = self.context.channels.byte_counts
        for pending in self.pending_handshakes:
            pending_received, pending_sent = pending.byte_counts
            received += pending_received
            sent += pending_sent
        return received, sent

    @property
    def has_connections(self) -> bool:
        """Whether any client is connected."""
        return bool(self.channels) or any(
            pending.has_connections for pending in self.pending_handshakes
        )

    def set_route_table(self, table: RouteTable[RouteTarget]) -> None:
        """Use `table` for requests and connections from now on."""
        self.context.set_route_table(table)

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self.build_channel(peer_ip(addr))

    @abstractmethod
    def build_channel(
        self, peer: str, proxy_info: ProxyInfo | None = None, tls: TlsInfo | None = None
    ) -> Protocol:
        """
        The protocol of a new client connection.

        Args:
            peer: IP address of the client, see `net.addresses.peer_ip`.
            proxy_info: Addresses from a PROXY protocol header, if there was one.
            tls: The result of the TLS handshake; `None` without TLS.
        """

    def plaintext_reply(self, peer: str, data: bytes) -> bytes:
        """
        Respond to an HTTP request that was sent without TLS to a TLS address.

        In TCP mode too: the response explains more than an alert, and no other protocol gets it.

        Args:
            peer: IP address of the client.
            data: The beginning of the request.

        Returns:
            The response.
        """
        body = jsend_error(PLAINTEXT_REASON)
        now = self.ticker.wall_time()
        return local_reply(400, body, (), is_head_request(data), persistent=False, now=now)

    def sweep(self, now: float) -> None:
        """Apply the client timeouts to every connection."""
        sweep_each(self.channels, lambda channel: channel.check_timeouts(now))

    def resume_accepting(self) -> None:
        """Serve clients, also after an earlier `drain`."""
        self.context.set_draining(False)

    def drain(self) -> None:
        """Close idle connections soon, and each other one after its exchange has finished."""
        self.context.set_draining(True)
        for channel in list(self.channels):
            channel.drain()

    def close_all(self) -> None:
        """Abort every connection and the exchange in progress on it."""
        for channel in list(self.channels):
            for exchange in channel.exchanges:
                exchange.outcome = exchange.outcome or DRAINING
            channel.shutdown()
        for pending in self.pending_handshakes:
            pending.close_all()
