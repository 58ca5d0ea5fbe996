"""
One attempt to connect to a server: name resolution, then one address after the other.

The TLS handshake, if the server uses TLS, is part of the attempt.

The result goes to the request that waits for the connection. If that request has ended
meanwhile, the connection goes to the pool as an idle one, and a failure goes to the
pool's handler of background failures.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any, Generic

from twisted.internet import defer
from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import ClientFactory, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.addresses import ServerAddress
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import PoolTimeouts
from balancebeam.net.descriptors import RETRY_INTERVAL, is_shortage, shortage_log
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.failure_reasons import classify_connect_failure
from balancebeam.upstream.interfaces import ConnectionT, PooledConnection
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.server import Server
from balancebeam.upstream.tls_handshake import UpstreamHandshake


class Connector(typing.Protocol):
    """
    A connection attempt to one address; Twisted's connectors and ours.

    Attributes:
        state: "connecting", "connected" or "disconnected".
    """

    state: str

    def stopConnecting(self) -> object:
        """Cancel the attempt; the factory gets `clientConnectionFailed`."""


# Starts to connect: address, client factory, reactor.
ConnectFunction = Callable[[ServerAddress, ClientFactory, Any], Connector]

# Receives failures of attempts that no request waits for any more.
BackgroundFailureHandler = Callable[[Server, None, UpstreamFailure], object]


class Detachable(typing.Protocol):
    """What a request waits for: a connect attempt, or its place in one."""

    def detach(self) -> None:
        """Forget the request, which has ended."""


class PendingHandshake(typing.Protocol):
    """A connection that is established, and not ready for a request."""

    def abort_handshake(self, text: str) -> None:
        """Close the connection; the attempt fails with `text`."""


class ConnectRequest(typing.Protocol):
    """
    A request, or a TCP session, that waits for a connection to a server.

    Attributes:
        attempt: The attempt in progress, if there is one.
    """

    attempt: Detachable | None

    @property
    def proxy_info_for_upstream(self) -> ProxyInfo | None:
        """Addresses for the PROXY header that the server expects; `None` if unknown."""

    def upstream_connected(self) -> None:
        """A connection was established, and the request is sent next."""

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """No connection was established."""


class AttemptOwner(typing.Protocol[ConnectionT]):
    """The pool for which an attempt connects."""

    reactor: Any
    connect_function: ConnectFunction
    resolver: Resolver
    timeouts: PoolTimeouts
    ticker: Ticker
    open: bool
    on_background_failure: BackgroundFailureHandler

    def find_tls(self, server: Server) -> ServerTls | None:
        """TLS for a new connection to `server`; `None` for a connection without TLS."""

    def build_connection(self, server: Server, attempt: ConnectAttempt[ConnectionT]) -> Protocol:
        """Build the protocol, which calls `attempt.connected` once it is connected."""

    def connection_opened(
        self, attempt: ConnectAttempt[ConnectionT], connection: ConnectionT
    ) -> None:
        """The attempt succeeded."""

    def attempt_failed(self, attempt: ConnectAttempt[ConnectionT]) -> None:
        """The attempt failed at every address."""

    def release(self, connection: ConnectionT) -> None:
        """The connection is idle, because its request has ended meanwhile."""

    def acquire(self, server: Server) -> PooledConnection:
        """Remove an idle connection of `server`, of which there is at least one."""


class ConnectAttempt(ClientFactory, Generic[ConnectionT]):
    """
    One attempt to connect to `server` on behalf of `exchange`.

    Attributes:
        server: The server.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self, pool: AttemptOwner[ConnectionT], server: Server, exchange: ConnectRequest | None
    ) -> None:
        self._pool = pool
        self.server = server
        self._exchange = exchange
        # Addresses that were not tried yet.
        self._addresses: list[ServerAddress] = []
        self._address: ServerAddress = server.address
        self._connector: Connector | None = None
        self._resolving: defer.Deferred[list[ServerAddress]] | None = None
        # The TLS handshake in progress, or complete; `None` without TLS.
        self._handshake: UpstreamHandshake | None = None
        # What has to be aborted if the attempt ends: the handshake of TLS, or of HTTP/2.
        self._pending: PendingHandshake | None = None
        # The PROXY header was sent, before the handshake.
        self._header_sent = False
        # When the current address was first tried, on the ticker.
        self._connect_started_at = pool.ticker.now
        self._timed_out = False
        # Runs while descriptors are short: the address is tried again.
        self._descriptor_retry: IDelayedCall | None = None

    def start(self) -> None:
        """Resolve the name of the server, and connect."""
        addresses = self._pool.resolver.resolve(self.server.address)
        if isinstance(addresses, list):
            self.try_addresses(addresses)
        else:
            self._resolving = addresses
            addresses.addTimeout(self._pool.timeouts.connect, self._pool.reactor)
            addresses.addCallbacks(self.try_addresses, self._resolution_failed)
            addresses.addErrback(
                lambda failure: self._log.failure(
                    "connect attempt to {server} failed unexpectedly",
                    failure,
                    server=self.server.name,
                )
            )

    def try_addresses(self, addresses: list[ServerAddress]) -> None:
        """Connect to the first of `addresses` that accepts the connection."""
        self._addresses = list(addresses)
        self._try_next_address()

    def _try_next_address(self) -> None:
        pool = self._pool
        if not pool.open:
            self._fail(FailureKind.STOPPING, "")
            return
        self._connect_started_at, self._timed_out = pool.ticker.now, False
        self._handshake = self._pending = None
        self._header_sent = False
        self._address = self._addresses.pop(0)
        self._connector = pool.connect_function(self._address, self, pool.reactor)

    def check_timeout(self, now: float, limit: float) -> None:
        """Give up an address that has not completed the handshake within `limit` seconds."""
        if self._descriptor_retry is not None:
            if now - self._connect_started_at >= limit:
                self._stop_waiting()
                self._fail(FailureKind.NO_DESCRIPTORS, "")
            return
        if self._connector is not None and now - self._connect_started_at >= limit:
            self._timed_out = True
            if self._pending is not None:
                self._pending.abort_handshake(f"connect timeout of {limit:g} s expired")
            else:
                self._stop_connecting()

    def detach(self) -> None:
        """Forget the request, which has ended; the connection will go to the pool as idle."""
        self._exchange = None

    def cancel(self) -> None:
        """Stop connecting."""
        if self._resolving is not None:
            self._resolving.cancel()
        if self._descriptor_retry is not None:
            self._stop_waiting()
            self._fail(FailureKind.STOPPING, "")
        if self._pending is not None:
            self._pending.abort_handshake("connection aborted")
        else:
            self._stop_connecting()

    def _stop_connecting(self) -> None:
        if self._connector is not None and self._connector.state == "connecting":
            self._connector.stopConnecting()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        connection = self._pool.build_connection(self.server, self)
        tls = self._pool.find_tls(self.server)
        if tls is None:
            return connection
        self._handshake = UpstreamHandshake(self, tls, connection, self.encode_proxy_header())
        self._pending = self._handshake
        return self._handshake

    def encode_proxy_header(self) -> bytes:
        """Return the PROXY header that the server expects, to be sent; empty if it expects none."""
        self._header_sent = True
        version = self.server.proxy_protocol
        if version is None:
            return b""
        info = None if self._exchange is None else self._exchange.proxy_info_for_upstream
        return encode_proxy_header(version, info)

    def preface_sent(self, connection: PendingHandshake) -> None:
        """An HTTP/2 connection waits for the SETTINGS of the server."""
        self._pending = connection

    def connected(self, connection: ConnectionT) -> None:
        """Use the connection, which is ready."""
        self._pool.connection_opened(self, connection)
        handshake = self._handshake
        if handshake is not None and handshake.tls is not self._pool.find_tls(self.server):
            # A reload has changed the verification of servers during the handshake.
            connection.single_use = True
        self._connector = None
        self._use(connection)

    def _use(self, connection: ConnectionT) -> None:
        """Send the PROXY header if the server expects one, and then the request."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self._pool.release(connection)
            return
        exchange.attempt = None
        exchange.upstream_connected()
        version = self.server.proxy_protocol
        if version is not None:
            connection.single_use = True
            if not self._header_sent:
                connection.transport.write(
                    encode_proxy_header(version, exchange.proxy_info_for_upstream)
                )
        connection.send(exchange)

    def _wait_for_descriptors(self) -> None:
        """Try the address again later: no server is at fault that no socket can be opened."""
        reactor = self._pool.reactor
        shortage_log.report(reactor.seconds(), "no connections to servers are opened")
        self._descriptor_retry = reactor.callLater(RETRY_INTERVAL, self._try_address_again)

    def _try_address_again(self) -> None:
        self._descriptor_retry = None
        if not self.needed:
            # The request has ended, and needs no connection.
            self._pool.attempt_failed(self)
        elif not self._pool.open:
            self._fail(FailureKind.STOPPING, "")
        elif self.server.idle_connections:
            self._use_idle_connection()
        else:
            self._connector = self._pool.connect_function(self._address, self, self._pool.reactor)

    @property
    def needed(self) -> bool:
        """Whether a request waits for the connection."""
        return self._exchange is not None

    def _use_idle_connection(self) -> None:
        """Send the request on a connection that another request has released meanwhile."""
        self._pool.attempt_failed(self)
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.attempt = None
        self._pool.acquire(self.server).send(exchange)

    def _stop_waiting(self) -> None:
        retry, self._descriptor_retry = self._descriptor_retry, None
        if retry is not None:
            retry.cancel()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        if is_shortage(reason.value):
            self._wait_for_descriptors()
        elif self._addresses:
            self._try_next_address()
        elif self._timed_out:
            limit = self._pool.timeouts.connect
            self._fail(FailureKind.CONNECT_TIMEOUT, f"connect timeout of {limit:g} s expired")
        else:
            self._fail(*classify_connect_failure(reason))

    def handshake_failed(self, error: Exception) -> None:
        """Try the next address, or fail: the handshake of TLS or HTTP/2 has failed."""
        if self._addresses or not self._pool.open:
            self._try_next_address()
        elif self._timed_out:
            self._fail(FailureKind.CONNECT_TIMEOUT, str(error))
        else:
            self._fail(FailureKind.UNREACHABLE, str(error))

    def _resolution_failed(self, reason: Failure) -> None:
        if reason.check(defer.TimeoutError):
            self._fail(FailureKind.CONNECT_TIMEOUT, "name resolution timed out")
        else:
            self._fail(FailureKind.UNREACHABLE, reason.getErrorMessage())

    def _fail(self, kind: FailureKind, detail: str) -> None:
        self._pool.attempt_failed(self)
        self._connector = None
        self._report(UpstreamFailure(kind, detail, nothing_sent=True, server=self.server.name))

    def _report(self, failure: UpstreamFailure) -> None:
        """Report a failure to the request, or to the pool if it has ended."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.attempt = None
            exchange.upstream_failed(failure)
        else:
            self._pool.on_background_failure(self.server, None, failure)
