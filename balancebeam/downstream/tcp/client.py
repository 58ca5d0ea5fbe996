"""The client's side of a TCP session, with SNI preread."""

from __future__ import annotations

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from balancebeam.downstream.context import FrontendContext
from balancebeam.downstream.tcp.session import TcpSession
from balancebeam.net.relay import Relay, is_clean_close
from balancebeam.protocols.client_hello import ClientHelloError, ClientHelloReader
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.tls.interfaces import TlsInfo


class ClientRelay(Relay):
    """
    A TCP client connection.

    A frontend with a route table prereads the client's TLS ClientHello and routes by the server
    name in it (SNI). Connections without one use the default route: without TLS, without SNI, or
    with nothing received within the header timeout. Where the frontend itself terminates TLS, the
    name is known from the handshake, and nothing is preread.

    Attributes:
        client: IP address of the client.
        tls: The result of the TLS handshake; `None` without TLS.
        exchange: The session of this connection.
        client_hello: The reader of the ClientHello during preread; otherwise `None`.
        preread_since: When the preread began, on the ticker.
    """

    def __init__(
        self,
        context: FrontendContext,
        client: str,
        proxy_info: ProxyInfo | None = None,
        tls: TlsInfo | None = None,
    ) -> None:
        super().__init__()
        self.client = client
        self.tls = tls
        self.client_hello: ClientHelloReader | None = None
        self.preread_since = 0.0
        self.exchange = TcpSession(self, context, client, proxy_info, tls)
        self._context = context

    def connectionMade(self) -> None:
        super().connectionMade()
        context = self._context
        context.channels.add(self)
        if self.tls is not None:
            self._dispatch(self._find_route(self.tls.server_name))
        elif context.route_table is None:
            self._dispatch(context.default_route)
        else:
            self.client_hello = ClientHelloReader()
            self.preread_since = context.ticker.now

    def preread(self, data: bytes) -> None:
        """Preread or buffer `data`. Once a server is connected, its `write` replaces this."""
        reader = self.client_hello
        if reader is None:
            self.exchange.buffer_body(data, last=False)
            return
        try:
            hello = reader.feed(data)
        except ClientHelloError:
            # Not TLS, so there is no server name.
            self._dispatch(self._context.default_route)
            return
        if hello is not None:
            self._dispatch(self._find_route(hello.server_name))

    def _find_route(self, server_name: str | None) -> RouteTarget:
        """Find the route of a server name."""
        context = self._context
        table = context.route_table
        if server_name is None or table is None:
            return context.default_route
        return table.find(server_name.encode(), b"/")

    def _dispatch(self, route: RouteTarget) -> None:
        """End the preread and dispatch the session along `route`."""
        reader, self.client_hello = self.client_hello, None
        self.exchange.dispatcher = route.dispatcher
        self.exchange.route = route
        if reader is not None and reader.received:
            self.exchange.buffer_body(bytes(reader.received), last=False)
        route.dispatcher.dispatch(self.exchange, route.admission)

    # ClientChannel

    @property
    def exchanges(self) -> tuple[TcpSession, ...]:
        return (self.exchange,)

    def check_timeouts(self, now: float) -> None:
        """
        Apply the client timeouts at `now`, on the ticker.

        A closing connection is aborted if the client acknowledges nothing for the idle timeout,
        and an open one if nothing was relayed for the tunnel timeout. A preread ends with the
        header timeout.
        """
        context = self._context
        timeouts = context.timeouts
        self.abort_if_stalled(now, timeouts.idle)
        if timeouts.tunnel:
            self.exchange.check_idle_timeout(now, timeouts.tunnel)
        prereading = self.client_hello is not None and not self.closing
        if prereading and now - self.preread_since >= timeouts.header:
            self._dispatch(context.default_route)

    def drain(self) -> None:
        """Do nothing: the session continues until one side closes it."""

    def shutdown(self) -> None:
        """Abort the session, without waiting for unsent bytes."""
        self.exchange.shutdown()

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        self.exchange.half_closed("client closed")
        super().readConnectionLost()
        if self.client_hello is not None:
            self._dispatch(self._context.default_route)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.client_hello = None
        super().connectionLost(reason)
        self._context.channels.discard(self)
        self.exchange.client_connection_lost(clean=is_clean_close(reason))
        # Session and relay refer to each other; without this, each connection would be left to
        # the garbage collector.
        del self.exchange
