"""A connect attempt that all requests to one HTTP/2 server wait for."""

from __future__ import annotations

import typing

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.upstream.connect_attempt import AttemptOwner, ConnectAttempt, ConnectRequest
from balancebeam.upstream.http2_connection import Http2Connection
from balancebeam.upstream.interfaces import UpstreamRequest
from balancebeam.upstream.server import Server


class SharedRequest(ConnectRequest, UpstreamRequest, typing.Protocol):
    """A request that waits for a connection, and is then sent."""


class SharedAttemptOwner(AttemptOwner[Http2Connection], typing.Protocol):
    """The pool for which a shared attempt connects."""

    def connect_again(self, server: Server, waiting: list[WaitingRequest]) -> None:
        """Open another connection: the last one has no stream for `waiting`."""


class WaitingRequest:
    """
    The place of one request in a `SharedAttempt`.

    Attributes:
        exchange: The request.
        attempt: The attempt that it waits for.
    """

    __slots__ = ("attempt", "exchange")

    def __init__(self, exchange: SharedRequest, attempt: SharedAttempt) -> None:
        self.exchange = exchange
        self.attempt = attempt

    def detach(self) -> None:
        """Forget the request, which has ended."""
        self.attempt.waiting.pop(self, None)


class SharedAttempt(ConnectAttempt[Http2Connection]):
    """
    One attempt to connect to `server`, for any number of requests.

    Attributes:
        waiting: The requests that wait, in order.
    """

    def __init__(self, pool: SharedAttemptOwner, server: Server) -> None:
        super().__init__(pool, server, None)
        self._owner = pool
        self.waiting: dict[WaitingRequest, None] = {}

    def add(self, exchange: SharedRequest) -> None:
        """Let a request wait for the connection."""
        waiting = WaitingRequest(exchange, self)
        exchange.attempt = waiting
        self.waiting[waiting] = None

    def take_over(self, waiting: list[WaitingRequest]) -> None:
        """Let requests wait that have waited for another connection."""
        for each in waiting:
            each.attempt = self
            self.waiting[each] = None

    @property
    def needed(self) -> bool:
        return bool(self.waiting)

    def send_waiting(self, connection: Http2Connection) -> None:
        """Send as many requests as `connection` has streams for."""
        while self.waiting and connection.available:
            exchange = self._pop()
            exchange.upstream_connected()
            connection.send(exchange)

    def _pop(self) -> SharedRequest:
        waiting = next(iter(self.waiting))
        del self.waiting[waiting]
        waiting.exchange.attempt = None
        return waiting.exchange

    def _use(self, connection: Http2Connection) -> None:
        if connection.single_use and len(self.waiting) > 1:
            # The verification of servers has changed during the handshake.
            connection.close_idle()
        elif not self.waiting or connection.available:
            self.send_waiting(connection)
            if not connection.streams:
                self._owner.release(connection)
        else:
            # It would be the same with each further connection.
            connection.close_idle()
            detail = "no stream may be opened"
            name = self.server.name
            self._report(UpstreamFailure(FailureKind.UNREACHABLE, detail, True, name))
        if self.waiting:
            waiting = list(self.waiting)
            self.waiting.clear()
            self._owner.connect_again(self.server, waiting)

    def _use_idle_connection(self) -> None:
        self._owner.attempt_failed(self)
        waiting = list(self.waiting)
        self.waiting.clear()
        self._owner.connect_again(self.server, waiting)

    def _report(self, failure: UpstreamFailure) -> None:
        if not self.waiting:
            self._owner.on_background_failure(self.server, None, failure)
        while self.waiting:
            self._pop().upstream_failed(failure)
