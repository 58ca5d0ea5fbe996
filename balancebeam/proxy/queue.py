"""
The queue of a saturated pool.

Requests are queued while every usable server has `max_in_flight` requests. They
leave the queue in order of arrival when a server has capacity again, when their
client disconnects, or with an error after `QueueSettings.timeout` seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, Callable

from balancebeam.balancing.interfaces import Selection
from balancebeam.core.settings import QueueSettings
from balancebeam.proxy.exchange import Exchange
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import Priority

# Queued retries exclude the servers that failed them, so a request behind them may
# find a server when they do not. The scan for one ends after this many retries:
# each costs a call of the selector, and a sweep or a free server must not cost a
# scan of the whole queue.
MAX_QUEUE_SCAN = 16

SendFunction = Callable[[Exchange, Server, str], None]
FailFunction = Callable[[Exchange], None]


class RequestQueue:
    """
    First in, first out; bounded in length and in time.

    Attributes:
        settings: The maximum length, and the timeout in seconds.
        queued_at: The queued requests in order of arrival, with the time of
            arrival on the ticker. The dispatcher reads it for every request.
        samples: The seconds that requests were queued; emptied by a periodic sweep.
        perf_counter: Returns monotonic seconds, for `Exchange.queue_seconds`.
    """

    def __init__(
        self,
        settings: QueueSettings,
        selector: SelectorService,
        connections: ConnectionPool[Any],
        send: SendFunction,
        fail: FailFunction,
        perf_counter: Callable[[], float],
    ) -> None:
        """
        Create an empty queue.

        Args:
            settings: The limits, which may be replaced later.
            selector: Proposes servers for queued requests.
            connections: Nothing leaves the queue for a server when it is closed.
            send: Called with a request, its server and the reason of the selection.
            fail: Called with a request that is answered with an error.
            perf_counter: Returns monotonic seconds, for `Exchange.queue_seconds`.
        """
        self.settings = settings
        self.queued_at: dict[Exchange, float] = {}
        self.samples: list[float] = []
        self._selector = selector
        self._connections = connections
        self._send = send
        self._fail = fail
        self.perf_counter = perf_counter
        self._dequeuing = False

    def __len__(self) -> int:
        return len(self.queued_at)

    def __iter__(self) -> Iterator[Exchange]:
        """Iterate over a copy: requests may leave the queue meanwhile."""
        return iter(list(self.queued_at))

    def __contains__(self, exchange: Exchange) -> bool:
        return exchange in self.queued_at

    def enqueue(self, exchange: Exchange) -> None:
        """Append `exchange`; a full queue fails it instead."""
        if len(self.queued_at) >= self.settings.limit:
            self._fail(exchange)
        else:
            self.queued_at[exchange] = self._connections.ticker.now

    def enqueue_behind(self, exchange: Exchange) -> None:
        """
        Append `exchange` to a queue that is not empty.

        If the head of the queue is a retry, servers that it excludes may be free,
        and the queue is searched for requests that can use them.
        """
        self.enqueue(exchange)
        if any(head.attempted_servers for head in islice(self.queued_at, 1)):
            self._dispatch_queued()

    def remove(self, exchange: Exchange) -> None:
        """Remove `exchange` if it is queued."""
        if self.queued_at.pop(exchange, None) is not None:
            self._record_stay(exchange)

    def server_released(self, server: Server) -> None:
        """Send the requests that have been queued longest to `server`, up to its capacity."""
        if self._dequeuing or not self._connections.open:
            return
        # Sending may fail at once, which releases the server again: no recursion.
        self._dequeuing = True
        try:
            for exchange in self:
                if server.in_flight >= server.max_in_flight or not self._is_usable(server):
                    break
                if server not in exchange.attempted_servers and exchange in self.queued_at:
                    self.remove(exchange)
                    self._send(exchange, server, "first server with free capacity")
        finally:
            self._dequeuing = False

    def sweep(self, now: float) -> None:
        """Use servers that have become available otherwise, then fail expired requests."""
        self._dispatch_queued()
        for exchange in self._pop_expired(now):
            if not exchange.finished:
                self._fail(exchange)

    def _record_stay(self, exchange: Exchange) -> None:
        """Add the time since the request or its last attempt has ended to its timeline."""
        now = self.perf_counter()
        seconds = now - exchange.attempt_at
        exchange.queue_seconds += seconds
        self.samples.append(seconds)
        exchange.attempt_at = now

    def _pop_expired(self, now: float) -> list[Exchange]:
        """Remove the requests whose timeout has expired, and return them."""
        expired = []
        for exchange, queued_at in self.queued_at.items():
            if now - queued_at < self.settings.timeout:
                break
            expired.append(exchange)
        for exchange in expired:
            self.remove(exchange)
        return expired

    def _dispatch_queued(self) -> None:
        """Send queued requests, in order, to servers that have capacity."""
        skipped = 0
        for exchange in self:
            if exchange not in self.queued_at:
                # It finished while a request before it was sent.
                continue
            selection = self._find_free_server(exchange)
            if selection is not None:
                self.remove(exchange)
                self._send(exchange, *selection)
            elif not exchange.attempted_servers or skipped == MAX_QUEUE_SCAN:
                # A first attempt excludes no server: the requests behind it cannot
                # find one either.
                break
            else:
                skipped += 1

    def _find_free_server(self, exchange: Exchange) -> Selection[Server] | None:
        """The best usable server with capacity that `exchange` has not tried."""
        for server, reason in self._selector.candidates(exchange.client):
            free = (
                server.in_flight < server.max_in_flight and server not in exchange.attempted_servers
            )
            if free and self._is_usable(server):
                return server, reason
        return None

    def _is_usable(self, server: Server) -> bool:
        """Whether `server` may get queued requests: it is available, or no server is."""
        if server.available:
            return True
        tiers = self._selector.server_set.tiers
        return server.eligible and not tiers[Priority.PRIMARY] and not tiers[Priority.BACKUP]
