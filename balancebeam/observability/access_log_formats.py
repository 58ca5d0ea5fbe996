"""
Access log formats: combined (Apache, nginx) and JSON, for HTTP and TCP frontends.

The time of a line is the end of the exchange, as in nginx, so that lines are in
order. Every line is ASCII and ends with the only line feed in it, whatever the
client sent.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Callable, Generic, TypeVar

from attrs import frozen

from balancebeam.observability.access_log_json import (
    json_formatter,
    rejected_json_formatter,
    tcp_json_formatter,
)
from balancebeam.observability.access_log_records import (
    HttpRecord,
    TcpRecord,
    header_value,
    logged_status,
)
from balancebeam.observability.escaping import (
    SAFE_BYTES,
    escape_quoted,
    escape_quoted_text,
    escape_word,
)
from balancebeam.observability.timestamps import Clock, local_time
from balancebeam.proxy.rejected import RejectedRequest

RecordT = TypeVar("RecordT")


@frozen
class LogFormat(Generic[RecordT]):
    """
    The formatters of an access log.

    Attributes:
        finished: Returns the line of a finished exchange.
        rejected: Returns the line of a request that could not be parsed.
    """

    finished: Callable[[RecordT], str]
    rejected: Callable[[RejectedRequest], str]


_escape_word_cached = lru_cache(maxsize=4096)(escape_word)


def combined_formatter(clock: Clock) -> Callable[[HttpRecord], str]:
    """Return a formatter of HTTP requests for the combined format of Apache and nginx."""

    def format_line(record: HttpRecord) -> str:
        head, sent, upstream_head = record.head, record.body_bytes_sent, record.upstream_head
        lower = upstream_head.lower()
        referer = header_value(upstream_head, lower, b"\r\nreferer:") or b"-"
        agent = header_value(upstream_head, lower, b"\r\nuser-agent:") or b"-"
        request = b"%b %b HTTP/%b" % (head.method, head.target, record.http_version.encode())
        # Fast path: one `translate` shows that nothing has to be escaped.
        if (request + referer + agent).translate(None, SAFE_BYTES):
            fields = f'"{escape_quoted(request)}" {logged_status(record)} {sent} '
            fields += f'"{escape_quoted(referer)}" "{escape_quoted(agent)}"\n'
        else:
            fields = f'"{request.decode()}" {record.status or logged_status(record)} {sent} '
            fields += f'"{referer.decode()}" "{agent.decode()}"\n'
        return f"{_escape_word_cached(record.client)} - - [{local_time(int(clock()))}] {fields}"

    return format_line


def rejected_combined_formatter(clock: Clock) -> Callable[[RejectedRequest], str]:
    """Return a formatter of rejected requests for the combined format."""

    def format_line(request: RejectedRequest) -> str:
        return (
            f"{_escape_word_cached(request.client)} - - [{local_time(int(clock()))}] "
            f'"{escape_quoted(request.line)}" {request.status} {request.body_bytes_sent} "-" "-"\n'
        )

    return format_line


def tcp_combined_formatter(clock: Clock) -> Callable[[TcpRecord], str]:
    """Return a formatter of TCP connections as readable text."""

    def format_line(record: TcpRecord) -> str:
        now = clock()
        return (
            f"[{local_time(int(now))}] {_escape_word_cached(record.client)} -> "
            f"{escape_quoted_text(record.server_name or 'no server')}: "
            f"{escape_quoted_text(record.close_reason)}; "
            f"{record.bytes_from_client} bytes from client, "
            f"{record.bytes_from_server} bytes from server, "
            f"{max(0.0, now - record.started_at):.3f} s\n"
        )

    return format_line


def build_format(
    mode: str, style: str, frontend: str, clock: Clock, has_request_id: bool = False
) -> LogFormat[HttpRecord] | LogFormat[TcpRecord]:
    """
    Return the log format of a frontend.

    Args:
        mode: "http" or "tcp".
        style: "combined" or "json".
        frontend: The name of the frontend.
        clock: Returns seconds since the epoch.
        has_request_id: Whether the frontend keeps or makes X-Request-Id.
    """
    if style == "json":
        rejected = rejected_json_formatter(clock, frontend)
        if mode == "tcp":
            return LogFormat(tcp_json_formatter(clock, frontend), rejected)
        return LogFormat(json_formatter(clock, frontend, has_request_id), rejected)
    rejected = rejected_combined_formatter(clock)
    if mode == "tcp":
        return LogFormat(tcp_combined_formatter(clock), rejected)
    return LogFormat(combined_formatter(clock), rejected)
