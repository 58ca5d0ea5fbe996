"""
The queue of finished traces, and the thread that exports them.

A finished request appends a tuple to a bounded queue. The OpenTelemetry library blocks, so a
thread of its own turns the tuples into spans and sends them. What does not fit into the queue, or
cannot be sent, is counted as lost; requests never wait.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Protocol

from attrs import define
from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from balancebeam.core.settings import TracingSettings
from balancebeam.net.ticker import Ticker
from balancebeam.observability.access_log_records import header_value
from balancebeam.proxy.timeline import Try, all_tries, ended, phases
from balancebeam.proxy.tracing import RandomBits, RequestTrace, Tracer

# Requests of one export. Their conversion holds the interpreter lock, for some 10 ms in slices
# of 5 ms, in which no request is processed.
MAX_BATCH = 64

# Seconds between two exports while few requests finish.
EXPORT_INTERVAL = 1.0

# Seconds after a stop in which the queue is still sent.
FLUSH_TIMEOUT = 2.0

# Bytes of a path, a Host field and a user agent that are kept.
MAX_TEXT = 1024


class FinishedTrace(NamedTuple):
    """
    The parts of a finished exchange that its spans need. Times are seconds of `perf_counter`.

    Attributes:
        trace: The ids.
        wall_time: When it finished, in nanoseconds since the epoch.
        started_at: When it was received.
        finished_at: When it ended.
        attempt_at: When the last attempt was sent.
        connect_seconds: Duration of its connection attempt; `None` without one.
        last_try_failed: Whether the last attempt has failed, so that nothing followed.
        tries: All attempts.
        phases: See `timeline.phases`.
        ended: See `timeline.ended`.
        method: The method.
        target: The target.
        host: The Host field.
        http_version: The version of the request.
        secure: Whether the client uses TLS.
        status: The status of the response, 0 without one.
        client: The address of the client.
        user_agent: User-Agent, empty without one.
        pool: The name of the pool.
        frontend: The name of the frontend.
        route: The name of the route.
    """

    trace: RequestTrace
    wall_time: int
    started_at: float
    finished_at: float
    attempt_at: float
    connect_seconds: float | None
    last_try_failed: bool
    tries: tuple[Try, ...]
    phases: Any
    ended: str
    method: bytes
    target: bytes
    host: bytes
    http_version: str
    secure: bool
    status: int
    client: str
    user_agent: bytes
    pool: str
    frontend: str
    route: str

    @property
    def span_count(self) -> int:
        """The number of spans: one for the request, and one for each attempt."""
        return 1 + len(self.tries)


class SpanExporter(Protocol):
    """Sends spans. All methods but `abort` are called in the thread of the exporter."""

    def export(self, traces: Sequence[FinishedTrace]) -> str:
        """Send the spans of `traces`, and block; return why that failed, or an empty text."""

    def abort(self) -> None:
        """Let `export` fail soon, from another thread; no other call follows."""


@define
class SpanCounts:
    """
    Counters of spans, which a reload keeps.

    Attributes:
        exported: Spans that the collector has accepted.
        lost: Spans that it has not, or that did not fit into the queue.
    """

    exported: int = 0
    lost: int = 0


class TracingService(service.Service):
    """
    Exports the spans of finished requests.

    Attributes:
        settings: The settings.
        tracer: Traces requests; a part of the forwarding policy of each HTTP frontend.
        reachable: Whether the last export succeeded; `None` before the first one.
    """

    _log = Logger()

    name = "tracing"

    def __init__(
        self,
        settings: TracingSettings,
        build_exporter: Callable[[], SpanExporter],
        counts: SpanCounts,
        reactor: Any,
        ticker: Ticker,
        random: RandomBits,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        """
        Create the service; its thread runs while the service does.

        Args:
            settings: The settings.
            build_exporter: Returns an exporter, which is used until the service stops.
            counts: Counts the spans.
            reactor: Receives the results of the thread, and limits the stop.
            ticker: Triggers the exports.
            random: The source of ids.
            clock: Returns nanoseconds since the epoch.
        """
        self.settings = settings
        self.tracer = Tracer(
            settings.sample_ratio, settings.trusted_parents_only, random, self.finished
        )
        self.reachable: bool | None = None
        self._build_exporter = build_exporter
        self._exporter: SpanExporter | None = None
        self._counts = counts
        self._reactor = reactor
        self._ticker = ticker
        self._clock = clock
        self._queue: deque[FinishedTrace] = deque()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._accepting = False
        # Seconds of `time.monotonic` after which a stopping thread begins no other export.
        self._stop_at: float | None = None
        self._last_export = float("-inf")
        self._stopped: Deferred[None] | None = None
        self._deadline: IDelayedCall | None = None

    # Called on the reactor thread.

    def finished(self, exchange: Any, trace: RequestTrace) -> None:
        """Enqueue the spans of a finished exchange."""
        tries = all_tries(exchange)
        if not self._accepting or len(self._queue) >= self.settings.queue_size:
            self._counts.lost += 1 + len(tries)
            return
        head, route, upstream_head = exchange.head, exchange.route, exchange.upstream_head
        finished_at = exchange.finished_at
        self._queue.append(
            FinishedTrace(
                trace,
                self._clock(),
                # 0 if the client disconnected while the body was awaited.
                exchange.received_at or finished_at,
                finished_at,
                exchange.attempt_at,
                exchange.connect_seconds,
                exchange.last_try_failed,
                tries,
                phases(exchange),
                ended(exchange),
                head.method[:MAX_TEXT],
                head.target[:MAX_TEXT],
                (head.host or b"")[:MAX_TEXT],
                exchange.http_version,
                exchange.tls is not None,
                exchange.status,
                exchange.client,
                header_value(upstream_head, upstream_head.lower(), b"\r\nuser-agent:")[:MAX_TEXT],
                exchange.dispatcher.pool_name,
                "" if route is None else route.frontend,
                "" if route is None else route.name,
            )
        )

    def startService(self) -> None:
        super().startService()
        self._accepting = True
        self._stop_at = None
        self._wake.clear()
        self._ticker.add(self._sweep)
        # Not a daemon: the process ends after a clean stop, which `_abandon` limits.
        exporter = self._exporter = self._build_exporter()
        self._thread = threading.Thread(
            target=self._run, args=(exporter,), name="tracing", daemon=False
        )
        self._thread.start()

    def stopService(self) -> Deferred[None]:
        """Send what is in the queue, for at most `FLUSH_TIMEOUT` seconds."""
        super().stopService()
        self._accepting = False
        self._ticker.remove(self._sweep)
        stopped = self._stopped = Deferred()
        self._deadline = self._reactor.callLater(FLUSH_TIMEOUT, self._abandon)
        self._stop_at = time.monotonic() + FLUSH_TIMEOUT
        self._wake.set()
        return stopped

    def _sweep(self, now: float) -> None:
        if self._queue and now - self._last_export >= EXPORT_INTERVAL:
            self._last_export = now
            self._wake.set()

    def _abandon(self) -> None:
        """Give up the rest of the queue: the collector is too slow."""
        self._deadline = None
        self._stop_at = 0.0
        if self._exporter is not None:
            self._exporter.abort()
        self._finish_stop()

    def _finish_stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        while self._queue:
            self._counts.lost += self._queue.popleft().span_count
        stopped, self._stopped = self._stopped, None
        if stopped is not None:
            stopped.callback(None)

    def _exported(self, span_count: int, problem: str) -> None:
        """Count the spans of one export, and log a change of the collector's state."""
        if problem:
            self._counts.lost += span_count
        else:
            self._counts.exported += span_count
        reachable = not problem
        if reachable is self.reachable:
            return
        if not reachable:
            self._log.warn(
                "trace collector {endpoint} unreachable: {reason}",
                endpoint=self.settings.endpoint,
                reason=problem,
            )
        elif self.reachable is not None:
            self._log.info(
                "trace collector {endpoint} reachable again", endpoint=self.settings.endpoint
            )
        self.reachable = reachable

    # Called in the thread. A deque may be used by two threads at once.

    def _run(self, exporter: SpanExporter) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            while self._export_batch(exporter):
                pass
            if self._stop_at is not None:
                break
        exporter.abort()
        self._reactor.callFromThread(self._finish_stop)

    def _export_batch(self, exporter: SpanExporter) -> bool:
        """Export the oldest traces; return whether there were any."""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            return False
        batch: list[FinishedTrace] = []
        try:
            while len(batch) < MAX_BATCH:
                batch.append(self._queue.popleft())
        except IndexError:
            # The queue is empty.
            if not batch:
                return False
        try:
            problem = exporter.export(batch)
        except Exception as error:
            # A fault of the library must not end the thread.
            problem = f"{type(error).__name__}: {error}"
        count = sum(trace.span_count for trace in batch)
        self._reactor.callFromThread(self._exported, count, problem)
        return True
