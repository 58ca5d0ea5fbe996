"""The pool of an HTTP frontend: connections to servers of either HTTP version."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol

from balancebeam.net.ticker import sweep_each
from balancebeam.upstream.connect_attempt import ConnectAttempt
from balancebeam.upstream.connection_state import IDLE
from balancebeam.upstream.http1_pool import IDLE_TIMEOUT, Http1Pool
from balancebeam.upstream.http2_attempt import SharedAttempt, WaitingRequest
from balancebeam.upstream.http2_connection import Http2Connection
from balancebeam.upstream.http2_shared import Http2Shared
from balancebeam.upstream.http2_timeouts import check_connection
from balancebeam.upstream.pool_tls import PoolTls
from balancebeam.upstream.server import Server
from balancebeam.upstream.tls_handshake import save_session, tls_of


class HttpPool(Http1Pool):
    """
    The connections of one pool. Servers with HTTP/2 have few, shared by many exchanges.

    An HTTP/2 connection is among the idle connections of its server while it has a stream free. A
    further connection is opened only if none is, and one at a time for each server: exchanges
    that need one meanwhile wait for it.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._shared = Http2Shared(self._parser)
        # The attempts that further exchanges wait for.
        self._shared_attempts: dict[Server, SharedAttempt] = {}

    def set_protocol(self, protocol: str) -> None:
        """
        Use `protocol` for servers without their own, after a reload.

        Connections of another protocol than their server now has take no further request.
        """
        self.protocol = protocol
        for connection in list(self.connections):
            if isinstance(connection, Http2Connection) is not self.uses_http2(connection.server):
                self._retire(connection)

    def set_tls(self, tls: PoolTls) -> None:
        self.tls = tls
        for connection in list(self.connections):
            if tls_of(connection.transport) is not self.find_tls(connection.server):
                self._retire(connection)

    def _retire(self, connection: Any) -> None:
        """Close a connection at once, or after the responses in progress."""
        if isinstance(connection, Http2Connection):
            connection.close_idle()
        else:
            connection.single_use = True
            if connection.state is IDLE:
                connection.close_idle()

    def connect(self, server: Server, exchange: Any) -> None:
        if not self.uses_http2(server) or server.proxy_protocol is not None:
            # A connection that begins with the PROXY header of one client serves no other.
            super().connect(server, exchange)
        elif server.idle_connections:
            # Instead of a connection that was closed.
            self.acquire(server).send(exchange)
        else:
            attempt = self._shared_attempts.get(server)
            if attempt is not None:
                attempt.add(exchange)
                return
            attempt = self._add_attempt(server)
            attempt.add(exchange)
            attempt.start()

    def connect_again(self, server: Server, waiting: list[WaitingRequest]) -> None:
        """See `SharedAttemptOwner.connect_again`."""
        attempt = self._shared_attempts.get(server)
        if attempt is not None:
            attempt.take_over(waiting)
            return
        attempt = self._add_attempt(server)
        attempt.take_over(waiting)
        attempt.start()

    def _add_attempt(self, server: Server) -> SharedAttempt:
        pool: Any = self
        attempt = self._shared_attempts[server] = SharedAttempt(pool, server)
        attempts: set[Any] = self.attempts
        attempts.add(attempt)
        return attempt

    def build_connection(self, server: Server, attempt: ConnectAttempt[Any]) -> Protocol:
        if not self.uses_http2(server):
            return super().build_connection(server, attempt)
        owner: Any = self
        return Http2Connection(server, owner, self._shared, self.ticker, attempt)

    def connection_opened(self, attempt: ConnectAttempt[Any], connection: Any) -> None:
        self._forget_attempt(attempt)
        super().connection_opened(attempt, connection)

    def attempt_failed(self, attempt: ConnectAttempt[Any]) -> None:
        self._forget_attempt(attempt)
        super().attempt_failed(attempt)

    def _forget_attempt(self, attempt: ConnectAttempt[Any]) -> None:
        if isinstance(attempt, SharedAttempt):
            server = attempt.server
            if self._shared_attempts.get(server) is attempt:
                del self._shared_attempts[server]

    def release(self, connection: Any) -> None:
        """Take back an HTTP/1.1 connection, or an HTTP/2 connection with a free stream."""
        if not isinstance(connection, Http2Connection):
            super().release(connection)
            return
        server = connection.server
        if not self.open or connection.single_use or not server.max_idle:
            connection.close_idle()
            return
        if not connection.session_saved:
            connection.session_saved = True
            save_session(connection.transport)
        attempt = self._shared_attempts.get(server)
        if attempt is not None:
            attempt.send_waiting(connection)
        if connection.available:
            server.idle_connections[connection] = None

    def sweep(self, now: float) -> None:
        self.expire_attempts(now)
        sweep_each(self.connections, lambda connection: self._sweep(connection, now))

    def _sweep(self, connection: Any, now: float) -> None:
        if isinstance(connection, Http2Connection):
            self.enable_keepalive(connection)  # type: ignore[arg-type]
            check_connection(connection, now, self.timeouts.upstream, IDLE_TIMEOUT)
        else:
            self._sweep_connection(connection, now)
