"""
The access log as JSON: an object with the same keys for every line.

A line is built for every request, so the formatter for HTTP inserts values that are known
to need no escaping, or that were escaped before, into one f-string. `json.dumps` of a dict
takes four times as long. It remains for the lines that are rare.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any, Callable

from balancebeam.observability.access_log_records import (
    HttpRecord,
    TcpRecord,
    header_value,
    logged_status,
)
from balancebeam.observability.escaping import SAFE_BYTES
from balancebeam.observability.request_ids import made_id, sent_id
from balancebeam.observability.timestamps import Clock, utc_time
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.proxy.timeline import Timeline, all_tries, ended, phases

# All keys of a line, in order.
KEYS = (
    *("time", "id", "frontend", "route", "pool", "client", "method", "host", "target"),
    *("protocol", "tls", "status", "bytes_received", "bytes_sent", "duration", "queue"),
    *("connect", "first_byte", "server", "reason", "tries", "limit", "ended", "referer"),
    "user_agent",
)


def json_formatter(
    clock: Clock, frontend: str, has_request_id: bool = False
) -> Callable[[HttpRecord], str]:
    """
    Return a formatter of HTTP requests as JSON.

    Args:
        clock: Returns seconds since the epoch.
        frontend: The name of the frontend.
        has_request_id: Whether the frontend keeps or makes X-Request-Id.
    """
    frontend_text = json.dumps(frontend)

    @lru_cache(maxsize=256)
    def names(route: str, pool: str, tls: str | None) -> tuple[str, str]:
        route_text, pool_text, tls_text = (json.dumps(text) for text in (route, pool, tls))
        start = f'"frontend": {frontend_text}, "route": {route_text}, "pool": {pool_text}'
        return start, f'"tls": {tls_text}'

    def format_line(record: HttpRecord) -> str:
        head, upstream_head, status = record.head, record.upstream_head, record.status
        received_at, finished_at = record.received_at, record.finished_at
        route, tls, server = record.route, record.tls, record.last_server
        place, tls_field = names(
            "" if route is None else route.name,
            record.dispatcher.pool_name,
            None if tls is None else tls.version,
        )
        if record.tries or record.outcome or server is None or not status or record.client_aborted:
            progress = json.dumps(_progress_fields(record, record.limit_name))[1:-1]
            status = logged_status(record)
        else:
            attempt_at, first_byte_at = record.attempt_at, record.first_byte_at
            queue, connect = record.queue_seconds, record.connect_seconds
            total = last = f"{finished_at - received_at:.6f}"
            if attempt_at != received_at:
                last = f"{finished_at - attempt_at + (connect or 0.0):.6f}"
            name = _escape_text(server.name)
            progress = (
                f'"duration": {total}, "queue": {f"{queue:.6f}" if queue else "null"}, '
                f'"connect": {"null" if connect is None else f"{connect:.6f}"}, "first_byte": '
                f"{f'{first_byte_at - attempt_at:.6f}' if first_byte_at else 'null'}, "
                f'"server": {name}, "reason": {_escape_text(record.selection_reason)}, "tries": '
                f'[{{"server": {name}, "result": "{status}", "seconds": {last}}}], '
                '"limit": null, "ended": "complete"'
            )
        method, host = head.method, head.host
        referer, agent = _find_value(upstream_head, _REFERER), _find_value(upstream_head, _AGENT)
        request_id = sent_id(upstream_head) if has_request_id else None
        id_text = f'"{made_id(received_at)}"' if request_id is None else json.dumps(request_id)
        return (
            f'{{"time": "{_utc_millisecond(int(clock() * 1000))}", '
            f'"id": {id_text}, {place}, '
            f'"client": {_escape_text(record.client)}, '
            f'"method": {_known(method) or _escape(method)}, '
            f'"host": {_known(host) or _escape(host)}, "target": {_escape_target(head.target)}, '
            f'"protocol": "HTTP/{record.http_version}", {tls_field}, "status": {status}, '
            f'"bytes_received": {record.body_bytes_received}, '
            f'"bytes_sent": {record.body_bytes_sent}, {progress}, '
            f'"referer": {_known(referer) or _escape(referer)}, '
            f'"user_agent": {_known(agent) or _escape(agent)}}}\n'
        )

    return format_line


# Name of a field in the spelling of nearly all clients, and in lower case.
_REFERER = (b"\r\nReferer: ", b"\r\nreferer:")
_AGENT = (b"\r\nUser-Agent: ", b"\r\nuser-agent:")


def _find_value(head: bytes, names: tuple[bytes, bytes]) -> bytes:
    """Return the value of a field, empty without it; the head is rarely searched twice."""
    name, lower_name = names
    start = head.find(name)
    if start < 0:
        return header_value(head, head.lower(), lower_name)
    start += len(name)
    return head[start : head.index(b"\r\n", start)].strip(b" \t")


@lru_cache(maxsize=2)
def _utc_millisecond(milliseconds: int) -> str:
    # Integers: a float may be rounded to the millisecond before.
    return f"{utc_time(milliseconds // 1000)[:-4]}{milliseconds % 1000:03}Z"


def _escape_target(data: bytes) -> str:
    # One `translate` shows that nothing has to be escaped.
    return json.dumps(_decode(data)) if data.translate(None, SAFE_BYTES) else f'"{data.decode()}"'


# Escaped values of fields with few different values, such as User-Agent: at most 1 MiB.
_escaped: dict[bytes | None, str] = {}
_known = _escaped.get
_MAX_ESCAPED = 4096
_MAX_ESCAPED_LENGTH = 256


def _escape(data: bytes | None) -> str:
    """Return `data` as JSON; bytes that are not UTF-8 become `\\xhh`, nothing becomes null."""
    text = json.dumps(_decode(data))
    if data is None or len(data) <= _MAX_ESCAPED_LENGTH:
        if len(_escaped) >= _MAX_ESCAPED:
            _escaped.clear()
        _escaped[data] = text
    return text


# For texts with few different values: clients, servers and reasons.
_escape_text = lru_cache(maxsize=4096)(lambda text: json.dumps(text or None))


def rejected_json_formatter(clock: Clock, frontend: str) -> Callable[[RejectedRequest], str]:
    """
    Return a formatter of rejected requests as JSON.

    A first line of three words is logged as method, target and protocol, any other one as
    target.
    """

    def format_line(request: RejectedRequest) -> str:
        words = request.line.split(b" ")
        method, target, protocol = words if len(words) == 3 else (None, request.line, None)
        fields: dict[str, Any] = {
            "time": utc_time(clock()),
            # Not a time on the clock of exchanges, but as unique.
            "id": made_id(time.perf_counter()),
            "frontend": frontend,
            "client": request.client,
            "method": _decode(method),
            "target": _decode(target),
            "protocol": _decode(protocol),
            "status": request.status,
            "bytes_sent": request.body_bytes_sent,
            "reason": request.reason,
            "tries": [],
            "ended": request.ended,
        }
        return _dump(fields)

    return format_line


def tcp_json_formatter(clock: Clock, frontend: str) -> Callable[[TcpRecord], str]:
    """Return a formatter of TCP connections as JSON, with `close_reason` as a further key."""

    def format_line(record: TcpRecord) -> str:
        route, tls = record.route, record.tls
        fields = {
            "time": utc_time(clock()),
            "id": made_id(record.received_at or time.perf_counter()),
            "frontend": frontend,
            "route": None if route is None else route.name,
            "pool": record.dispatcher.pool_name,
            "client": record.client,
            "tls": None if tls is None else tls.version,
            "bytes_received": record.bytes_from_client,
            "bytes_sent": record.bytes_from_server,
            **_progress_fields(record, record.limit_name),
            "server": record.server_name or None,
            "close_reason": record.close_reason,
        }
        return _dump(fields)

    return format_line


def _progress_fields(record: Timeline, limit: str) -> dict[str, Any]:
    times, server = phases(record), record.server or record.last_server
    received_at = record.received_at
    return {
        "duration": _round(record.finished_at - received_at) if received_at else None,
        "queue": _round(times["queue"]),
        "connect": _round(times["connect"]),
        "first_byte": _round(times["first_byte"]),
        "server": None if server is None else server.name,
        "reason": record.selection_reason or None,
        "tries": [
            {"server": item.server, "result": item.result, "seconds": _round(item.seconds)}
            for item in all_tries(record)
        ],
        "limit": limit or None,
        "ended": ended(record),
    }


def _dump(fields: dict[str, Any]) -> str:
    """Return the line of `fields`, with null for the keys that are missing."""
    return json.dumps({**dict.fromkeys(KEYS), **fields}) + "\n"


def _decode(data: bytes | None) -> str | None:
    return data.decode("utf-8", "backslashreplace") if data else None


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 6)
