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
from typing import Any, Callable, TypeVar

from balancebeam.observability.access_log_records import (
    HttpRecord,
    TcpRecord,
    logged_status,
    referer_and_agent,
)
from balancebeam.observability.request_ids import ID_PREFIX, made_id, sent_id
from balancebeam.observability.timestamps import Clock, LineTime, utc_time
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.proxy.timeline import REFUSED, Timeline, all_tries, ended, phases

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")

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
    line_time = LineTime(clock, _utc_millisecond, 1000)
    places: dict[tuple[str, str], str] = {}
    find_place, find_text, find_value = places.get, _texts.get, _values.get
    find_server = _servers.get

    def add_place(route: str, pool: str) -> str:
        fields = {"frontend": frontend, "route": route, "pool": pool}
        return _remember(places, (route, pool), json.dumps(fields)[1:-1])

    def format_line(record: HttpRecord) -> str:
        head, upstream_head, route = record.head, record.upstream_head, record.route
        received_at, finished_at = record.received_at, record.finished_at
        pool, tls, client = record.dispatcher.pool_name, record.tls, record.client
        route_name = "" if route is None else route.name
        place = find_place((route_name, pool)) or add_place(route_name, pool)
        tls_text = "null" if tls is None else find_text(tls.version) or _add_text(tls.version)
        server = record.last_server
        if record.uneventful and server is not None:
            status = record.status
            # Nothing but the response took time: one number three times.
            seconds = "%.6f" % (finished_at - received_at)  # noqa: UP031
            key = (server.name, record.selection_reason, status)
            before, after = find_server(key) or _add_server(key)
            progress = (
                f'{seconds}, "queue": null, "connect": null, "first_byte": {seconds}, '
                f"{before}{seconds}{after}"
            )
        else:
            status = logged_status(record)
            progress = json.dumps(_progress_fields(record, record.limit_name))[13:-1]
        time = line_time.text if finished_at < line_time.expires_at else line_time(finished_at)
        referer, agent = referer_and_agent(upstream_head)
        method, host = head.method, head.host
        request_id = sent_id(upstream_head) if has_request_id else None
        id_text = (
            f'"{ID_PREFIX}{int(received_at * 1e9)}"'
            if request_id is None
            else json.dumps(request_id)
        )
        return (
            f'{{"time": "{time}", "id": {id_text}, {place}, "client": {find_text(client) or _add_text(client)}, '
            f'"method": {find_value(method) or _add_value(method)}, '
            f'"host": {find_value(host) or _add_value(host)}, '
            f'"target": {_quote(_decode(head.target))}, '
            f'"protocol": "HTTP/1.{head.minor}", '
            f'"tls": {tls_text}, "status": {status}, "bytes_received": {record.body_bytes_received}, '
            f'"bytes_sent": {record.body_bytes_sent}, "duration": {progress}, '
            f'"referer": {_quote(_decode(referer)) if referer else "null"}, '
            f'"user_agent": {find_value(agent) or _add_value(agent)}}}\n'
        )

    return format_line


@lru_cache(maxsize=2)
def _utc_millisecond(milliseconds: int) -> str:
    # Integers: a float may be rounded to the millisecond before.
    return f"{utc_time(milliseconds // 1000)[:-4]}{milliseconds % 1000:03}Z"


# Texts in JSON that are known to repeat: clients and TLS versions; methods, Host and
# User-Agent fields; places and servers. Keep-alive connections alone repeat most of them.
# Each of these dicts takes 2 MiB at most, and is emptied when it is full, so that values
# that never return leave it too.
_MAX_REMEMBERED = 4096
_MAX_LENGTH = 256
_texts: dict[str | None, str] = {}
_values: dict[bytes | None, str] = {}
_servers: dict[tuple[str, str, int], tuple[str, str]] = {}


def _remember(cache: dict[KeyT, ValueT], key: KeyT, value: ValueT) -> ValueT:
    if len(cache) >= _MAX_REMEMBERED:
        cache.clear()
    cache[key] = value
    return value


def _add_text(text: str | None) -> str:
    return _remember(_texts, text, json.dumps(text or None))


def _add_value(data: bytes | None) -> str:
    """Return `data` as JSON; bytes that are not UTF-8 become `\\xhh`, nothing becomes null."""
    text = _quote(_decode(data)) if data else "null"
    if data is None or len(data) <= _MAX_LENGTH:
        _remember(_values, data, text)
    return text


def _add_server(key: tuple[str, str, int]) -> tuple[str, str]:
    """Return the fields of a request without a failed attempt, around its duration."""
    server, reason, status = key
    name = json.dumps(server)
    fields = (
        f'"server": {name}, "reason": {json.dumps(reason or None)}, '
        f'"tries": [{{"server": {name}, "result": "{status}", "seconds": ',
        '}], "limit": null, "ended": "complete"',
    )
    return _remember(_servers, key, fields)


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
            "method": _decode(method) if method else None,
            "target": _decode(target) if target else None,
            "protocol": _decode(protocol) if protocol else None,
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


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "backslashreplace")


def _round(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 6)
