"""The queue of finished traces, its thread, and the export on real sockets."""

from __future__ import annotations

import logging
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from attrs import evolve
from opentelemetry.sdk.resources import Resource
from twisted.internet.task import Clock
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import TracingSettings
from balancebeam.net.ticker import Ticker
from balancebeam.observability.otlp import OtlpExporter, build_spans
from balancebeam.observability.trace_export import load_exporter
from balancebeam.observability.tracing import (
    FLUSH_TIMEOUT,
    FinishedTrace,
    SpanCounts,
    TracingService,
)
from balancebeam.proxy.timeline import Try
from balancebeam.proxy.tracing import RequestTrace, Tracer
from tests.helpers.collector import UNAVAILABLE, Collector, attributes
from tests.helpers.processes import free_port, wait_until

TRACER = Tracer(1.0, False, random.Random(1), lambda exchange, trace: None)


def finished(**changes: Any) -> FinishedTrace:
    """A request with a failed attempt and a good one."""
    trace = RequestTrace(TRACER, 0xABC, 0xDEF, 1, b"a=1", 0x11, [0x21, 0x22], [10.5])
    values: dict[str, Any] = {
        "trace": trace,
        "wall_time": 1_000_000_000_000,
        "started_at": 10.0,
        "finished_at": 12.0,
        "attempt_at": 11.0,
        "connect_seconds": 0.25,
        "last_try_failed": False,
        "tries": (
            Try("10.0.0.1:80", "turn", "reset the connection: broken", 0.25),
            Try("10.0.0.2:80", "turn", "200", 1.25),
        ),
        "phases": {"queue": None, "connect": 0.25, "first_byte": 0.5, "body": 0.5},
        "ended": "complete",
        "method": b"GET",
        "target": b"/a?secret=1",
        "host": b"[::1]:8080",
        "http_version": "1.1",
        "secure": True,
        "status": 200,
        "client": "192.0.2.1",
        "user_agent": b"curl/8",
        "pool": "app",
        "frontend": "web",
        "route": "/a",
    }
    return FinishedTrace(**{**values, **changes})


class Reactor(Clock):
    """A clock that runs calls from threads when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.from_threads: list[tuple[Any, ...]] = []

    def callFromThread(self, *call: Any) -> None:
        """Keep a call."""
        self.from_threads.append(call)

    def run_calls(self) -> bool:
        """Run the calls; return whether there were any."""
        calls, self.from_threads = self.from_threads, []
        for function, *arguments in calls:
            function(*arguments)
        return bool(calls)


class FakeExporter:
    """Records batches; the test decides how each export ends."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.problem: str | Exception = ""
        self.blocked = threading.Event()
        self.blocked.set()
        self.aborts = 0

    def export(self, traces: Sequence[FinishedTrace]) -> str:
        """Wait until the test allows the export."""
        self.batches.append(len(traces))
        self.blocked.wait()
        if isinstance(self.problem, Exception):
            raise self.problem
        return self.problem

    def abort(self) -> None:
        """End a blocked export."""
        self.aborts += 1
        self.blocked.set()


def exchange() -> Any:
    """A finished exchange."""
    head = SimpleNamespace(method=b"GET", target=b"/", host=None)
    return SimpleNamespace(
        head=head,
        http_version="1.1",
        route=None,
        upstream_head=b"GET / HTTP/1.1\r\n\r\n",
        server=None,
        last_server=None,
        tries=(),
        last_try_failed=False,
        received_at=1.0,
        finished_at=2.0,
        attempt_at=1.0,
        first_byte_at=0.0,
        connect_seconds=None,
        queue_seconds=0.0,
        outcome="no-server",
        status=503,
        client_aborted=False,
        downstream_response_started=True,
        failure=None,
        tls=None,
        client="unknown",
        dispatcher=SimpleNamespace(pool_name="app"),
    )


class ServiceTests(SynchronousTestCase):
    """The service with an exporter under control of the test."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.ticker = Ticker(self.reactor)
        self.ticker.startService()
        self.counts = SpanCounts()
        self.exporter = FakeExporter()
        self.service = TracingService(
            TracingSettings(queue_size=2),
            *(lambda: self.exporter, self.counts, self.reactor, self.ticker, random.Random(1)),
        )
        self.logged: list[LogEvent] = []
        observer: Any = self.observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.service.startService()
        self.addCleanup(self.stop)

    def observe(self, event: LogEvent) -> None:
        """Keep the events about the collector."""
        if "collector" in (event.get("log_format") or ""):
            self.logged.append(event)

    def stop(self) -> None:
        """Stop the service, if a test has not; its thread must end."""
        if self.service.running:
            stopped = self.service.stopService()
            self.exporter.blocked.set()
            wait_until(lambda: self.reactor.run_calls() and stopped.called)
        self.ticker.stopService()
        wait_until(lambda: "tracing" not in [item.name for item in threading.enumerate()])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def finish(self, count: int = 1) -> None:
        """Finish this many requests without attempts, of one span each."""
        for _ in range(count):
            trace = RequestTrace(TRACER, 1, 0, 1, b"", 2, [3])
            self.service.tracer.finished(exchange(), trace)

    def sweep(self, condition: Callable[[], object]) -> None:
        """Let the thread export, until the condition holds."""
        self.reactor.advance(1.0)
        self.reactor.advance(1.0)
        wait_until(lambda: (self.reactor.run_calls(), condition())[1])

    def counted(self, total: int) -> bool:
        """Whether this many spans were exported or lost."""
        return self.counts.exported + self.counts.lost == total

    def test_exported(self) -> None:
        """Finished traces are exported together with the next sweep."""
        self.finish(2)
        self.assertEqual(self.exporter.batches, [])
        self.sweep(lambda: self.counts == SpanCounts(2, 0))
        self.assertEqual(self.exporter.batches, [2])

    def test_full_queue(self) -> None:
        """What does not fit into the queue is lost and counted, while an export blocks."""
        self.exporter.blocked.clear()
        self.finish()
        self.sweep(lambda: self.exporter.batches)
        self.finish(5)
        self.assertEqual(self.counts, SpanCounts(0, 3))
        self.exporter.blocked.set()
        self.sweep(lambda: self.counts == SpanCounts(3, 3))

    def test_state_changes_are_logged_once(self) -> None:
        """A failing collector costs lost spans, and a line when its state changes."""
        for problem in ("refused", "refused", RuntimeError("bug"), "", "", "refused"):
            self.exporter.problem = problem
            done = len(self.exporter.batches) + 1
            total = self.counts.exported + self.counts.lost + 1
            self.finish()
            self.sweep(partial(self.counted, total))
            self.assertEqual(len(self.exporter.batches), done)
        self.assertEqual(self.counts, SpanCounts(2, 4))
        levels = [event["log_level"].name for event in self.logged]
        self.assertEqual(levels, ["warn", "info", "warn"])
        self.assertEqual(self.logged[0]["reason"], "refused")

    def test_stop_sends_the_queue(self) -> None:
        """A stop sends the rest of the queue, and later requests are lost."""
        self.finish(2)
        stopped = self.service.stopService()
        wait_until(lambda: self.reactor.run_calls() and stopped.called)
        self.assertEqual(self.counts, SpanCounts(2, 0))
        self.finish()
        self.assertEqual(self.counts, SpanCounts(2, 1))

    def test_stop_gives_up(self) -> None:
        """A stop interrupts a blocked export after a time limit; everything unsent is lost."""
        self.exporter.blocked.clear()
        self.finish()
        self.sweep(lambda: self.exporter.batches)
        self.finish(2)
        self.exporter.problem = "aborted"
        stopped = self.service.stopService()
        self.reactor.advance(FLUSH_TIMEOUT - 0.1)
        self.assertNoResult(stopped)
        self.reactor.advance(0.1)
        self.successResultOf(stopped)
        self.assertGreaterEqual(self.exporter.aborts, 1)
        wait_until(lambda: (self.reactor.run_calls(), self.counts == SpanCounts(0, 3))[1])
        self.assertEqual(self.exporter.batches, [1])

    def test_restart(self) -> None:
        """A stopped service can be started again."""
        stopped = self.service.stopService()
        wait_until(lambda: self.reactor.run_calls() and stopped.called)
        self.service.startService()
        self.finish()
        self.sweep(lambda: self.counts == SpanCounts(1, 0))


class SpanTests(SynchronousTestCase):
    """The spans of a trace."""

    def spans(self, **changes: Any) -> list[Any]:
        """The spans of `finished`."""
        return list(build_spans(finished(**changes), Resource({})))

    def test_parents_and_times(self) -> None:
        """The request is the child of the client's span and the parent of its attempts."""
        request, first, second = self.spans()
        self.assertEqual(
            [(span.context.span_id, span.parent.span_id) for span in (request, first, second)],
            [(0x11, 0xDEF), (0x21, 0x11), (0x22, 0x11)],
        )
        self.assertEqual({span.context.trace_id for span in (request, first, second)}, {0xABC})
        self.assertTrue(request.parent.is_remote)
        seconds = [
            ((span.start_time - 998e9) / 1e9, (span.end_time - 998e9) / 1e9)
            for span in (request, first, second)
        ]
        self.assertEqual(seconds, [(0.0, 2.0), (0.25, 0.5), (0.75, 2.0)])
        self.assertEqual(dict(request.context.trace_state), {"a": "1"})
        self.assertEqual([span.kind.name for span in (request, first)], ["SERVER", "CLIENT"])

    def test_attributes(self) -> None:
        """Attributes follow the semantic conventions; the query is left out."""
        request, first, second = self.spans()
        self.assertEqual(request.name, "GET /a")
        for name, value in {
            "http.request.method": "GET",
            "url.path": "/a",
            "url.scheme": "https",
            "http.response.status_code": 200,
            "server.address": "::1",
            "server.port": 8080,
            "client.address": "192.0.2.1",
            "user_agent.original": "curl/8",
            "network.protocol.version": "1.1",
            "balancebeam.pool": "app",
            "balancebeam.route": "/a",
            "balancebeam.ended": "complete",
            "balancebeam.connect_seconds": 0.25,
        }.items():
            self.assertEqual(request.attributes[name], value, name)
        self.assertNotIn("balancebeam.queue_seconds", request.attributes)
        self.assertNotIn("secret", repr([dict(span.attributes) for span in self.spans()]))
        self.assertEqual(first.attributes["error.type"], "reset the connection")
        self.assertEqual(first.status.status_code.name, "ERROR")
        self.assertEqual(second.attributes["http.request.resend_count"], 1)
        self.assertEqual(second.attributes["server.address"], "10.0.0.2")
        self.assertNotIn("error.type", second.attributes)

    def test_errors(self) -> None:
        """Server errors and failures are errors of the request; client errors are not."""
        cases: dict[tuple[str, int], str | None] = {
            ("complete", 404): None,
            ("client", 0): None,
            ("limit", 429): None,
        }
        cases |= {("complete", 500): "500", ("timeout", 504): "timeout", ("server", 200): "server"}
        for (outcome, status), expected in cases.items():
            request = self.spans(ended=outcome, status=status)[0]
            self.assertEqual(request.attributes.get("error.type"), expected)
            self.assertEqual(request.status.is_ok, expected is None)

    def test_unusual_requests(self) -> None:
        """Unknown methods, hosts and bytes that are no text do not fail."""
        (request,) = self.spans(
            method=b"BREW",
            host=b"",
            tries=(),
            route="",
            target=b"*",
            user_agent=b"\xff",
            trace=evolve(finished().trace, state=b"\xff=", parent_id=0),
        )
        self.assertEqual(request.name, "HTTP")
        self.assertEqual(request.attributes["http.request.method_original"], "BREW")
        self.assertIsNone(request.parent)
        unix = self.spans(tries=(Try("unix:/run/a.sock:1", "turn", "404", 1.0),))[1]
        self.assertEqual(unix.attributes["server.address"], "unix:/run/a.sock:1")
        self.assertEqual(unix.attributes["error.type"], "404")


class ExporterTests(SynchronousTestCase):
    """The exporter and collectors on real sockets."""

    def export(self, endpoint: str, timeout: float = 5.0, **settings: Any) -> str:
        """Export one trace; return the problem. The library must log nothing."""
        exporter = OtlpExporter(TracingSettings(endpoint, timeout=timeout, **settings))
        try:
            with patch.object(logging.Logger, "callHandlers") as handlers:
                problem = exporter.export([finished()])
            handlers.assert_not_called()
        finally:
            exporter.abort()
            exporter.abort()
        return problem

    def test_exported(self) -> None:
        """A collector receives the spans, with the configured fields."""
        with Collector() as collector:
            fields = (("Authorization", "Bearer a b"),)
            self.assertEqual(self.export(collector.endpoint, headers=fields), "")
        self.assertEqual(len(collector.spans), 3)
        self.assertIn(b"\r\nauthorization: bearer a b\r\n", collector.heads[0].lower())
        self.assertTrue(collector.heads[0].startswith(b"POST /v1/traces HTTP/1.1\r\n"))
        self.assertEqual(attributes(collector.spans[0])["http.response.status_code"], 200)

    def test_failures(self) -> None:
        """Errors, garbage and no response at all are problems, within the timeout."""
        for response in (
            *(UNAVAILABLE, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
            *(b"", b"garbage\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
            b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        ):
            with Collector(response) as collector:
                start = time.monotonic()
                self.assertNotEqual(self.export(collector.endpoint, 0.3), "", response[:30])
                self.assertLess(time.monotonic() - start, 5.0)
        self.assertIn("refused", self.export(f"http://127.0.0.1:{free_port()}", 0.3).lower())
        self.assertNotEqual(self.export("http://[::1%lo]:1/", 0.3), "")

    def test_large_response(self) -> None:
        """Of a response no more than 64 KiB are read."""

        def flood(client: socket.socket) -> None:
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while True:
                client.sendall(bytes(65536))

        with Collector() as collector:
            collector.respond = flood
            start = time.monotonic()
            self.export(collector.endpoint, 3.0)
            self.assertLess(time.monotonic() - start, 2.5)

    def test_slow_response(self) -> None:
        """A collector that sends a byte now and then is given up after the timeout."""

        def drip(client: socket.socket) -> None:
            for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"X: a\r\n" * 100:
                client.sendall(bytes((byte,)))
                time.sleep(0.1)

        with Collector() as collector:
            collector.respond = drip
            start = time.monotonic()
            self.assertIn("timeout", self.export(collector.endpoint, 0.5))
            self.assertLess(time.monotonic() - start, 5.0)

    def assert_abort_ends_export(self, collector: Collector) -> None:
        """An export that waits ends as soon as it is aborted."""
        exporter = OtlpExporter(TracingSettings(collector.endpoint, timeout=60.0))
        problems: list[str] = []
        thread = threading.Thread(target=lambda: problems.append(exporter.export([finished()])))
        thread.start()
        wait_until(lambda: collector.heads)
        exporter.abort()
        thread.join(10.0)
        self.assertFalse(thread.is_alive())
        self.assertNotEqual(problems, [""])

    def test_abort(self) -> None:
        """An abort ends an export at once: one that waits for a response, and a retry."""
        with Collector() as collector:
            collector.respond = lambda client: (client.recv(1), None)[1]
            self.assert_abort_ends_export(collector)
        with Collector(UNAVAILABLE) as collector:
            self.assert_abort_ends_export(collector)


class LoadingTests(SynchronousTestCase):
    """The late import of the library."""

    def test_missing_library(self) -> None:
        """Without the extra, the error has the command that installs it."""
        for library in ("opentelemetry", "requests"):
            modules = {name: None for name in sys.modules if name.split(".")[0] == library}
            modules[library] = None
            with patch.dict(sys.modules, modules):
                sys.modules.pop("balancebeam.observability.otlp", None)
                sys.modules.pop("balancebeam.observability.collector_adapter", None)
                error = self.assertRaises(ConfigError, load_exporter, TracingSettings())
            self.assertIn("pip install 'balancebeam[otlp]'", str(error))

    def test_program_needs_no_library(self) -> None:
        """Without [tracing], the library is not imported."""
        program = (
            "import sys\n"
            "sys.modules.update(dict.fromkeys(('opentelemetry', 'requests')))\n"
            "import balancebeam.server.balancer, balancebeam.process.options\n"
        )
        done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
        self.assertEqual(done.returncode, 0)
