"""The pool of a TCP frontend: every client has a connection of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from balancebeam.net.relay import Relay, is_clean_close
from balancebeam.upstream.connection_pool import ConnectAttempt, ConnectionPool
from balancebeam.upstream.server_set import Server


class ServerRelay(Relay):
    """The server's end. `exchange` is whose it is; see the pool for `keepalive_enabled`."""

    exchange: Any = None
    keepalive_enabled = False

    def __init__(self, server: Server, pool: TcpPool, attempt: ConnectAttempt) -> None:
        super().__init__()
        self.server = server
        self._pool = pool
        self._attempt: ConnectAttempt | None = attempt

    def connectionMade(self) -> None:
        super().connectionMade()
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.connected(self)

    def send(self, exchange: Any) -> None:
        """This is the connection of `exchange` from now on."""
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


class TcpPool(ConnectionPool):
    """All connections to servers, none of which is used twice."""

    def build_connection(self, server: Server, attempt: ConnectAttempt) -> ServerRelay:
        return ServerRelay(server, self, attempt)

    def release(self, connection: Any) -> None:
        """Nobody wants it any more."""
        connection.close()

    def connection_closed(self, connection: Any) -> None:
        self.connections.discard(connection)

    def sweep(self, now: float) -> None:
        self.expire_attempts(now)
        for connection in list(self.connections):
            link: Any = connection
            self.enable_keepalive(link)
            link.abort_if_stalled(now, self.timeouts.upstream)

    def stopService(self) -> Any:
        self.open = False
        for link in list(self.connections):
            self.connections.discard(link)
            link_of_tcp: Any = link
            link_of_tcp.abort()
        return super().stopService()
