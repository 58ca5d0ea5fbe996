"""
The exporter: spans of OpenTelemetry, sent as protobuf by OTLP over HTTP.

Attributes follow the semantic conventions for HTTP spans
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/), without queries of URLs.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping, Sequence

import requests
from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from balancebeam import __version__
from balancebeam.core.settings import TracingSettings
from balancebeam.observability.collector_adapter import CollectorAdapter
from balancebeam.observability.tracing import FinishedTrace
from balancebeam.proxy.timeline import CLIENT, COMPLETE, LIMIT, REFUSED, Try

Attributes = dict[str, "str | int | float"]

# "If the HTTP request method is not known to instrumentation, it MUST set [...] to _OTHER."
_METHODS = frozenset(
    ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
)

# How requests end whose failure is none of the server side.
_NO_ERRORS = (COMPLETE, CLIENT, LIMIT, REFUSED)

_SCOPE = InstrumentationScope("balancebeam", __version__)


class OtlpExporter:
    """Converts traces and sends them by the exporter of OpenTelemetry; see `SpanExporter`."""

    def __init__(self, settings: TracingSettings) -> None:
        """
        Create an exporter; no connection is made.

        Args:
            settings: The collector.
        """
        self._adapter = CollectorAdapter()
        session = requests.Session()
        # No proxies and no .netrc from the environment of the process.
        session.trust_env = False
        session.mount("http://", self._adapter)
        session.mount("https://", self._adapter)
        # Not `Resource.create`, which runs the detectors that the environment names.
        self._resource = Resource(
            {
                "service.name": settings.service_name,
                "service.version": __version__,
                "telemetry.sdk.name": "opentelemetry",
                "telemetry.sdk.language": "python",
            }
        )
        self._exporter = trace_exporter.OTLPSpanExporter(
            endpoint=settings.endpoint,
            headers=dict(settings.headers),
            timeout=settings.timeout,  # type: ignore[arg-type,unused-ignore]
            session=session,
        )
        self._shut_down = threading.Lock()

    def export(self, traces: Sequence[FinishedTrace]) -> str:
        """Send the spans of `traces`; see `SpanExporter.export`."""
        spans = [span for trace in traces for span in build_spans(trace, self._resource)]
        try:
            with _LogCapture() as messages:
                result = self._exporter.export(spans)
        except requests.RequestException as error:
            # Older versions catch connection errors only.
            return self._adapter.problem or str(error)
        if result is SpanExportResult.SUCCESS:
            return ""
        # After retries, the message of the library has no cause.
        return self._adapter.problem or (messages[-1] if messages else "export failed")

    def abort(self) -> None:
        """End the export in progress, and its wait before another attempt; idempotent."""
        self._adapter.abort()
        # The library logs a warning for a second call.
        if self._shut_down.acquire(blocking=False):
            self._exporter.shutdown()


class _LogCapture(logging.Filter):
    """
    Keeps what the library logs in this thread: it logs every batch that fails, and each retry.

    A filter of the logger of the library's module, for the time of one export: the logs of an
    application that uses the library too stay as they are.
    """

    _logger = logging.getLogger(trace_exporter.__name__)

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()
        self._messages: list[str] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the message, and drop the record."""
        if record.thread != self._thread:
            return True
        self._messages.append(record.getMessage())
        return False

    def __enter__(self) -> list[str]:
        self._logger.addFilter(self)
        return self._messages

    def __exit__(self, *arguments: object) -> None:
        self._logger.removeFilter(self)


def build_spans(trace: FinishedTrace, resource: Resource) -> Iterator[ReadableSpan]:
    """Return the span of a request, and one for each attempt."""
    ids = trace.trace
    state = TraceState.from_header([ids.state.decode("latin-1")]) if ids.state else TraceState()

    def context(span_id: int, is_remote: bool = False) -> SpanContext:
        return SpanContext(ids.trace_id, span_id, is_remote, TraceFlags(ids.flags), state)

    def nanoseconds(seconds: float) -> int:
        return trace.wall_time - round((trace.finished_at - seconds) * 1e9)

    own = context(ids.span_id)
    attributes = _request_attributes(trace)
    yield ReadableSpan(
        name=" ".join(filter(None, (_method(trace, "HTTP"), trace.route))),
        context=own,
        parent=context(ids.parent_id, True) if ids.parent_id else None,
        resource=resource,
        attributes=attributes,
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR) if "error.type" in attributes else Status(),
        start_time=nanoseconds(trace.started_at),
        end_time=trace.wall_time,
        instrumentation_scope=_SCOPE,
    )
    for number, (attempt, (start, end)) in enumerate(zip(trace.tries, _attempt_times(trace))):
        attributes = _attempt_attributes(trace, attempt, number)
        failed = "error.type" in attributes
        # A status says everything; the text of any other failure does not fit into error.type.
        text = attempt.result if failed and not attempt.result.isdigit() else None
        yield ReadableSpan(
            name=_method(trace, "HTTP"),
            context=context(ids.attempt_ids[number]),
            parent=own,
            resource=resource,
            attributes=attributes,
            kind=SpanKind.CLIENT,
            status=Status(StatusCode.ERROR, text) if failed else Status(),
            start_time=nanoseconds(start),
            end_time=nanoseconds(end),
            instrumentation_scope=_SCOPE,
        )


def _attempt_times(trace: FinishedTrace) -> Iterator[tuple[float, float]]:
    """When each attempt began and ended."""
    failed = len(trace.tries) if trace.last_try_failed else len(trace.tries) - 1
    for attempt, end in zip(trace.tries[:failed], trace.trace.attempt_ends):
        yield max(trace.started_at, end - attempt.seconds), end
    if not trace.last_try_failed:
        connected_in = trace.connect_seconds or 0.0
        yield max(trace.started_at, trace.attempt_at - connected_in), trace.finished_at


def _method(trace: FinishedTrace, other: str) -> str:
    method = trace.method.decode("latin-1")
    return method if method in _METHODS else other


def _request_attributes(trace: FinishedTrace) -> Attributes:
    attributes: Attributes = {
        "http.request.method": _method(trace, "_OTHER"),
        "url.path": _path(trace),
        "url.scheme": "https" if trace.secure else "http",
        "network.protocol.name": "http",
        "network.protocol.version": trace.http_version,
        "client.address": trace.client,
        "balancebeam.frontend": trace.frontend,
        "balancebeam.ended": trace.ended,
    }
    if attributes["http.request.method"] == "_OTHER":
        attributes["http.request.method_original"] = trace.method.decode("latin-1")
    if trace.host:
        attributes.update(_address(trace.host.decode("latin-1")))
    if trace.user_agent:
        attributes["user_agent.original"] = trace.user_agent.decode("utf-8", "replace")
    if trace.status:
        attributes["http.response.status_code"] = trace.status
    for name, text in (("pool", trace.pool), ("route", trace.route)):
        if text:
            attributes[f"balancebeam.{name}"] = text
    for name, seconds in trace.phases.items():
        if seconds is not None:
            attributes[f"balancebeam.{name}_seconds"] = max(0.0, seconds)
    if trace.ended not in _NO_ERRORS:
        attributes["error.type"] = trace.ended
    elif trace.status >= 500:
        attributes["error.type"] = str(trace.status)
    return attributes


def _attempt_attributes(trace: FinishedTrace, attempt: Try, number: int) -> Attributes:
    attributes: Attributes = {
        "http.request.method": _method(trace, "_OTHER"),
        "url.path": _path(trace),
        **_address(attempt.server),
        "balancebeam.pool": trace.pool,
        "balancebeam.server": attempt.server,
        "balancebeam.reason": attempt.reason,
        "balancebeam.result": attempt.result,
    }
    if number:
        attributes["http.request.resend_count"] = number
    if attempt.result.isdigit():
        attributes["http.response.status_code"] = int(attempt.result)
        # "For HTTP status codes in the 4xx range span status [...] SHOULD be set to Error in
        # case of SpanKind.CLIENT."
        if int(attempt.result) >= 400:
            attributes["error.type"] = attempt.result
    elif attempt.result != "client disconnected":
        # The kind of the failure, which is one of few; the rest is the text of the system.
        attributes["error.type"] = attempt.result.partition(":")[0]
    return attributes


def _path(trace: FinishedTrace) -> str:
    return trace.target.partition(b"?")[0].decode("latin-1")


def _address(authority: str) -> Mapping[str, str | int]:
    """The attributes for `host:port`, or for the path of a Unix socket."""
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdigit() or len(port) > 5 or authority.startswith("unix:"):
        return {"server.address": authority}
    return {"server.address": host.strip("[]"), "server.port": int(port)}
