"""The service that connects to servers and keeps idle connections for reuse."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from twisted.application import service
from twisted.internet import defer, error
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import ClientFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.addresses import ServerAddress
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import PoolTimeouts
from balancebeam.net import connector, socket_options
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.http1.response_head import ResponseHeadParser
from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from balancebeam.upstream.http1_connection import IDLE, TUNNEL, UpstreamConnection
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.server_set import Server

# For how long idle connections are kept (seconds). nginx and HAProxy close
# them after 60 and 5 s; servers close theirs after 5 to 75.
IDLE_TIMEOUT = 60.0


# How a connection to an address is begun: address, factory, reactor. Returns a
# connector.
ConnectFunction = Callable[[ServerAddress, Any, Any], Any]


# Who is told of failures that no request waits for.
BackgroundFailureHandler = Callable[[Server, None, UpstreamFailure], object]


class ConnectRequest(Interface):
    """A request, or a connection of a client's, that waits to be connected to a server."""

    attempt: ConnectAttempt | None

    @property
    def proxy_info_for_upstream(self) -> ProxyInfo | None:
        """The client's connection, for servers that want to know; `None` if it has no address."""

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """It was not connected."""


class ConnectAttempt(ClientFactory):
    """One attempt to connect to a server, at one address of it after the other."""

    noisy = False

    def __init__(self, pool: ConnectionPool, server: Server, exchange: ConnectRequest) -> None:
        self._pool = pool
        self._server = server
        self._exchange: ConnectRequest | None = exchange
        self._addresses: list[ServerAddress] = []
        self._connector: Any = None
        self._resolving: defer.Deferred[list[ServerAddress]] | None = None
        # When the address that is being tried was asked, on the ticker.
        self._connect_started_at = pool.ticker.now
        self._timed_out = False

    def start(self) -> None:
        """Find out where the server is, and connect."""
        found = self._pool.resolver.resolve(self._server.address)
        if isinstance(found, list):
            self.try_addresses(found)
        else:
            self._resolving = found
            found.addTimeout(self._pool.timeouts.connect, self._pool.reactor)
            found.addCallbacks(self.try_addresses, self._resolution_failed)
            found.addErrback(lambda failure: self._pool.log.failure("while connecting", failure))

    def try_addresses(self, addresses: list[ServerAddress]) -> None:
        """Connect to the first of `addresses` that accepts."""
        self._addresses = list(addresses)
        self._try_next_address()

    def _try_next_address(self) -> None:
        pool = self._pool
        if not pool.open:
            self._fail(FailureKind.STOPPING, "")
            return
        self._connect_started_at, self._timed_out = pool.ticker.now, False
        self._connector = pool.connect_function(self._addresses.pop(0), self, pool.reactor)

    def check_timeout(self, now: float, limit: float) -> None:
        """Wait no longer for an address that has not accepted for `limit` seconds."""
        if self._connector is not None and now - self._connect_started_at >= limit:
            self._timed_out = True
            self._stop_connecting()

    def detach(self) -> None:
        """Nobody waits any more; a connection that still comes is kept as idle."""
        self._exchange = None

    def cancel(self) -> None:
        """Stop connecting."""
        if self._resolving is not None:
            self._resolving.cancel()
        self._stop_connecting()

    def _stop_connecting(self) -> None:
        if self._connector is not None and self._connector.state == "connecting":
            self._connector.stopConnecting()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._pool.build_connection(self._server, self)

    def connected(self, connection: Any) -> None:
        """Hand the connection to who waits for it."""
        self._pool.connection_opened(self, connection)
        exchange, self._exchange, self._connector = self._exchange, None, None
        if exchange is None:
            self._pool.release(connection)
            return
        exchange.attempt = None
        version = self._server.proxy_protocol
        if version is not None:
            connection.single_use = True
            connection.transport.write(
                encode_proxy_header(version, exchange.proxy_info_for_upstream)
            )
        connection.send(exchange)

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if self._addresses:
            self._try_next_address()
            return
        if self._timed_out:
            limit = self._pool.timeouts.connect
            self._fail(FailureKind.CONNECT_TIMEOUT, f"it had {limit:g} s")
        else:
            late = reason.check(error.TimeoutError, error.TCPTimedOutError) is not None
            kind = FailureKind.CONNECT_TIMEOUT if late else FailureKind.UNREACHABLE
            self._fail(kind, _describe_failure(reason))

    def _resolution_failed(self, reason: Failure) -> None:
        if reason.check(defer.TimeoutError):
            self._fail(FailureKind.CONNECT_TIMEOUT, "its name was not found out in time")
        else:
            self._fail(FailureKind.UNREACHABLE, reason.getErrorMessage())

    def _fail(self, kind: FailureKind, detail: str) -> None:
        self._pool.attempts.discard(self)
        exchange, self._exchange, self._connector = self._exchange, None, None
        text = f"{self._server.name} {kind.value}: {detail}"
        failure = UpstreamFailure(kind, text, nothing_sent=True)
        if exchange is not None:
            exchange.attempt = None
            exchange.upstream_failed(failure)
        else:
            self._pool.on_background_failure(self._server, None, failure)


def _describe_failure(reason: Failure) -> str:
    """Why a connection failed, in the operating system's words if it has some."""
    number = getattr(reason.value, "osError", None)
    if isinstance(number, int):
        return os.strerror(number)
    lost = reason.check(error.ConnectError) and "Failure instance" in str(reason.value)
    return "Connection lost" if lost else reason.getErrorMessage()


class _NewConnection(UpstreamConnection):
    """A connection that reports to its attempt when it stands."""

    attempt: ConnectAttempt

    def connectionMade(self) -> None:
        super().connectionMade()
        attempt = self.attempt
        del self.attempt
        attempt.connected(self)


class ConnectionPool(service.Service):
    """
    All connections to servers.

    `acquire` and `release` are what nearly all requests need: the connection that
    was used last is used next, in the same call, without a Deferred.
    """

    name = "connections"
    log = Logger()

    def __init__(
        self,
        reactor: Any,
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
        self.parser = ResponseHeadParser()
        self.open = True
        self.attempts: set[ConnectAttempt] = set()
        self.connections: set[UpstreamConnection] = set()
        ticker.add(self.sweep)

    def build_connection(self, server: Server, attempt: ConnectAttempt) -> Any:
        """A new connection to `server`, which tells `attempt` when it stands."""
        connection = _NewConnection(server, self, self.parser, self.ticker)
        connection.attempt = attempt
        return connection

    def acquire(self, server: Server) -> Any:
        """The connection to `server` that became idle last; there is one in `server.idle_connections`."""
        return server.idle_connections.popitem()[0]

    def release(self, connection: UpstreamConnection) -> None:
        """`connection` is idle."""
        idle = connection.server.idle_connections
        if not self.open or connection.single_use:
            connection.close()
            return
        if len(idle) >= connection.server.max_idle:
            if not idle:
                connection.close()
                return
            next(iter(idle)).close_idle()
        connection.reused = True
        idle[connection] = None

    def connect(self, server: Server, exchange: ConnectRequest) -> None:
        """Connect to `server`; the exchange is sent, or hears that it failed."""
        attempt = exchange.attempt = ConnectAttempt(self, server, exchange)
        self.attempts.add(attempt)
        attempt.start()

    def connection_opened(self, attempt: ConnectAttempt, connection: UpstreamConnection) -> None:
        """`attempt` has become `connection`."""
        self.attempts.discard(attempt)
        self.connections.add(connection)

    def connection_closed(self, connection: UpstreamConnection) -> None:
        """`connection` is no more."""
        self.connections.discard(connection)
        connection.server.idle_connections.pop(connection, None)

    def sweep(self, now: float) -> None:
        """End what has been silent for too long."""
        self.expire_attempts(now)
        limit = self.timeouts.upstream
        for connection in list(self.connections):
            self.enable_keepalive(connection)
            quiet = now - connection.last_activity
            exchange: Any = connection.exchange
            if connection.state == IDLE:
                if quiet >= IDLE_TIMEOUT:
                    connection.close_idle()
            elif exchange is None:
                # A tunnel whose client has left: this waits for the server to
                # take the last of it.
                if quiet >= limit:
                    connection.close()
            elif connection.paused:
                if exchange.client_stalled(now):
                    connection.client_stalled()
            elif quiet >= limit and connection.state != TUNNEL:
                self._time_out_if_stalled(connection, exchange, now)

    def enable_keepalive(self, connection: Any) -> None:
        """`connection` lasts: have the kernel find out if the server is gone."""
        if not connection.keepalive_enabled:
            connection.keepalive_enabled = True
            socket_options.enable_keepalive(connection.transport)

    def expire_attempts(self, now: float) -> None:
        """Give up servers that do not accept."""
        for attempt in list(self.attempts):
            attempt.check_timeout(now, self.timeouts.connect)

    def _time_out_if_stalled(
        self, connection: UpstreamConnection, exchange: Any, now: float
    ) -> None:
        """End it unless it is the client's turn, or the server takes what it is sent."""
        if not exchange.awaiting_request_body and not connection.write_progressed(now):
            connection.time_out()

    def startService(self) -> None:
        super().startService()
        self.open = True

    def stopService(self) -> Any:
        self.open = False
        for attempt in list(self.attempts):
            attempt.cancel()
        for connection in list(self.connections):
            connection.shutdown()
        return super().stopService()
