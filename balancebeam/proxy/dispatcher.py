"""
The dispatcher: the pipeline of every request, independent of the client's protocol.

admit -> select a server -> connect -> retry on another server -> account.

It knows nothing of `twisted.web`; `balancebeam.web.resource.BalancerResource` is
the dispatcher as a resource.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from itertools import chain
from typing import Any

from balancebeam.admission.admission import Admission
from balancebeam.balancing.interfaces import Selection
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.core.settings import QueueSettings, RetrySettings
from balancebeam.protocols.http1.local_reply import ALLOWED_METHODS
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.explanation import ExplainedRequest, Explanation, explain_dispatch
from balancebeam.proxy.queue import RequestQueue
from balancebeam.proxy.retries import RetryBudget, RetryPolicy
from balancebeam.proxy.timeline import Try, failure_outcome
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server

# Failures that the statistics of a server do not have.
_NOT_COUNTED = (FailureKind.NO_DESCRIPTORS, FailureKind.NO_UPGRADE, FailureKind.REFUSED)


class Dispatcher:
    """
    Dispatches the requests of one pool to its servers.

    Attributes:
        selector: Yields the candidate servers of a request, best first.
        health: Receives successes and failures of servers.
        admission: The access list and rate limits of requests that no route has admitted.
        connections: The connections to the servers.
        pool_name: The name of the pool, for logs.
        clock: Returns the time of the reactor in seconds.
        perf_counter: Returns monotonic seconds, for the timelines of exchanges.
        ticker: The coarse clock of timeouts.
        retry_policy: Whether a failed request may be retried, and how often.
        retry_budget: Bounds the retries of all requests together.
        queue: The requests that are queued because all servers are saturated.
        total_requests: The number of requests received.
        total_retries: The number of retries on another server.
        retries_by_reason: The same by the label of the failure before it.
        request_samples: The durations of requests in seconds; emptied by a periodic sweep.
        responses_by_status: The number of finished exchanges by the status of
            their response; 0 stands for no response.
    """

    def __init__(
        self,
        selector: SelectorService,
        health: HealthService,
        admission: Admission,
        connections: ConnectionPool[Any],
        retries: RetrySettings = RetrySettings(),
        queue: QueueSettings = QueueSettings(),
        pool_name: str = "",
        perf_counter: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.selector = selector
        self.health = health
        self.admission = admission
        self.connections = connections
        self.pool_name = pool_name
        self.clock = connections.reactor.seconds
        self.perf_counter = perf_counter
        self.ticker = connections.ticker
        self.retry_policy = RetryPolicy(retries.attempts, retries.on)
        self.retry_budget = RetryBudget(retries.budget)
        self.total_requests = 0
        self.responses_by_status: defaultdict[int, int] = defaultdict(int)
        self.total_retries = 0
        self.retries_by_reason: defaultdict[str, int] = defaultdict(int)
        self.request_samples: list[float] = []
        self.queue = RequestQueue(
            queue, selector, connections, self._send_to, self._fail, perf_counter
        )
        # Tested two times per request: the truth of a dict costs less than a call of
        # RequestQueue.__len__.
        self._queued_at = self.queue.queued_at
        self.ticker.add(self.sweep)

    def apply(self, retries: RetrySettings, queue: QueueSettings) -> None:
        """Replace the settings; requests in flight and queued requests stay."""
        self.retry_policy = RetryPolicy(retries.attempts, retries.on)
        self.retry_budget.ratio = retries.budget
        self.queue.settings = queue

    def dispatch(self, exchange: Exchange, admission: Admission | None = None) -> None:
        """
        Process a request until it is finished.

        Args:
            exchange: The request, whose head has been received.
            admission: The access list and rate limits of its route; by
                default, of the pool.
        """
        self.total_requests += 1
        exchange.received_at = exchange.attempt_at = self.perf_counter()
        if admission is None:
            admission = self.admission
        rejection = None if admission.unrestricted else admission.admit(exchange)
        if rejection is not None:
            exchange.reject(rejection)
        elif exchange.max_forwards_exhausted:
            # RFC 9110, 7.6.2: "the intermediary MUST NOT forward the request;
            # instead, the intermediary MUST respond as the final recipient".
            status = 200 if exchange.method == b"OPTIONS" else 405
            exchange.local_reply(status, "TRACE is not supported", ((b"Allow", ALLOWED_METHODS),))
        else:
            exchange.candidates = self.selector.candidates(exchange.client)
            if self._queued_at:
                self.queue.enqueue_behind(exchange)
            else:
                self._try_next(exchange)

    def explain(self, request: ExplainedRequest) -> Explanation:
        """Explain what would happen to an admitted request; see `RequestHandler.explain`."""
        return explain_dispatch(self.selector, self.queue, request.client)

    def _try_next(self, exchange: Exchange) -> None:
        """Send the request to the first candidate with capacity, or enqueue or fail it."""
        saturated: list[Selection[Server]] = []
        for selection in exchange.candidates:
            server, reason = selection
            if server in exchange.attempted_servers:
                continue
            if server.in_flight >= server.max_in_flight:
                saturated.append(selection)
            elif saturated and saturated[0][0].available and not server.available:
                # A saturated available server is worth waiting for; an ejected
                # server is not tried in its place.
                saturated.append(selection)
                break
            else:
                if saturated:
                    exchange.candidates = chain(saturated, exchange.candidates)
                self._send_to(exchange, server, reason)
                return
        exchange.candidates = chain(saturated, exchange.candidates)
        if saturated:
            self.queue.enqueue(exchange)
        else:
            self._fail(exchange)

    def _send_to(self, exchange: Exchange, server: Server, reason: str) -> None:
        """Send the request to `server`, which has it in flight until `_release`."""
        exchange.server = server
        exchange.selection_reason = reason
        server.in_flight += 1
        server.total_requests += 1
        if server.tracked:
            self._record_start(exchange, server)
        if exchange.tries:
            exchange.last_try_failed = False
            exchange.connect_seconds = None
        if server.idle_connections:
            self.connections.acquire(server).send(exchange)
        else:
            self.connections.connect(server, exchange)

    def connected(self, exchange: Exchange) -> None:
        """Record that a connection was opened for the request, which is sent next."""
        now = self.perf_counter()
        seconds = exchange.connect_seconds = now - exchange.attempt_at
        exchange.attempt_at = now
        if exchange.server is not None:
            exchange.server.connect_samples.append(seconds)

    def attempt_failed(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """Retry or fail a request for which a server sent no response."""
        server = exchange.server
        if server is None:
            # The client has disconnected, and `request_finished` was called.
            return
        if failure.kind not in _NOT_COUNTED:
            server.failed_requests += 1
        self.health.request_failed(server, exchange, failure)
        exchange.failure = failure
        self._record_try(exchange, server, failure)
        if not self.retry_policy.allows(exchange.method, failure, exchange.rewind()):
            self._release(exchange, server)
            self._fail(exchange)
        elif failure.kind is FailureKind.REFUSED and not exchange.sent_again:
            exchange.sent_again = True
            self._release(exchange, server)
            self._retry_refused(exchange, server, failure)
        elif failure.kind is FailureKind.STALE and not exchange.sent_again:
            # The server is healthy: it closed an idle connection just when the
            # request was sent. A new connection to it cannot be stale, unless other requests
            # share it.
            exchange.sent_again = True
            exchange.last_try_failed = False
            exchange.connect_seconds = None
            self.connections.connect(server, exchange)
        else:
            self._release(exchange, server)
            self._retry(exchange, server, failure)

    def _record_try(self, exchange: Exchange, server: Server, failure: UpstreamFailure) -> None:
        """Add the attempt that has failed to the timeline; the next one begins."""
        now = self.perf_counter()
        seconds = now - exchange.attempt_at + (exchange.connect_seconds or 0.0)
        failed = Try(server.name, exchange.selection_reason, failure.reason, seconds)
        exchange.tries = (*exchange.tries, failed)
        exchange.last_try_failed = True
        exchange.attempt_at = now

    def _retry(self, exchange: Exchange, server: Server, failure: UpstreamFailure) -> None:
        """Try the candidates that remain after `server` failed, if the budget allows it."""
        exchange.attempted_servers = (*exchange.attempted_servers, server)
        exchange.sent_again = False
        exchange.sent_at = None
        within_budget = self.retry_budget.allows(self.total_requests)
        if len(exchange.attempted_servers) < self.retry_policy.attempts and within_budget:
            self.retry_budget.spend()
            self.total_retries += 1
            self.retries_by_reason[failure.kind.label] += 1
            exchange.candidates = self.selector.remaining(exchange.candidates)
            self._try_next(exchange)
        else:
            self._fail(exchange)

    def _retry_refused(self, exchange: Exchange, server: Server, failure: UpstreamFailure) -> None:
        """
        Try the other candidates, and then `server` once more, which has refused the request.

        It costs no budget: servers refuse many requests at once when they restart.
        """
        exchange.sent_at = None
        self.total_retries += 1
        self.retries_by_reason[failure.kind.label] += 1
        again = (server, exchange.selection_reason)
        exchange.candidates = self.selector.remaining(chain(exchange.candidates, (again,)))
        self._try_next(exchange)

    def response_started(self, exchange: Exchange) -> None:
        """Record that the response's head has arrived and its body is yet to come."""
        if exchange.status:
            # A TCP connection has no status, and no response at this time.
            self.first_byte_received(exchange)
        server = exchange.server
        if server is not None and server.tracked:
            now = exchange.response_started_at = self.clock()
            if exchange.sent_at is not None:
                self.selector.response_started(server, max(0.0, now - exchange.sent_at), now)
            self.health.response_started(server, exchange, exchange.status)

    def first_byte_received(self, exchange: Exchange) -> None:
        """Record that the final response begins to arrive, and that more of it follows."""
        now = exchange.first_byte_at = self.perf_counter()
        if exchange.server is not None:
            exchange.server.first_byte_samples.append(now - exchange.attempt_at)

    def response_aborted(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        """Record that a response which had started cannot be completed."""
        exchange.failure = failure
        exchange.outcome = failure_outcome(failure)
        server = exchange.server
        if server is not None:
            server.failed_requests += 1
            self.health.request_failed(server, exchange, failure)
            self._release(exchange, server)

    def request_finished(self, exchange: Exchange) -> None:
        """Account for a request that was answered, aborted or abandoned; called once."""
        now = exchange.finished_at = self.perf_counter()
        server = exchange.server
        at_once = False
        if server is not None:
            if not exchange.first_byte_at and exchange.status and not exchange.client_aborted:
                # Head and body of the response have arrived together.
                at_once = True
                exchange.first_byte_at = now
                server.first_byte_samples.append(now - exchange.attempt_at)
            self._release(exchange, server)
        elif self._queued_at:
            self.queue.remove(exchange)
            now = exchange.finished_at = self.perf_counter()
        if exchange.received_at:
            # Otherwise the client disconnected before the request was dispatched.
            self.request_samples.append(now - exchange.received_at)
        self.responses_by_status[exchange.status] += 1
        if exchange.permits:
            self.admission.release(exchange)
        if exchange.observer is not None:
            if at_once and exchange.attempt_at == exchange.received_at:
                exchange.uneventful = not exchange.tries
            exchange.observer.exchange_finished(exchange)

    def _release(self, exchange: Exchange, server: Server) -> None:
        """Give the capacity of `server` that the request has used to queued requests."""
        exchange.server = None
        exchange.last_server = server
        server.in_flight -= 1
        if server.tracked:
            self._record_end(exchange, server)
        if self._queued_at:
            self.queue.server_released(server)

    def _fail(self, exchange: Exchange) -> None:
        """Answer with the error of the last attempt, or 503 if there was none."""
        failure = exchange.failure
        exchange.outcome = failure_outcome(failure)
        if failure is None:
            exchange.local_reply(503, "error no available server")
        else:
            exchange.local_reply(failure.status, failure.public_message)

    def _record_start(self, exchange: Exchange, server: Server) -> None:
        """Notify the algorithm and the health service that `server` gets the request."""
        exchange.sent_at = self.clock()
        exchange.response_started_at = None
        self.selector.request_started(server, exchange.sent_at)
        self.health.request_sent(server, exchange)

    def _record_end(self, exchange: Exchange, server: Server) -> None:
        """Notify the algorithm and the health service that `server` is released."""
        now = self.clock()
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

    def sweep(self, now: float) -> None:
        """Update the retry budget; send or expire queued requests."""
        self.retry_budget.record(now, self.total_requests)
        if self._queued_at:
            self.queue.sweep(now)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} over {self.selector.server_set.servers!r}>"
