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
from balancebeam.proxy.timeline import REFUSED, Timeline, all_tries, ended, phases

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
        lower = upstream_head.lower()
        received_at, finished_at = record.received_at, record.finished_at
        route, tls, server = record.route, record.tls, record.last_server
        place, tls_field = names(
            "" if route is None else route.name,
            record.dispatcher.pool_name,
            None if tls is None else tls.version,
        )
        request_id = sent_id(upstream_head, lower) if has_request_id else None
        id_text = f'"{made_id(received_at)}"' if request_id is None else json.dumps(request_id)
        if record.tries or record.outcome or server is None or not status or record.client_aborted:
            progress = _progress(record)
            status = logged_status(record)
        else:
            seconds, first_byte_at = finished_at - record.attempt_at, record.first_byte_at
            queue, connect = record.queue_seconds, record.connect_seconds
            first_byte = (
                f"{max(0.0, first_byte_at - record.attempt_at):.6f}" if first_byte_at else "null"
            )
            name = _escape_text(server.name)
            progress = (
                f'"duration": {finished_at - received_at:.6f}, '
                f'"queue": {f"{queue:.6f}" if queue else "null"}, '
                f'"connect": {"null" if connect is None else f"{connect:.6f}"}, '
                f'"first_byte": {first_byte}, '
                f'"server": {name}, "reason": {_escape_text(record.selection_reason)}, '
                f'"tries": [{{"server": {name}, "result": "{status}", '
                f'"seconds": {seconds + (connect or 0.0):.6f}}}], '
                '"limit": null, "ended": "complete"'
            )
        return (
            f'{{"time": "{_utc_millisecond(int(clock() * 1000))}", "id": {id_text}, {place}, '
            f'"client": {_escape_text(record.client)}, "method": {_escape(head.method)}, '
            f'"host": {_escape(head.host)}, "target": {_escape(head.target)}, '
            f'"protocol": "HTTP/1.{head.minor}", {tls_field}, "status": {status}, '
            f'"bytes_received": {record.body_bytes_received}, '
            f'"bytes_sent": {record.body_bytes_sent}, {progress}, '
            f'"referer": {_escape(header_value(upstream_head, lower, _REFERER))}, '
            f'"user_agent": {_escape(header_value(upstream_head, lower, _USER_AGENT))}}}\n'
        )

    return format_line


_REFERER = b"\r\nreferer:"
_USER_AGENT = b"\r\nuser-agent:"


@lru_cache(maxsize=2)
def _utc_millisecond(milliseconds: int) -> str:
    # Integers: a float may be rounded to the millisecond before.
    return f"{utc_time(milliseconds // 1000)[:-4]}{milliseconds % 1000:03}Z"


def _escape(data: bytes | None) -> str:
    """Return `data` as JSON; bytes that are not UTF-8 become `\\xhh`, nothing becomes null."""
    if not data:
        return "null"
    # One `translate` shows that nothing has to be escaped.
    if data.translate(None, SAFE_BYTES):
        return json.dumps(_decode(data))
    return f'"{data.decode()}"'


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
            "ended": REFUSED,
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


def _progress(record: HttpRecord) -> str:
    """Return the fields from "duration" to "ended" of any request, without braces."""
    return json.dumps(_progress_fields(record, record.limit_name))[1:-1]


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
