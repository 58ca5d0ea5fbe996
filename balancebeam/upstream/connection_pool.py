"""Base of the connection pools: connect attempts, open connections, and their timeouts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic

from twisted.application import service
from twisted.internet.protocol import Protocol

from balancebeam.core.settings import HTTP1, HTTP2, PoolSettings, PoolTimeouts
from balancebeam.net import connector, socket_options
from balancebeam.net.interfaces import DataReactor
from balancebeam.net.ticker import Ticker, sweep_each
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.connect_attempt import (
    BackgroundFailureHandler,
    ConnectAttempt,
    ConnectFunction,
    ConnectRequest,
)
from balancebeam.upstream.interfaces import ConnectionT, PooledConnection
from balancebeam.upstream.pool_tls import PoolTls
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.server import Server


class ConnectionPool(service.Service, ABC, Generic[ConnectionT]):
    """
    All connections of one pool to its servers.

    `Http1Pool` reuses connections; `TcpPool` opens one for each client.

    Attributes:
        reactor: The reactor of data connections.
        connect_function: Starts a connection attempt.
        resolver: Resolves the host names of servers.
        timeouts: Connect and response timeouts; a reload replaces them.
        ticker: The clock of timeouts, which also calls `sweep`.
        on_background_failure: Receives failures that no request waits for.
        tls: The servers that use TLS, and its context; see `set_tls`.
        protocol: The protocol of requests to servers without their own `Server.protocol`; a reload
            replaces it.
        open: False once the service has stopped; nothing is connected or reused then.
        attempts: Connect attempts in progress.
        connections: Established connections, idle or not.
    """

    name = "connections"

    def __init__(
        self,
        reactor: DataReactor,
        resolver: Resolver,
        timeouts: PoolTimeouts,
        ticker: Ticker,
        connect_function: ConnectFunction = connector.connect,
        on_background_failure: BackgroundFailureHandler = lambda server, request, failure: None,
    ) -> None:
        self.on_background_failure = on_background_failure
        self.reactor = reactor
        self.connect_function = connect_function
        self.resolver = resolver
        self.timeouts = timeouts
        self.ticker = ticker
        self.tls = PoolTls(PoolSettings())
        self.protocol = HTTP1
        self.open = True
        self.attempts: set[ConnectAttempt[ConnectionT]] = set()
        self.connections: set[ConnectionT] = set()
        ticker.add(self.sweep)

    @abstractmethod
    def build_connection(self, server: Server, attempt: ConnectAttempt[ConnectionT]) -> Protocol:
        """Build the protocol of a new connection, which calls `attempt.connected`."""

    @abstractmethod
    def release(self, connection: ConnectionT) -> None:
        """Take back a connection that no request uses."""

    @abstractmethod
    def sweep(self, now: float) -> None:
        """Apply all timeouts; `now` is on the ticker."""

    @abstractmethod
    def shut_down_connection(self, connection: ConnectionT) -> None:
        """Close a connection because the service stops."""

    def acquire(self, server: Server) -> PooledConnection:
        """
        Remove the most recently used idle connection of `server`, and return it.

        The caller has checked that `server.idle_connections` is not empty. Last in, first
        out, in the same call and without a Deferred: this is what nearly all requests use.
        """
        return server.idle_connections.popitem()[0]

    def connect(self, server: Server, exchange: ConnectRequest) -> None:
        """Connect to `server` and send `exchange`, or call its `upstream_failed`."""
        attempt: ConnectAttempt[ConnectionT] = ConnectAttempt(self, server, exchange)
        exchange.attempt = attempt
        self.attempts.add(attempt)
        attempt.start()

    def find_tls(self, server: Server) -> ServerTls | None:
        """TLS for a new connection to `server`; `None` for a connection without TLS."""
        return self.tls.find(server)

    def uses_http2(self, server: Server) -> bool:
        """Whether new connections to `server` use HTTP/2."""
        return (server.protocol or self.protocol) == HTTP2

    def set_protocol(self, protocol: str) -> None:
        """Use `protocol` for requests to servers without their own, after a reload."""
        self.protocol = protocol

    def set_tls(self, tls: PoolTls) -> None:
        """Use `tls` for new connections, after a reload or a change of a file."""
        self.tls = tls

    def connection_opened(
        self, attempt: ConnectAttempt[ConnectionT], connection: ConnectionT
    ) -> None:
        """`attempt` has established `connection`."""
        self.attempts.discard(attempt)
        self.connections.add(connection)

    def attempt_failed(self, attempt: ConnectAttempt[ConnectionT]) -> None:
        """`attempt` has failed."""
        self.attempts.discard(attempt)

    def connection_closed(self, connection: ConnectionT) -> None:
        """`connection` is closed."""
        self.connections.discard(connection)

    def expire_attempts(self, now: float) -> None:
        """Apply the connect timeout."""
        limit = self.timeouts.connect
        sweep_each(self.attempts, lambda attempt: attempt.check_timeout(now, limit))

    def enable_keepalive(self, connection: ConnectionT) -> None:
        """
        Set `SO_KEEPALIVE` once, so that the kernel detects a dead server.

        Called by sweeps, because connections that close before the first sweep need not
        spend a system call on it.
        """
        if not connection.keepalive_enabled:
            connection.keepalive_enabled = True
            socket_options.enable_keepalive(connection.transport)

    def startService(self) -> None:
        super().startService()
        self.open = True

    def stopService(self) -> Any:
        self.open = False
        for attempt in list(self.attempts):
            attempt.cancel()
        for connection in list(self.connections):
            self.shut_down_connection(connection)
        return super().stopService()
