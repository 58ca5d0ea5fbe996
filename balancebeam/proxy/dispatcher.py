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
from typing import Any
from typing import Protocol as Interface

from twisted.web.proxy import ReverseProxyResource
from twisted.web.server import NOT_DONE_YET, Request

from balancebeam.balancing.interfaces import Selection
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import ForwardingSettings, QueueSettings, RetrySettings
from balancebeam.protocols.http1.local_reply import ALLOWED_METHODS
from balancebeam.protocols.http1.request_head import RequestHeadParser
from balancebeam.proxy.client_address import TrustedProxies
from balancebeam.proxy.exchange import Exchange, Observer
from balancebeam.proxy.forwarding import ForwardingPolicy, request_id_generator
from balancebeam.proxy.queue import RequestQueue
from balancebeam.proxy.retries import RetryBudget, RetryPolicy
from balancebeam.ratelimit.limit import Rejection
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import Priority

# Those who wait for one server but not another may be followed by some who do
# not mind; after so many of them nobody looks further.
MAX_QUEUE_SCAN = 16


class Admission(Interface):
    """Who admits requests; one that is `unrestricted` admits all, and need not be asked."""

    unrestricted: bool

    def admit(self, request: Exchange) -> Rejection | None:
        """Why `request` may not be made now, if it may not."""

    def release(self, request: Exchange) -> None:
        """`request`, which was admitted, is over."""


class BalancerResource(ReverseProxyResource):
    """
    Balances requests over servers.

    `trusted_proxies` are the proxies whose word about a client is taken. `path` is
    put before the target of what comes in by the web door. `forwarding` says what
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
        admission: Admission,
        connections: ConnectionPool[Any],
        retries: RetrySettings = RetrySettings(),
        queue: QueueSettings = QueueSettings(),
        trusted_proxies: TrustedProxies = TrustedProxies(()),
        path: bytes = b"",
        forwarding: ForwardingPolicy | None = None,
    ) -> None:
        super().__init__("", 0, path, connections.reactor)
        self.selector = selector
        self.health = health
        self.admission = admission
        self.connections = connections
        self.retry_policy = RetryPolicy(retries.attempts)
        self.retry_budget = RetryBudget(retries.budget)
        self.total_requests = 0
        # Exchanges that ended, by the status of their answers; 0 without one.
        self.responses_by_status: defaultdict[int, int] = defaultdict(int)
        self.total_retries = 0
        self.queue = RequestQueue(queue)
        # Asked for every request, and a dict answers quicker.
        self._queued_at = self.queue.queued_at
        self._dequeuing = False
        # For the web door. Others have their own.
        self.observer: Observer | None = None
        self.idle_timeout = 60.0
        self.trusted_proxies = trusted_proxies
        self.forwarding = forwarding or ForwardingPolicy(
            ForwardingSettings(), request_id_generator(SystemRandom())
        )
        self.parser = RequestHeadParser()
        connections.ticker.add(self.sweep)

    # The web door.

    def render(self, request: Request) -> int | bytes:
        """Forward a request that came through an ordinary `twisted.web` tree."""
        # Imported here because the web door's exchange needs this class.
        from balancebeam.web.exchange import dispatch_web_request

        dispatch_web_request(self, request)
        return NOT_DONE_YET

    # The way of a request.

    def dispatch(self, exchange: Exchange, admission: Admission | None = None) -> None:
        """
        Take a request that a door has read, and see it through to its end. It
        is asked of `admission`, or else of the resource's own.
        """
        self.total_requests += 1
        if admission is None:
            admission = self.admission
        rejection = None if admission.unrestricted else admission.admit(exchange)
        if rejection is not None:
            self.reject(exchange, rejection)
        elif exchange.max_forwards_exhausted:
            # RFC 9110, 7.6.2: "the intermediary MUST NOT forward the request;
            # instead, the intermediary MUST respond as the final recipient".
            status = 200 if exchange.method == b"OPTIONS" else 405
            exchange.local_reply(status, "TRACE ends here", ((b"Allow", ALLOWED_METHODS),))
        else:
            exchange.candidates = self.selector.candidates(exchange.client)
            if self._queued_at:
                # Others came first, but they may be waiting for something else.
                self._enqueue(exchange)
                if self.queue.head_is_retry:
                    self._dispatch_queued()
            else:
                self._try_next(exchange)

    def reject(self, exchange: Exchange, rejection: Rejection) -> None:
        """Answer a request that is not admitted."""
        fields = []
        if rejection.limit:
            # RFC 6585, 4: 429 "MAY include a Retry-After header".
            fields = [
                (b"Retry-After", b"%d" % rejection.retry_after),
                (b"RateLimit", rejection.limit.encode()),
                (b"RateLimit-Policy", rejection.policy.encode()),
            ]
        exchange.local_reply(rejection.status, rejection.message, tuple(fields))

    def _try_next(self, exchange: Exchange) -> None:
        """Give the request to the first candidate that may have it."""
        saturated: list[Selection[Server]] = []
        for choice in exchange.candidates:
            server, reason = choice
            if server in exchange.attempted_servers:
                continue
            if server.in_flight >= server.max_in_flight:
                saturated.append(choice)
            elif saturated and saturated[0][0].available and not server.available:
                # Better to wait for one that is well than to ask one that is not.
                saturated.append(choice)
                break
            else:
                if saturated:
                    exchange.candidates = chain(saturated, exchange.candidates)
                self._send_to(exchange, server, reason)
                return
        exchange.candidates = chain(saturated, exchange.candidates)
        if saturated:
            self._enqueue(exchange)
        else:
            self._fail(exchange)

    def _send_to(self, exchange: Exchange, server: Server, reason: str) -> None:
        """Let `server` answer: it holds the request until `_release`."""
        exchange.server = server
        exchange.selection_reason = reason
        server.in_flight += 1
        server.total_requests += 1
        if server.tracked:
            self._record_start(exchange, server)
        if server.idle_connections:
            self.connections.acquire(server).send(exchange)
        else:
            self.connections.connect(server, exchange)

    def attempt_failed(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """An attempt ended without a response; try elsewhere if that is safe."""
        server = exchange.server
        if server is None:
            # The client has left, and `request_finished` was told.
            return
        server.failed_requests += 1
        self.health.request_failed(server, exchange, failure)
        exchange.failure = failure
        if not self.retry_policy.allows(exchange.method, failure, exchange.rewind()):
            self._release(exchange, server)
            self._fail(exchange)
        elif failure.kind is FailureKind.STALE:
            # The server is well: it closed an idle connection just when the
            # request was sent. A new connection to it cannot be stale.
            self.connections.connect(server, exchange)
        else:
            self._release(exchange, server)
            self._retry(exchange, server)

    def _retry(self, exchange: Exchange, server: Server) -> None:
        """Try the request, which `server` did not answer, elsewhere."""
        exchange.attempted_servers = (*exchange.attempted_servers, server)
        exchange.sent_at = None
        within_budget = self.retry_budget.allows(self.total_requests)
        if len(exchange.attempted_servers) < self.retry_policy.attempts and within_budget:
            self.retry_budget.spend()
            self.total_retries += 1
            exchange.candidates = self.selector.remaining(exchange.candidates)
            self._try_next(exchange)
        else:
            self._fail(exchange)

    def response_started(self, exchange: Exchange) -> None:
        """A response has begun, of which more is to come."""
        server = exchange.server
        if server is not None and server.tracked:
            now = exchange.response_started_at = self.connections.reactor.seconds()
            if exchange.sent_at is not None:
                self.selector.response_started(server, max(0.0, now - exchange.sent_at), now)
            self.health.response_started(server, exchange, exchange.status)

    def response_aborted(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """A response that had begun will never be complete."""
        exchange.failure = failure
        server = exchange.server
        if server is not None:
            server.failed_requests += 1
            self.health.request_failed(server, exchange, failure)
            self._release(exchange, server)

    def request_finished(self, exchange: Exchange) -> None:
        """The last phase of every request: it was answered, cut, or left."""
        server = exchange.server
        if server is not None:
            self._release(exchange, server)
        elif self._queued_at:
            self.queue.remove(exchange)
        self.responses_by_status[exchange.status] += 1
        if exchange.permits:
            self.admission.release(exchange)
        if exchange.observer is not None:
            exchange.observer.exchange_finished(exchange)

    def _release(self, exchange: Exchange, server: Server) -> None:
        """`server` has no more to do with the request."""
        exchange.server = None
        exchange.last_server = server
        server.in_flight -= 1
        if server.tracked:
            self._record_end(exchange, server)
        if self._queued_at:
            self._dequeue_for(server)

    def _fail(self, exchange: Exchange) -> None:
        failure = exchange.failure
        if failure is None:
            exchange.local_reply(503, "error no available server")
        else:
            exchange.local_reply(failure.status, failure.public_message)

    # Servers that somebody watches.

    def _record_start(self, exchange: Exchange, server: Server) -> None:
        exchange.sent_at = self.connections.reactor.seconds()
        exchange.response_started_at = None
        self.selector.request_started(server, exchange.sent_at)
        self.health.request_sent(server, exchange)

    def _record_end(self, exchange: Exchange, server: Server) -> None:
        now = self.connections.reactor.seconds()
        seconds = None
        if exchange.downstream_response_started and exchange.sent_at is not None:
            if exchange.response_started_at is None:
                exchange.response_started_at = now
                seconds = max(0.0, now - exchange.sent_at)
                self.health.response_started(server, exchange, exchange.status)
            if not exchange.client_aborted:
                self.health.response_finished(server, exchange)
        self.health.request_released(server, exchange)
        self.selector.request_finished(server, seconds, now)

    # Requests that wait, because all servers have as many as they may.

    def _enqueue(self, exchange: Exchange) -> None:
        if self.queue.full:
            self._fail(exchange)
        else:
            self.queue.enqueue(exchange, self.connections.ticker.now)

    def _dequeue_for(self, server: Server) -> None:
        """`server` may have one more, or a few: give it to who waited longest."""
        if self._dequeuing or not self.connections.open:
            return
        self._dequeuing = True
        try:
            for exchange in self.queue:
                if server.in_flight >= server.max_in_flight or not self._is_usable(server):
                    break
                if server not in exchange.attempted_servers and exchange in self.queue:
                    self.queue.remove(exchange)
                    self._send_to(exchange, server, "the first to be free again")
        finally:
            self._dequeuing = False

    def _is_usable(self, server: Server) -> bool:
        """Whether `server` may be given a request: it is well, or no other is."""
        if server.available:
            return True
        tiers = self.selector.server_set.tiers
        return server.eligible and not tiers[Priority.PRIMARY] and not tiers[Priority.BACKUP]

    def _dispatch_queued(self) -> None:
        """Look for servers for those who wait, in order."""
        skipped = 0
        for exchange in self.queue:
            if exchange not in self.queue:
                # It ended while one before it was served.
                continue
            found = self._free_server(exchange)
            if found is not None:
                self.queue.remove(exchange)
                self._send_to(exchange, *found)
            elif not exchange.attempted_servers or skipped == MAX_QUEUE_SCAN:
                # Those behind it will not find one either.
                break
            else:
                skipped += 1

    def _free_server(self, exchange: Exchange) -> Selection[Server] | None:
        for server, reason in self.selector.candidates(exchange.client):
            free = (
                server.in_flight < server.max_in_flight and server not in exchange.attempted_servers
            )
            if free and self._is_usable(server):
                return server, reason
        return None

    def configure(self, retries: RetrySettings, queue: QueueSettings) -> None:
        """Go by these from now on."""
        self.retry_policy = RetryPolicy(retries.attempts)
        self.retry_budget.ratio = retries.budget
        self.queue.settings = queue

    def sweep(self, now: float) -> None:
        """Serve those who wait, should servers have come back, and end what waits for too long."""
        self.retry_budget.record(now, self.total_requests)
        if self.queue:
            self._dispatch_queued()
            for exchange in self.queue.pop_expired(now):
                if not exchange.finished:
                    self._fail(exchange)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.selector.server_set.servers!r}>"
