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
from json.encoder import encode_basestring_ascii as _quote
from typing import Any, Callable, Optional

from balancebeam.observability.access_log_records import (
    HttpRecord,
    TcpRecord,
    logged_status,
    referer_and_agent,
)
from balancebeam.observability.caches import MAX_BLOCKS, remember, remember_text
from balancebeam.observability.request_ids import ID_PREFIX, made_id, sent_id
from balancebeam.observability.timestamps import Clock, LineTime, utc_time
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.proxy.timeline import Timeline, all_tries, ended, phases

# The names of route and pool, and client, method and host.
_Origin = tuple[str, str, str, bytes, Optional[bytes]]
# The name of the server, the reason of its selection, status, version of HTTP, and TLS.
_Result = tuple[str, str, int, str, Optional[str]]

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
    line_start = LineTime(clock, _line_start, 1000)
    origins: dict[_Origin, str] = {}
    find_origin, find_result = origins.get, _results.get
    find_value, find_fields = _values.get, _fields.get

    def add_origin(key: _Origin) -> str:
        route, pool, client, method, host = key
        fields = {
            "frontend": frontend,
            "route": route,
            "pool": pool,
            "client": client or None,
            "method": _decode(method),
            "host": _decode(host),
        }
        return remember_text(origins, key, f'", {json.dumps(fields)[1:-1]}, "target": ')

    def add_fields(record: HttpRecord) -> str:
        block = record.head.repeated_block
        referer, agent = referer_and_agent(record.upstream_head)
        text = _quote(referer.decode("utf-8", "backslashreplace")) if referer else "null"
        text = f'{text}, "user_agent": {find_value(agent) or _add_value(agent)}}}\n'
        return text if block is None else remember_text(_fields, block, text, MAX_BLOCKS)

    def format_line(record: HttpRecord) -> str:
        head, route, server, tls = record.head, record.route, record.last_server, record.tls
        received_at, finished_at = record.received_at, record.finished_at
        version, target = None if tls is None else tls.version, head.target
        origin = (
            "" if route is None else route.name,
            record.dispatcher.pool_name,
            record.client,
            head.method,
            head.host,
        )
        start = line_start.text if finished_at < line_start.expires_at else line_start(finished_at)
        number: int | str = int(received_at * 1e9)
        request_id = sent_id(record.upstream_head) if has_request_id else None
        if request_id is not None:
            start, number = start[: -len(ID_PREFIX)], _quote(request_id)[1:-1]
        if not record.uneventful or server is None:
            status = _start_text(record.http_version, version, logged_status(record))
            # Without its first key.
            progress = json.dumps(_progress_fields(record, record.limit_name))[13:-1]
            return (
                f"{start}{number}{find_origin(origin) or add_origin(origin)}"
                f"{_quote(target.decode('utf-8', 'backslashreplace')) if target else 'null'}"
                f'{status}{record.body_bytes_received}, "bytes_sent": {record.body_bytes_sent}'
                f', "duration": {progress}, "referer": '
                f"{find_fields(head.repeated_block) or add_fields(record)}"
            )
        # Nothing but the response took time: one number three times.
        seconds = "%f" % (finished_at - received_at)
        reason, http_version = record.selection_reason, record.http_version
        result = (server.name, reason, record.status, http_version, version)
        status, middle, end = find_result(result) or _add_result(result)
        # "0" is the length of nearly all request bodies, and costs less than an `int`.
        return (
            f"{start}{number}{find_origin(origin) or add_origin(origin)}"
            f"{_quote(target.decode('utf-8', 'backslashreplace')) if target else 'null'}"
            f'{status}{record.body_bytes_received or "0"}, "bytes_sent": {record.body_bytes_sent}'
            f', "duration": {seconds}, "queue": null, "connect": null, "first_byte": {seconds}'
            f"{middle}{seconds}{end}{find_fields(head.repeated_block) or add_fields(record)}"
        )

    return format_line


@lru_cache(maxsize=2)
def _line_start(milliseconds: int) -> str:
    # Integers: a float may be rounded to the millisecond before.
    time = f"{utc_time(milliseconds // 1000)[:-4]}{milliseconds % 1000:03}Z"
    return f'{{"time": "{time}", "id": "{ID_PREFIX}'


# What is remembered, because keep-alive connections alone repeat most of it: the parts of
# lines by what they show of route, client, method and host; by server and status; and of
# Referer and User-Agent; and the values of User-Agent, for requests with a cookie. Each of
# these dicts takes 3 MiB at most.
_results: dict[_Result, tuple[str, str, str]] = {}
_values: dict[bytes, str] = {}
# By `RequestHead.repeated_block`.
_fields: dict[bytes | None, str] = {}


def _add_value(data: bytes) -> str:
    """Return `data` as JSON; bytes that are not UTF-8 become `\\xhh`, nothing becomes null."""
    return remember_text(_values, data, json.dumps(_decode(data)))


def _start_text(http_version: str, version: str | None, status: int) -> str:
    """Return the fields before the number of bytes received."""
    return (
        f', "protocol": "HTTP/{http_version}", "tls": {json.dumps(version)}, "status": {status}, '
        '"bytes_received": '
    )


def _add_result(key: _Result) -> tuple[str, str, str]:
    """Return fields of a request without a failed attempt, around its numbers."""
    server, reason, status, http_version, version = key
    name = json.dumps(server)
    texts = (
        _start_text(http_version, version, status),
        f', "server": {name}, "reason": {json.dumps(reason or None)}, '
        f'"tries": [{{"server": {name}, "result": "{status}", "seconds": ',
        '}], "limit": null, "ended": "complete", "referer": ',
    )
    return remember(_results, key, texts)


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
