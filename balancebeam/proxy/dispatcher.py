"""
The dispatcher: the one way that every request takes, whatever door it came through.

`BalancerResource` is a `twisted.web` resource like any other. Mounted in a
tree, or made the root of a `Http1Factory`, it admits a request, chooses a
server, sends the request there, tries another one where that is safe, and
accounts for what happened.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from random import SystemRandom
from typing import Protocol as Interface

from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.balancing.interfaces import Selection
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import ForwardingSettings, RetrySettings, QueueSettings
from balancebeam.protocols.http1.local_reply import ALLOWED_METHODS
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import Exchange, Observer
from balancebeam.proxy.forwarding import Onward, make_ids
from balancebeam.proxy.queue import WaitingLine
from balancebeam.proxy.retries import RetryBudget, RetryPolicy
from balancebeam.ratelimit.limit import Refusal
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server_set import Server, Priority

# Those who wait for one server but not another may be followed by some who do
# not mind; after so many of them nobody looks further.
LOOKED_FOR = 16


class LimiterSeam(Interface):
    """Who admits requests; one that is `idle` admits all, and need not be asked."""

    idle: bool

    def admit(self, request: Exchange) -> Refusal | None:
        """Why `request` may not be made now, if it may not."""

    def release(self, request: Exchange) -> None:
        """`request`, which was admitted, is over."""


class BalancerResource(ReverseProxyResource):
    """
    Balances requests over servers.

    `trusted` are the proxies whose word about a client is taken. `path` is
    put before the target of what comes in by the web door. `onward` says what
    servers are told of clients. The other
    arguments are the services that decide, connect and watch.
    """

    isLeaf = True

    # For logs.
    pool_name = ""

    def __init__(
        self,
        selector: SelectorService,
        health: HealthService,
        limiter: LimiterSeam,
        pool: ConnectionPool,
        retries: RetrySettings = RetrySettings(),
        waiting: QueueSettings = QueueSettings(),
        trusted: TrustedProxies = TrustedProxies(()),
        path: bytes = b"",
        onward: Onward | None = None,
    ) -> None:
        super().__init__("", 0, path, pool.reactor)
        self.selector = selector
        self.health = health
        self.limiter = limiter
        self.pool = pool
        self.retries = RetryPolicy(retries.attempts)
        self.budget = RetryBudget(retries.budget)
        self.requests = 0
        # Exchanges that ended, by the status of their answers; 0 without one.
        self.answered: defaultdict[int, int] = defaultdict(int)
        self.retried = 0
        self.waiting = WaitingLine(waiting)
        # Asked for every request, and a dict answers quicker.
        self._waiting_since = self.waiting.since
        self._handing_on = False
        # For the web door. Others have their own.
        self.observer: Observer | None = None
        self.idle_timeout = 60.0
        self.trusted = trusted
        self.onward = onward or Onward(ForwardingSettings(), make_ids(SystemRandom()))
        self.parser = RequestHeadParser()
        pool.ticker.add(self.sweep)

    # The web door.

    def render(self, request: Request) -> int | bytes:
        """Forward a request that came through an ordinary `twisted.web` tree."""
        # Imported here because the web door's exchange needs this class.
        from balancebeam.web.exchange import forward_web_request

        forward_web_request(self, request)
        return NOT_DONE_YET

    # The way of a request.

    def forward(self, exchange: Exchange, limiter: LimiterSeam | None = None) -> None:
        """
        Take a request that a door has read, and see it through to its end. It
        is asked of `limiter`, or else of the resource's own.
        """
        self.requests += 1
        if limiter is None:
            limiter = self.limiter
        refusal = None if limiter.idle else limiter.admit(exchange)
        if refusal is not None:
            self.refuse(exchange, refusal)
        elif exchange.max_forwards_exhausted:
            # RFC 9110, 7.6.2: "the intermediary MUST NOT forward the request;
            # instead, the intermediary MUST respond as the final recipient".
            status = 200 if exchange.method == b"OPTIONS" else 405
            exchange.answer(status, "TRACE ends here", ((b"Allow", ALLOWED_METHODS),))
        else:
            exchange.candidates = self.selector.candidates(exchange.client)
            if self._waiting_since:
                # Others came first, but they may be waiting for something else.
                self._wait(exchange)
                if self.waiting.first_was_tried:
                    self._serve_waiting()
            else:
                self._try_next(exchange)

    def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer a request that is not admitted."""
        fields = []
        if refusal.limit:
            # RFC 6585, 4: 429 "MAY include a Retry-After header".
            fields = [
                (b"Retry-After", b"%d" % refusal.retry_after),
                (b"RateLimit", refusal.limit.encode()),
                (b"RateLimit-Policy", refusal.policy.encode()),
            ]
        exchange.answer(refusal.status, refusal.message, tuple(fields))

    def _try_next(self, exchange: Exchange) -> None:
        """Give the request to the first candidate that may have it."""
        busy: list[Selection[Server]] = []
        for choice in exchange.candidates:
            server, reason = choice
            if server in exchange.tried:
                continue
            if server.in_flight >= server.max_in_flight:
                busy.append(choice)
            elif busy and busy[0][0].available and not server.available:
                # Better to wait for one that is well than to ask one that is not.
                busy.append(choice)
                break
            else:
                if busy:
                    exchange.candidates = chain(busy, exchange.candidates)
                self._give(exchange, server, reason)
                return
        exchange.candidates = chain(busy, exchange.candidates)
        if busy:
            self._wait(exchange)
        else:
            self._give_up(exchange)

    def _give(self, exchange: Exchange, server: Server, reason: str) -> None:
        """Let `server` answer: it holds the request until `_release`."""
        exchange.server = server
        exchange.reason = reason
        server.in_flight += 1
        server.total_requests += 1
        if server.tracked:
            self._note_taken(exchange, server)
        if server.idle_connections:
            self.pool.acquire(server).send(exchange)
        else:
            self.pool.connect(server, exchange)

    def failed(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """An attempt ended without a response; try elsewhere if that is safe."""
        server = exchange.server
        if server is None:
            # The client has left, and `finished` was told.
            return
        server.failed_requests += 1
        self.health.request_failed(server, exchange, failure)
        exchange.failure = failure
        if not self.retries.allows(exchange.method, failure, exchange.rewind()):
            self._release(exchange, server)
            self._give_up(exchange)
        elif failure.kind is FailureKind.STALE:
            # The server is well: it closed an idle connection just when the
            # request was sent. A new connection to it cannot be stale.
            self.pool.connect(server, exchange)
        else:
            self._release(exchange, server)
            self._retry(exchange, server)

    def _retry(self, exchange: Exchange, server: Server) -> None:
        """Try the request, which `server` did not answer, elsewhere."""
        exchange.tried = (*exchange.tried, server)
        exchange.taken_at = None
        within_budget = self.budget.allows(self.requests)
        if len(exchange.tried) < self.retries.attempts and within_budget:
            self.budget.spend()
            self.retried += 1
            exchange.candidates = self.selector.remaining(exchange.candidates)
            self._try_next(exchange)
        else:
            self._give_up(exchange)

    def answering(self, exchange: Exchange) -> None:
        """A response has begun, of which more is to come."""
        server = exchange.server
        if server is not None and server.tracked:
            now = exchange.answered_at = self.pool.reactor.seconds()
            if exchange.taken_at is not None:
                self.selector.response_started(server, max(0.0, now - exchange.taken_at), now)
            self.health.response_started(server, exchange, exchange.status)

    def cut(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """A response that had begun will never be complete."""
        exchange.failure = failure
        server = exchange.server
        if server is not None:
            server.failed_requests += 1
            self.health.request_failed(server, exchange, failure)
            self._release(exchange, server)

    def finished(self, exchange: Exchange) -> None:
        """The last phase of every request: it was answered, cut, or left."""
        server = exchange.server
        if server is not None:
            self._release(exchange, server)
        elif self._waiting_since:
            self.waiting.leave(exchange)
        self.answered[exchange.status] += 1
        if exchange.held:
            self.limiter.release(exchange)
        if exchange.observer is not None:
            exchange.observer.exchange_ended(exchange)

    def _release(self, exchange: Exchange, server: Server) -> None:
        """`server` has no more to do with the request."""
        exchange.server = None
        exchange.last_server = server
        server.in_flight -= 1
        if server.tracked:
            self._note_released(exchange, server)
        if self._waiting_since:
            self._hand_on(server)

    def _give_up(self, exchange: Exchange) -> None:
        failure = exchange.failure
        if failure is None:
            exchange.answer(503, "error no available server")
        else:
            exchange.answer(failure.status, failure.public_message)

    # Servers that somebody watches.

    def _note_taken(self, exchange: Exchange, server: Server) -> None:
        exchange.taken_at = self.pool.reactor.seconds()
        exchange.answered_at = None
        self.selector.request_started(server, exchange.taken_at)
        self.health.request_sent(server, exchange)

    def _note_released(self, exchange: Exchange, server: Server) -> None:
        now = self.pool.reactor.seconds()
        seconds = None
        if exchange.responded and exchange.taken_at is not None:
            if exchange.answered_at is None:
                exchange.answered_at = now
                seconds = max(0.0, now - exchange.taken_at)
                self.health.response_started(server, exchange, exchange.status)
            if not exchange.abandoned:
                self.health.response_finished(server, exchange)
        self.health.request_released(server, exchange)
        self.selector.request_finished(server, seconds, now)

    # Requests that wait, because all servers have as many as they may.

    def _wait(self, exchange: Exchange) -> None:
        if self.waiting.full:
            self._give_up(exchange)
        else:
            self.waiting.join(exchange, self.pool.ticker.now)

    def _hand_on(self, server: Server) -> None:
        """`server` may have one more, or a few: give it to who waited longest."""
        if self._handing_on or not self.pool.open:
            return
        self._handing_on = True
        try:
            for exchange in self.waiting:
                if server.in_flight >= server.max_in_flight or not self._may_have(server):
                    break
                if server not in exchange.tried and exchange in self.waiting:
                    self.waiting.leave(exchange)
                    self._give(exchange, server, "the first to be free again")
        finally:
            self._handing_on = False

    def _may_have(self, server: Server) -> bool:
        """Whether `server` may be given a request: it is well, or no other is."""
        if server.available:
            return True
        tiers = self.selector.server_set.tiers
        return server.eligible and not tiers[Priority.PRIMARY] and not tiers[Priority.BACKUP]

    def _serve_waiting(self) -> None:
        """Look for servers for those who wait, in order."""
        in_vain = 0
        for exchange in self.waiting:
            if exchange not in self.waiting:
                # It ended while one before it was served.
                continue
            found = self._free_server(exchange)
            if found is not None:
                self.waiting.leave(exchange)
                self._give(exchange, *found)
            elif not exchange.tried or in_vain == LOOKED_FOR:
                # Those behind it will not find one either.
                break
            else:
                in_vain += 1

    def _free_server(self, exchange: Exchange) -> Selection[Server] | None:
        for server, reason in self.selector.candidates(exchange.client):
            free = server.in_flight < server.max_in_flight and server not in exchange.tried
            if free and self._may_have(server):
                return server, reason
        return None

    def configure(self, retries: RetrySettings, waiting: QueueSettings) -> None:
        """Go by these from now on."""
        self.retries = RetryPolicy(retries.attempts)
        self.budget.share = retries.budget
        self.waiting.settings = waiting

    def sweep(self, now: float) -> None:
        """Serve those who wait, should servers have come back, and end what waits for too long."""
        self.budget.tick(now, self.requests)
        if self.waiting:
            self._serve_waiting()
            for exchange in self.waiting.overdue(now):
                if not exchange.ended:
                    self._give_up(exchange)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.selector.server_set.servers!r}>"
