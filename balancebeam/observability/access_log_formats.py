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
from balancebeam.observability.caches import MAX_BLOCKS, remember_text
from balancebeam.observability.escaping import (
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

    line_time = LineTime(clock, _time_text, 1)
    find_client, find_method, find_status = _clients.get, _methods.get, _statuses.get
    find_fields, find_agent = _fields.get, _agents.get

    def format_line(record: HttpRecord) -> str:
        head, finished_at, target = record.head, record.finished_at, record.head.target
        block, method = head.repeated_block, head.method
        time = line_time.text if finished_at < line_time.expires_at else line_time(finished_at)
        fields = find_fields(block)
        if fields is None:
            referer, agent = referer_and_agent(record.upstream_head)
            text = find_agent(agent) or _add_agent(agent)
            fields = f'{escape_quoted(referer) or "-"}" "{text}"\n'
            if block is not None:
                remember_text(_fields, block, fields, MAX_BLOCKS)
        status = record.status or logged_status(record)
        result = (record.http_version, status)
        return (
            f"{find_client(record.client) or _add_client(record.client)}{time}"
            f"{find_method(method) or _add_method(method)}{escape_quoted(target)}"
            f"{find_status(result) or _add_status(result)}{record.body_bytes_sent}"
            f' "{fields}'
        )

    return format_line


# Escaped parts of lines, of which keep-alive connections alone repeat most: by address of the
# client; method; version and status; User-Agent; and repeated block of fields. Each of
# these dicts takes 3 MiB at most.
_clients: dict[str, str] = {}
_methods: dict[bytes, str] = {}
_statuses: dict[tuple[str, int], str] = {}
_agents: dict[bytes, str] = {}
_fields: dict[bytes | None, str] = {}


def _time_text(second: int) -> str:
    return f' - - [{local_time(second)}] "'


def _add_client(client: str) -> str:
    return remember_text(_clients, client, escape_word(client))


def _add_method(method: bytes) -> str:
    return remember_text(_methods, method, f"{escape_quoted(method)} ")


def _add_status(key: tuple[str, int]) -> str:
    version, status = key
    return remember_text(_statuses, key, f' HTTP/{version}" {status} ')


def _add_agent(agent: bytes) -> str:
    return remember_text(_agents, agent, escape_quoted(agent or b"-"))


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
