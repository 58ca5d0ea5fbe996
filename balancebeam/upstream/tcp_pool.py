"""The pool of a TCP frontend: every client has a connection of its own."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from balancebeam.net.relay import Relay, is_clean_close
from balancebeam.upstream.connection_pool import Attempt, ConnectionPool
from balancebeam.upstream.server_set import Server


class ServerRelay(Relay):
    """The server's end. `exchange` is whose it is; see the pool for `kept_alive`."""

    exchange: Any = None
    kept_alive = False

    def __init__(self, server: Server, pool: TcpPool, attempt: Attempt) -> None:
        super().__init__()
        self.server = server
        self._pool = pool
        self._attempt: Attempt | None = attempt

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
            self.exchange.half_closed("the server closed")
        super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._pool.gone(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.server_disconnected(clean=is_clean_close(reason))


class TcpPool(ConnectionPool):
    """All connections to servers, none of which is used twice."""

    def fresh(self, server: Server, attempt: Attempt) -> ServerRelay:
        return ServerRelay(server, self, attempt)

    def keep(self, connection: Any) -> None:
        """Nobody wants it any more."""
        connection.close()

    def gone(self, connection: Any) -> None:
        self.connections.discard(connection)

    def sweep(self, now: float) -> None:
        self.end_late_attempts(now)
        for connection in list(self.connections):
            link: Any = connection
            self.keep_alive(link)
            link.abort_if_stalled(now, self.timeouts.upstream)

    def stopService(self) -> Any:
        self.open = False
        for link in list(self.connections):
            self.connections.discard(link)
            link_of_tcp: Any = link
            link_of_tcp.abort()
        return super().stopService()
