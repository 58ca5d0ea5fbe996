"""
The spine: the one way that every request takes, whatever door it came through.

`BalancerResource` is a `twisted.web` resource like any other. Mounted in a
tree, or made the root of a `BalancerSite`, it admits a request, chooses a
server, sends the request there, tries another one where that is safe, and
accounts for what happened.
"""

from __future__ import annotations

from typing import Protocol as Interface

from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.doors.exchange import Exchange
from balancebeam.doors.trust import TrustedProxies
from balancebeam.http1.answers import ALLOWED
from balancebeam.http1.requests import RequestHeads
from balancebeam.model import FailureKind, UpstreamFailure
from balancebeam.policy.limiters import Refusal
from balancebeam.policy.retries import RetryPolicy
from balancebeam.upstream.health import HealthService
from balancebeam.upstream.pool import ConnectionPool
from balancebeam.upstream.selector import SelectorService


class LimiterSeam(Interface):
    """Who admits requests."""

    def admit(self, client: str) -> Refusal | None:
        """Why `client` may make no request now, if it may not."""


class Observer(Interface):
    """Who is told of every request that has ended."""

    def exchange_ended(self, exchange: Exchange) -> None:
        """`exchange` is over, one way or another."""


class BalancerResource(ReverseProxyResource):
    """
    Balances requests over servers.

    `trusted` are the proxies whose word about a client is taken. `path` is
    put before the target of what comes in by the web door. The other
    arguments are the services that decide, connect and watch.
    """

    isLeaf = True

    def __init__(
        self,
        selector: SelectorService,
        health: HealthService,
        limiter: LimiterSeam,
        pool: ConnectionPool,
        retries: RetryPolicy = RetryPolicy(),
        observer: Observer | None = None,
        trusted: TrustedProxies = TrustedProxies(()),
        path: bytes = b"",
    ) -> None:
        super().__init__("", 0, path, pool.reactor)
        self.selector = selector
        self.health = health
        self.limiter = limiter
        self.pool = pool
        self.retries = retries
        self.observer = observer
        self.trusted = trusted
        self.heads = RequestHeads()

    # The web door.

    def render(self, request: Request) -> int | bytes:
        """Forward a request that came through an ordinary `twisted.web` tree."""
        # Imported here because the web door's exchange needs this class.
        from balancebeam.doors.web import forward_web_request

        forward_web_request(self, request)
        return NOT_DONE_YET

    # The way of a request.

    def forward(self, exchange: Exchange) -> None:
        """Take a request that a door has read, and see it through to its end."""
        refusal = self.limiter.admit(exchange.client)
        if refusal is not None:
            retry = (b"Retry-After", b"%d" % refusal.retry_after)
            exchange.answer(429, refusal.reason, (retry,))
        elif exchange.head.last_hop:
            # RFC 9110, 7.6.2: "the intermediary MUST NOT forward the request;
            # instead, the intermediary MUST respond as the final recipient".
            status = 200 if exchange.method == b"OPTIONS" else 405
            exchange.answer(status, "TRACE ends here", ((b"Allow", ALLOWED),))
        else:
            exchange.candidates = self.selector.candidates(exchange.client)
            self._try_next(exchange)

    def _try_next(self, exchange: Exchange) -> None:
        if exchange.attempts < self.retries.attempts:
            for server in exchange.candidates:
                exchange.attempts += 1
                exchange.server = server
                server.in_flight += 1
                if server.idle:
                    self.pool.take(server).send(exchange)
                else:
                    self.pool.connect(server, exchange)
                return
        self._give_up(exchange)

    def failed(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """An attempt ended without a response; try elsewhere if that is safe."""
        server = exchange.server
        if server is None:
            # The client has left, and `finished` was told.
            return
        exchange.server = None
        server.in_flight -= 1
        self.health.failed(server, failure)
        exchange.failure = failure
        if not self.retries.allows(exchange.method, failure, exchange.rewind()):
            self._give_up(exchange)
        elif failure.kind is FailureKind.STALE:
            # The server is well: it closed an idle connection just when the
            # request was sent. A new connection to it cannot be stale.
            exchange.server = server
            server.in_flight += 1
            self.pool.connect(server, exchange)
        else:
            self._try_next(exchange)

    def finished(self, exchange: Exchange) -> None:
        """The last phase of every request: it was answered, cut, or left."""
        server = exchange.server
        if server is not None:
            exchange.server = None
            server.in_flight -= 1
            if server.failures and exchange.responded:
                self.health.succeeded(server)
        if self.observer is not None:
            self.observer.exchange_ended(exchange)

    def _give_up(self, exchange: Exchange) -> None:
        failure = exchange.failure
        if failure is None:
            exchange.answer(503, "error no available server")
        else:
            exchange.answer(failure.status, failure.for_client)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.selector.directory.servers!r}>"
