"""
Recent requests: what the admin API shows of finished requests, in bounded memory.

A tuple is kept of every request, and turned into an object only on request. It has neither
header fields nor bodies, so `Authorization` and `Cookie` are never kept. Failed and slow
requests are kept longer than others.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any, Callable

from attrs import Factory, define, frozen

from balancebeam.core.failures import UpstreamFailure
from balancebeam.net.ticker import Ticker
from balancebeam.observability.access_log_records import CLIENT_CLOSED_REQUEST
from balancebeam.observability.request_ids import made_id, sent_id
from balancebeam.observability.timestamps import utc_time
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.proxy.timeline import Try, all_tries, duration, ended, phases

# Requests that are kept: the last seconds of traffic, and what an operator searches for.
MAX_RECENT = 1000
MAX_FAILED = 200
MAX_SLOW = 100

# Seconds after which a slow request is forgotten: otherwise the slowest requests since the
# start would hide slow requests of the present.
SLOW_AGE = 600.0

# Bytes of a method, a target, a Host field and an id that are kept.
MAX_METHOD = 32
MAX_TARGET = 1024
MAX_HOST = 256
MAX_ID = 200

_FAILED_STATUSES = frozenset((502, 503, 504))

# Seconds by which the clocks differ when the time of day was changed. Less is the inaccuracy
# of reading two clocks, which must not change the times of requests.
_CLOCK_STEP = 0.5

# Seconds between two searches for slow requests to forget.
_SWEEP_INTERVAL = 10.0


@frozen
class _Server:
    name: str


@define
class _Row:
    """
    The parts of a finished exchange that are kept; a `Timeline`. See `Exchange`.

    `request_id` is `None` for an id made for the log.
    """

    frontend: str
    request_id: str | None
    client: str
    method: bytes
    host: bytes | None
    target: bytes
    route: str
    pool: str
    status: int
    bytes_sent: int
    server_name: str | None
    received_at: float
    finished_at: float
    selection_reason: str
    # Not kept of an uneventful request.
    queue_seconds: float = 0.0
    connect_seconds: float | None = None
    attempt_at: float = Factory(lambda row: row.received_at, takes_self=True)
    first_byte_at: float = Factory(lambda row: row.finished_at, takes_self=True)
    uneventful: bool = True
    # Not kept of a request without a failure.
    truncated: bool = False
    client_aborted: bool = False
    tries: tuple[Try, ...] = ()
    last_try_failed: bool = False
    outcome: str = ""
    failure: UpstreamFailure | None = None
    downstream_response_started: bool = True

    @property
    def server(self) -> None:
        """A finished exchange is in flight at no server."""
        return None

    @property
    def last_server(self) -> _Server | None:
        """The server of the last attempt."""
        return None if self.server_name is None else _Server(self.server_name)

    @property
    def failed(self) -> bool:
        """Whether the request is shown as failed."""
        return self.truncated or self.status in _FAILED_STATUSES

    def as_dict(self, time_offset: float) -> dict[str, Any]:
        """
        Return the row as the admin API shows it.

        Args:
            time_offset: Seconds since the epoch at which `received_at` would be 0.
        """
        return {
            "id": made_id(self.received_at) if self.request_id is None else self.request_id,
            "time": utc_time(time_offset + self.finished_at),
            "client": self.client,
            "method": _text(self.method),
            "host": _text(self.host),
            "target": _text(self.target),
            "frontend": self.frontend,
            "route": self.route,
            "pool": self.pool or None,
            "tries": [
                {
                    "server": item.server,
                    "reason": item.reason,
                    "result": item.result,
                    "seconds": round(item.seconds, 6),
                }
                for item in all_tries(self)
            ],
            "phases": {
                name: None if seconds is None else round(max(0.0, seconds), 6)
                for name, seconds in phases(self).items()
            },
            # A TCP connection has no status.
            "status": self.status
            or (CLIENT_CLOSED_REQUEST if self.method and self.client_aborted else None),
            "bytes": self.bytes_sent,
            "ended": ended(self),
        }


# The arguments of a `_Row`: a tuple is built in a third of the time of an object.
_Values = tuple[Any, ...]


class RecentRequests:
    """
    The most recent, the failed and the slowest requests of a process.

    Attributes:
        enabled: Whether requests are kept: only with the admin API, which shows them.
        slow_threshold: Requests that take more seconds are among the slowest ones.
    """

    def __init__(
        self, ticker: Ticker, perf_counter: Callable[[], float] = time.perf_counter
    ) -> None:
        """
        Create the store.

        Args:
            ticker: The time of day, and the trigger for forgetting slow requests.
            perf_counter: The clock of timelines.
        """
        self.enabled = False
        self.slow_threshold = 0.0
        self._ticker = ticker
        self._perf_counter = perf_counter
        self._recent: deque[_Values] = deque(maxlen=MAX_RECENT)
        self._failed: deque[_Values] = deque(maxlen=MAX_FAILED)
        # A heap by duration; the number makes entries of the same duration comparable.
        self._slow: list[tuple[float, int, float, _Values]] = []
        self._numbers = count()
        self._last_sweep = 0.0
        # The time of day at which the clock of timelines was 0.
        self._time_offset = 0.0
        self.add = self._recent.append
        self.add_failed = self._failed.append
        ticker.add(self.sweep)

    def enable(self, enabled: bool) -> None:
        """Keep requests from now on, or forget all of them and keep none."""
        self.enabled = enabled
        if not enabled:
            self._recent.clear()
            self._failed.clear()
            self._slow.clear()
            self.slow_threshold = 0.0

    def observer(
        self, frontend: str, mode: str, has_request_id: bool
    ) -> RecentHttpRequests | RecentTcpConnections | None:
        """
        Return the observer of a frontend; `None` unless enabled.

        Args:
            frontend: The name of the frontend.
            mode: "http" or "tcp".
            has_request_id: Whether the frontend keeps or makes X-Request-Id.
        """
        if not self.enabled:
            return None
        if mode == "tcp":
            return RecentTcpConnections(self, frontend)
        return RecentHttpRequests(self, frontend, has_request_id)

    def add_slow(self, seconds: float, finished_at: float, values: _Values) -> None:
        """Keep a request among the slowest ones."""
        slow = self._slow
        entry = (seconds, next(self._numbers), finished_at, values)
        if len(slow) < MAX_SLOW:
            heapq.heappush(slow, entry)
        else:
            heapq.heappushpop(slow, entry)
        if len(slow) == MAX_SLOW:
            self.slow_threshold = slow[0][0]

    def add_rejected(self, frontend: str, request: RejectedRequest) -> None:
        """
        Keep a request that could not be parsed.

        The line of the request is shown as its target unless it has three words.
        """
        words = request.line.split(b" ")
        method, target = words[:2] if len(words) == 3 else (b"", request.line)
        now = self._perf_counter()
        self.add(
            (
                *(frontend, None, request.client, method[:MAX_METHOD], None, target[:MAX_TARGET]),
                *("", "", request.status, request.body_bytes_sent, None),
                *(now, now, "", 0.0, None, now, 0.0),
                *(False, False, False, (), False, request.ended),
            )
        )

    def select(
        self, request_id: str | None, failed: bool, slow: bool, limit: int
    ) -> Iterator[dict[str, Any]]:
        """
        Return requests as the admin API shows them, each made when it is read.

        Args:
            request_id: Only requests with this id.
            failed: Only failed requests: 502, 503, 504 or truncated.
            slow: Only the slowest requests, the slowest first. Otherwise the newest are first.
            limit: The maximum number of requests.
        """
        offset = self._ticker.wall_time() - self._perf_counter()
        if abs(offset - self._time_offset) > _CLOCK_STEP:
            self._time_offset = offset
        rows = (_Row(*values) for values in self._candidates(slow))
        selected = []
        for row in rows:
            if failed and not row.failed:
                continue
            if request_id is None or request_id == (row.request_id or made_id(row.received_at)):
                selected.append(row)
        selected.sort(key=duration if slow else _finished_at, reverse=True)
        return (row.as_dict(self._time_offset) for row in selected[:limit])

    def _candidates(self, slow: bool) -> Iterable[_Values]:
        """Every request that is kept, once; or only the slowest ones."""
        slowest = [entry[-1] for entry in self._slow]
        if slow:
            return slowest
        return {id(values): values for values in (*self._recent, *self._failed, *slowest)}.values()

    def sweep(self, now: float) -> None:
        """Forget the slow requests that are too old."""
        if now - self._last_sweep < _SWEEP_INTERVAL:
            return
        self._last_sweep = now
        oldest = self._perf_counter() - SLOW_AGE
        kept = [entry for entry in self._slow if entry[2] >= oldest]
        if len(kept) < len(self._slow):
            heapq.heapify(kept)
            self._slow = kept
            self.slow_threshold = 0.0


class RecentHttpRequests:
    """The observer of an HTTP frontend."""

    def __init__(self, store: RecentRequests, frontend: str, has_request_id: bool) -> None:
        self._store = store
        self._frontend = frontend
        self._has_request_id = has_request_id
        self._add = store.add

    # `Any` because the dispatcher notifies observers with the base class of exchanges.
    def exchange_finished(self, exchange: Any) -> None:
        """Keep a finished request."""
        head, route, server = exchange.head, exchange.route, exchange.last_server
        method, host, target = head.method, head.host, head.target
        if len(exchange.upstream_head) > MAX_TARGET:
            # Otherwise all three are shorter.
            method, target = method[:MAX_METHOD], target[:MAX_TARGET]
            host = host and host[:MAX_HOST]
        status, received_at = exchange.status, exchange.received_at
        finished_at = exchange.finished_at
        values: _Values = (
            self._frontend,
            _sent_id(exchange) if self._has_request_id else None,
            exchange.client,
            method,
            host,
            target,
            "" if route is None else route.name,
            exchange.dispatcher.pool_name,
            status,
            exchange.body_bytes_sent,
            None if server is None else server.name,
            received_at,
            finished_at,
            exchange.selection_reason,
        )
        if not exchange.uneventful:
            values += _phase_values(exchange)
            if exchange.outcome or exchange.tries or exchange.client_aborted:
                values += _failure_values(exchange)
                if exchange.truncated or status in _FAILED_STATUSES:
                    self._store.add_failed(values)
            elif status in _FAILED_STATUSES:
                self._store.add_failed(values)
        elif status in _FAILED_STATUSES:
            self._store.add_failed(values)
        self._add(values)
        # The duration of a tunnel is that of its use.
        if finished_at - received_at > self._store.slow_threshold and status != 101 and received_at:
            self._store.add_slow(finished_at - received_at, finished_at, values)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Keep a request that could not be parsed."""
        self._store.add_rejected(self._frontend, request)


def _phase_values(exchange: Any) -> _Values:
    """The phases of a `_Row`, for a request that is not uneventful."""
    return (
        *(exchange.queue_seconds, exchange.connect_seconds),
        *(exchange.attempt_at, exchange.first_byte_at, False),
    )


def _failure_values(exchange: Any) -> _Values:
    """The rest of a `_Row`, for a request with a failure."""
    return (
        *(exchange.truncated, exchange.client_aborted, exchange.tries, exchange.last_try_failed),
        *(exchange.outcome, exchange.failure, exchange.downstream_response_started),
    )


def _sent_id(exchange: Any) -> str | None:
    request_id = sent_id(exchange.upstream_head)
    return request_id and request_id[:MAX_ID]


class RecentTcpConnections:
    """The observer of a TCP frontend. The duration of a connection does not make it slow."""

    def __init__(self, store: RecentRequests, frontend: str) -> None:
        self._store = store
        self._frontend = frontend

    # `Any` as above; only TCP frontends have this observer.
    def exchange_finished(self, exchange: Any) -> None:
        """Keep a closed connection."""
        route, server = exchange.route, exchange.last_server
        values = (
            *(self._frontend, None, exchange.client, b"", None, b""),
            *("" if route is None else route.name, exchange.dispatcher.pool_name),
            *(exchange.status, exchange.bytes_from_server, None if server is None else server.name),
            *(exchange.received_at, exchange.finished_at, exchange.selection_reason),
            *_phase_values(exchange),
            *_failure_values(exchange),
        )
        self._store.add(values)
        if exchange.status in _FAILED_STATUSES:
            self._store.add_failed(values)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Do nothing: TCP connections have no requests to parse."""


def _finished_at(row: _Row) -> float:
    return row.finished_at


def _text(data: bytes | None) -> str | None:
    return data.decode("utf-8", "backslashreplace") if data else None
