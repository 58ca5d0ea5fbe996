"""
Access log formats: combined (Apache, nginx) and JSON, for HTTP and TCP frontends.

The time of a line is the end of the exchange, as in nginx, so that lines are in
order. Every line is ASCII and ends with the only line feed in it, whatever the
client sent.
"""

from __future__ import annotations

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
    logged_status,
    referer_and_agent,
)
from balancebeam.observability.escaping import (
    SAFE_BYTES,
    escape_quoted,
    escape_quoted_text,
    escape_word,
)
from balancebeam.observability.timestamps import Clock, LineTime, local_time
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


def combined_formatter(clock: Clock) -> Callable[[HttpRecord], str]:
    """Return a formatter of HTTP requests for the combined format of Apache and nginx."""

    line_time = LineTime(clock, local_time, 1)
    find_client = _clients.get

    def format_line(record: HttpRecord) -> str:
        head, sent, finished_at = record.head, record.body_bytes_sent, record.finished_at
        referer, agent = referer_and_agent(record.upstream_head)
        status = record.status or logged_status(record)
        client = find_client(record.client) or _add_client(record.client)
        time = line_time.text if finished_at < line_time.expires_at else line_time(finished_at)
        fields = b'%b %b HTTP/%b" %d %d "%b" "%b' % (
            *(head.method, head.target, record.http_version.encode(), status, sent),
            *(referer or b"-", agent or b"-"),
        )
        # Fast path: one `translate` shows that nothing has to be escaped.
        if fields.translate(None, SAFE_BYTES) != _QUOTES:
            version = record.http_version.encode()
            request = b"%b %b HTTP/%b" % (head.method, head.target, version)
            text = f'{escape_quoted(request)}" {status} {sent} '
            text += f'"{escape_quoted(referer or b"-")}" "{escape_quoted(agent or b"-")}'
            return f'{client} - - [{time}] "{text}"\n'
        return f'{client} - - [{time}] "{fields.decode()}"\n'

    return format_line


# What remains of the fields of a line without safe bytes, if nothing has to be escaped.
_QUOTES = b'"' * 4

# Escaped addresses of clients, of which keep-alive connections repeat each.
_clients: dict[str, str] = {}
_MAX_CLIENTS = 4096


def _add_client(client: str) -> str:
    if len(_clients) >= _MAX_CLIENTS:
        _clients.clear()
    _clients[client] = text = escape_word(client)
    return text


def rejected_combined_formatter(clock: Clock) -> Callable[[RejectedRequest], str]:
    """Return a formatter of rejected requests for the combined format."""

    def format_line(request: RejectedRequest) -> str:
        return (
            f"{escape_word(request.client)} - - [{local_time(int(clock()))}] "
            f'"{escape_quoted(request.line)}" {request.status} {request.body_bytes_sent} "-" "-"\n'
        )

    return format_line


def tcp_combined_formatter(clock: Clock) -> Callable[[TcpRecord], str]:
    """Return a formatter of TCP connections as readable text."""

    def format_line(record: TcpRecord) -> str:
        now = clock()
        return (
            f"[{local_time(int(now))}] {escape_word(record.client)} -> "
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
