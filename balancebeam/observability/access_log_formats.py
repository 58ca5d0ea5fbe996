"""
Access log formats: combined (Apache, nginx) and JSON, for HTTP and TCP frontends.

The time of a line is the end of the exchange, as in nginx, so that lines are in
order. Every line is ASCII and ends with the only line feed in it, whatever the
client sent.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Callable, Generic, TypeVar

from attrs import frozen

from balancebeam.observability.access_log_records import HttpRecord, TcpRecord
from balancebeam.observability.escaping import (
    SAFE_BYTES,
    escape_quoted,
    escape_quoted_text,
    escape_word,
)
from balancebeam.observability.timestamps import local_time, utc_time
from balancebeam.proxy.rejected import RejectedRequest

RecordT = TypeVar("RecordT")

# Returns seconds since the epoch.
Clock = Callable[[], float]


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


# As nginx logs a client that disconnected before the response.
CLIENT_CLOSED_REQUEST = 499

_escape_word_cached = lru_cache(maxsize=4096)(escape_word)


def logged_status(record: HttpRecord) -> int:
    """Return the status that was sent to the client; 499 if it disconnected before."""
    status = record.status
    return CLIENT_CLOSED_REQUEST if record.client_aborted and not status else status


def _header_value(head: bytes, lower_head: bytes, name: bytes) -> bytes:
    """
    Return the value of the first header called `name`; empty if there is none.

    Args:
        head: A request head.
        lower_head: The same in lower case.
        name: The name between line break and colon, such as b"\\r\\nreferer:".
    """
    start = lower_head.find(name)
    if start < 0:
        return b""
    end = head.find(b"\r\n", start + len(name))
    return head[start + len(name) : end if end >= 0 else None].strip(b" \t")


def combined_formatter(clock: Clock) -> Callable[[HttpRecord], str]:
    """Return a formatter of HTTP requests for the combined format of Apache and nginx."""

    def format_line(record: HttpRecord) -> str:
        head, sent, upstream_head = record.head, record.body_bytes_sent, record.upstream_head
        lower = upstream_head.lower()
        referer = _header_value(upstream_head, lower, b"\r\nreferer:") or b"-"
        agent = _header_value(upstream_head, lower, b"\r\nuser-agent:") or b"-"
        request = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor)
        # Fast path: one `translate` shows that nothing has to be escaped.
        if (request + referer + agent).translate(None, SAFE_BYTES):
            fields = f'"{escape_quoted(request)}" {logged_status(record)} {sent} '
            fields += f'"{escape_quoted(referer)}" "{escape_quoted(agent)}"\n'
        else:
            fields = f'"{request.decode()}" {record.status or logged_status(record)} {sent} '
            fields += f'"{referer.decode()}" "{agent.decode()}"\n'
        return f"{_escape_word_cached(record.client)} - - [{local_time(int(clock()))}] {fields}"

    return format_line


def json_formatter(clock: Clock, frontend: str) -> Callable[[HttpRecord], str]:
    """Return a formatter of HTTP requests as JSON; bytes that are not UTF-8 become `\\xhh`."""

    def format_line(record: HttpRecord) -> str:
        now, head, upstream_head = clock(), record.head, record.upstream_head
        lower = upstream_head.lower()
        server = record.last_server
        fields: dict[str, Any] = {
            "time": utc_time(now),
            "frontend": frontend,
            "pool": record.dispatcher.pool_name,
            "client": record.client,
            "method": _decode(head.method),
            "host": _decode(head.host),
            "target": _decode(head.target),
            "protocol": f"HTTP/1.{head.minor}",
            "status": logged_status(record),
            "bytes_sent": record.body_bytes_sent,
            "duration": _duration(record.started_at, now),
            "server": None if server is None else server.name,
            "attempted_servers": [server.name for server in record.attempted_servers],
            "referer": _decode(_header_value(upstream_head, lower, b"\r\nreferer:")),
            "user_agent": _decode(_header_value(upstream_head, lower, b"\r\nuser-agent:")),
        }
        request_id = _header_value(upstream_head, lower, b"\r\nx-request-id:")
        if request_id:
            fields["id"] = _decode(request_id)
        if record.failure is not None:
            fields["failure"] = record.failure.text
        if record.truncated:
            fields["truncated"] = True
        if record.client_aborted:
            fields["client_aborted"] = True
        return json.dumps(fields) + "\n"

    return format_line


def rejected_combined_formatter(clock: Clock) -> Callable[[RejectedRequest], str]:
    """Return a formatter of rejected requests for the combined format."""

    def format_line(request: RejectedRequest) -> str:
        return (
            f"{_escape_word_cached(request.client)} - - [{local_time(int(clock()))}] "
            f'"{escape_quoted(request.line)}" {request.status} {request.body_bytes_sent} "-" "-"\n'
        )

    return format_line


def rejected_json_formatter(clock: Clock, frontend: str) -> Callable[[RejectedRequest], str]:
    """Return a formatter of rejected requests as JSON."""

    def format_line(request: RejectedRequest) -> str:
        fields = {
            "time": utc_time(clock()),
            "frontend": frontend,
            "client": request.client,
            "request": _decode(request.line),
            "status": request.status,
            "bytes_sent": request.body_bytes_sent,
            "failure": request.reason,
        }
        return json.dumps(fields) + "\n"

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


def tcp_json_formatter(clock: Clock, frontend: str) -> Callable[[TcpRecord], str]:
    """Return a formatter of TCP connections as JSON."""

    def format_line(record: TcpRecord) -> str:
        now = clock()
        fields = {
            "time": utc_time(now),
            "frontend": frontend,
            "client": record.client,
            "server": record.server_name or None,
            "close_reason": record.close_reason,
            "bytes_received": record.bytes_from_client,
            "bytes_sent": record.bytes_from_server,
            "duration": round(max(0.0, now - record.started_at), 6),
        }
        return json.dumps(fields) + "\n"

    return format_line


def build_format(
    mode: str, style: str, frontend: str, clock: Clock
) -> LogFormat[HttpRecord] | LogFormat[TcpRecord]:
    """
    Return the log format of a frontend.

    Args:
        mode: "http" or "tcp".
        style: "combined" or "json".
        frontend: The name of the frontend.
        clock: Returns seconds since the epoch.
    """
    if style == "json":
        rejected = rejected_json_formatter(clock, frontend)
        if mode == "tcp":
            return LogFormat(tcp_json_formatter(clock, frontend), rejected)
        return LogFormat(json_formatter(clock, frontend), rejected)
    rejected = rejected_combined_formatter(clock)
    if mode == "tcp":
        return LogFormat(tcp_combined_formatter(clock), rejected)
    return LogFormat(combined_formatter(clock), rejected)


def _decode(data: bytes | None) -> str | None:
    return data.decode("utf-8", "backslashreplace") if data else None


def _duration(started_at: float, now: float) -> float | None:
    """Return the seconds since `started_at`; `None` if it is 0, that is unknown."""
    return round(max(0.0, now - started_at), 6) if started_at else None
