"""The pool of a TCP frontend: every client connection gets a server connection of its own."""

from __future__ import annotations

import typing

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from balancebeam.net.relay import Relay, is_clean_close
from balancebeam.net.ticker import sweep_each
from balancebeam.upstream.connect_attempt import ConnectAttempt
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.server import Server


class UpstreamSession(typing.Protocol):
    """A TCP session, as its server connection uses it."""

    def server_connected(self, server_relay: ServerRelay) -> None:
        """The server has accepted the connection."""

    def half_closed(self, reason: str) -> None:
        """One side has sent its FIN; the first `reason` is the one that is logged."""

    def server_disconnected(self, clean: bool) -> None:
        """The server connection is closed; `clean` if it was not reset."""


class ServerRelay(Relay):
    """
    The server side of a TCP session.

    Attributes:
        server: The server.
        exchange: The session; `None` before it starts and after the connection is closed.
        keepalive_enabled: `SO_KEEPALIVE` is set; see `ConnectionPool.enable_keepalive`.
        single_use: The connection began with a PROXY header. No connection is used twice here.
    """

    exchange: UpstreamSession | None = None
    keepalive_enabled = False
    single_use = False

    def __init__(self, server: Server, pool: TcpPool, attempt: ConnectAttempt[ServerRelay]) -> None:
        super().__init__()
        self.server = server
        self._pool = pool
        self._attempt: ConnectAttempt[ServerRelay] | None = attempt

    def connectionMade(self) -> None:
        super().connectionMade()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.connected(self)

    def send(self, exchange: UpstreamSession) -> None:
        """Attach the session for which the connection was opened."""
        self.exchange = exchange
        exchange.server_connected(self)

    def readConnectionLost(self) -> None:
        if self.exchange is not None:
            self.exchange.half_closed("server closed")
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._pool.connection_closed(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.server_disconnected(clean=is_clean_close(reason))


class TcpPool(ConnectionPool[ServerRelay]):
    """The TCP connections of one pool; no connection is reused."""

    def build_connection(self, server: Server, attempt: ConnectAttempt[ServerRelay]) -> ServerRelay:
        return ServerRelay(server, self, attempt)

    def release(self, connection: ServerRelay) -> None:
        """Close a connection whose client has disconnected before it was established."""
        connection.close()

    def sweep(self, now: float) -> None:
        """Apply the connect timeout, and abort closing connections that make no progress."""
        self.expire_attempts(now)
        sweep_each(self.connections, lambda connection: self._sweep_connection(connection, now))

    def _sweep_connection(self, connection: ServerRelay, now: float) -> None:
        self.enable_keepalive(connection)
        connection.abort_if_stalled(now, self.timeouts.upstream)

    def shut_down_connection(self, connection: ServerRelay) -> None:
        self.connections.discard(connection)
        connection.abort()
