"""The pool of an HTTP frontend: idle HTTP/1.1 connections are kept and reused."""

from __future__ import annotations

from twisted.internet.protocol import Protocol

from balancebeam.core.settings import PoolTimeouts
from balancebeam.net import connector
from balancebeam.net.interfaces import DataReactor
from balancebeam.net.ticker import Ticker, sweep_each
from balancebeam.protocols.http1.response_head import ResponseHeadParser
from balancebeam.upstream.connect_attempt import (
    BackgroundFailureHandler,
    ConnectAttempt,
    ConnectFunction,
)
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.connection_state import IDLE, TUNNEL
from balancebeam.upstream.http1_connection import UpstreamConnection
from balancebeam.upstream.interfaces import UpstreamRequest
from balancebeam.upstream.pool_tls import PoolTls
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.server import Server
from balancebeam.upstream.tls_handshake import save_session, tls_of

# Seconds for which idle connections are kept. nginx closes idle upstream connections after
# 60 s and HAProxy after 5 s; servers close theirs after 5 to 75 s.
IDLE_TIMEOUT = 60.0


class _NewConnection(UpstreamConnection):
    """A connection that reports to its attempt once it is established."""

    attempt: ConnectAttempt[UpstreamConnection]

    def connectionMade(self) -> None:
        super().connectionMade()
        attempt = self.attempt
        del self.attempt
        attempt.connected(self)


class Http1Pool(ConnectionPool[UpstreamConnection]):
    """The HTTP/1.1 connections of one pool, most recently used first."""

    def __init__(
        self,
        reactor: DataReactor,
        resolver: Resolver,
        timeouts: PoolTimeouts,
        ticker: Ticker,
        connect_function: ConnectFunction = connector.connect,
        on_background_failure: BackgroundFailureHandler = lambda server, request, failure: None,
    ) -> None:
        super().__init__(
            reactor, resolver, timeouts, ticker, connect_function, on_background_failure
        )
        # One parser for all connections: it caches the parsed lines of response heads.
        self._parser = ResponseHeadParser()

    def build_connection(
        self, server: Server, attempt: ConnectAttempt[UpstreamConnection]
    ) -> Protocol:
        connection = _NewConnection(server, self, self._parser, self.ticker)
        connection.attempt = attempt
        return connection

    def release(self, connection: UpstreamConnection) -> None:
        """Keep `connection` as idle; close the least recently used one if there are too many."""
        server = connection.server
        idle = server.idle_connections
        if not self.open or connection.single_use:
            connection.close()
            return
        if len(idle) >= server.max_idle:
            if not idle:
                connection.close()
                return
            next(iter(idle)).close_idle()
        if not connection.reused:
            connection.reused = True
            save_session(connection.transport)
        idle[connection] = None

    def set_tls(self, tls: PoolTls) -> None:
        """
        Use `tls` for new connections.

        Connections with another verification, or without TLS where it is used now, are closed:
        idle ones at once, the others after their response.
        """
        super().set_tls(tls)
        for connection in list(self.connections):
            if tls_of(connection.transport) is not self.find_tls(connection.server):
                connection.single_use = True
                if connection.state is IDLE:
                    connection.close_idle()

    def connection_closed(self, connection: UpstreamConnection) -> None:
        super().connection_closed(connection)
        connection.server.idle_connections.pop(connection, None)

    def sweep(self, now: float) -> None:
        """Apply the connect, idle and response timeouts, and the clients' idle timeouts."""
        self.expire_attempts(now)
        sweep_each(self.connections, lambda connection: self._sweep_connection(connection, now))

    def _sweep_connection(self, connection: UpstreamConnection, now: float) -> None:
        limit = self.timeouts.upstream
        self.enable_keepalive(connection)
        quiet = now - connection.last_activity
        exchange = connection.exchange
        if connection.state is IDLE:
            if quiet >= IDLE_TIMEOUT:
                connection.close_idle()
        elif exchange is None:
            # A tunnel whose client has disconnected; it closes once the server has
            # received the rest of the client's bytes.
            if quiet >= limit:
                connection.close()
        elif connection.paused:
            if exchange.client_stalled(now):
                connection.fail_client_stalled()
        elif quiet >= limit and connection.state is not TUNNEL:
            self._time_out_if_stalled(connection, exchange, now)

    def _time_out_if_stalled(
        self, connection: UpstreamConnection, exchange: UpstreamRequest, now: float
    ) -> None:
        """Fail the request, unless the client has still to send or the server still reads."""
        if not exchange.awaiting_request_body and not connection.write_progressed(now):
            connection.time_out()

    def shut_down_connection(self, connection: UpstreamConnection) -> None:
        connection.shutdown()
