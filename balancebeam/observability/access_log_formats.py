"""
What the access log says of an exchange: one line, whatever the client sent.

The time in it is when the exchange ended, as in nginx's logs, so that lines
are in order.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Any, Callable

from attrs import frozen

from balancebeam.observability.escaping import (
    SAFE_BYTES,
    escape_quoted,
    escape_quoted_text,
    escape_word,
)

# Makes the line of an exchange, or of a request that could not be read.
LineFormatter = Callable[[Any], str]


@frozen
class LogFormat:
    """How exchanges that have `finished` are told of, and requests that were `rejected`."""

    finished: LineFormatter
    rejected: LineFormatter


# Gives seconds since the epoch.
Clock = Callable[[], float]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What nginx logs when nothing was answered because the client had left.
CLIENT_CLOSED_REQUEST = 499

_escape_word_cached = lru_cache(maxsize=4096)(escape_word)


@lru_cache(maxsize=2)
def local_time(second: int) -> str:
    """`second` since the epoch as in 10/Oct/2000:13:55:36 -0700."""
    local = time.localtime(second)
    minutes = local.tm_gmtoff // 60
    sign, minutes = ("-", -minutes) if minutes < 0 else ("+", minutes)
    return (
        f"{local.tm_mday:02}/{_MONTHS[local.tm_mon - 1]}/{local.tm_year:04}:"
        f"{local.tm_hour:02}:{local.tm_min:02}:{local.tm_sec:02} "
        f"{sign}{minutes // 60:02}{minutes % 60:02}"
    )


@lru_cache(maxsize=2)
def _utc_second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def utc_time(seconds: float) -> str:
    """`seconds` since the epoch by RFC 3339, with milliseconds."""
    second = int(seconds // 1)
    return f"{_utc_second(second)}.{int((seconds - second) * 1000):03}Z"


def logged_status(exchange: Any) -> int:
    """The status that the client got, or 499."""
    status: int = exchange.status
    return CLIENT_CLOSED_REQUEST if exchange.client_aborted and not status else status


def _header_value(head_bytes: bytes, lower: bytes, name: bytes) -> bytes:
    """The value of the first field that is called `name`, such as b"\\r\\nreferer:"."""
    found = lower.find(name)
    if found < 0:
        return b""
    end = head_bytes.find(b"\r\n", found + len(name))
    return head_bytes[found + len(name) : end if end >= 0 else None].strip(b" \t")


def combined_formatter(clock: Clock) -> LineFormatter:
    """Lines in the combined format of Apache and nginx."""

    def line(exchange: Any) -> str:
        head, octets, wire = exchange.head, exchange.body_bytes_sent, exchange.upstream_head
        lower = wire.lower()
        referer = _header_value(wire, lower, b"\r\nreferer:") or b"-"
        agent = _header_value(wire, lower, b"\r\nuser-agent:") or b"-"
        request = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor)
        # Nearly always there is nothing to escape, which one look shows.
        if (request + referer + agent).translate(None, SAFE_BYTES):
            said = f'"{escape_quoted(request)}" {logged_status(exchange)} {octets} '
            said += f'"{escape_quoted(referer)}" "{escape_quoted(agent)}"\n'
        else:
            said = f'"{request.decode()}" {exchange.status or logged_status(exchange)} {octets} '
            said += f'"{referer.decode()}" "{agent.decode()}"\n'
        return f"{_escape_word_cached(exchange.client)} - - [{local_time(int(clock()))}] {said}"

    return line


def json_formatter(clock: Clock, frontend: str) -> LineFormatter:
    """Lines that are JSON objects; what is not UTF-8 is shown as `\\xhh`."""

    def line(exchange: Any) -> str:
        now, head, wire = clock(), exchange.head, exchange.upstream_head
        lower = wire.lower()
        server = exchange.last_server
        said = {
            "time": utc_time(now),
            "frontend": frontend,
            "pool": exchange.dispatcher.pool_name,
            "client": exchange.client,
            "method": _decode(head.method),
            "host": _decode(head.host),
            "target": _decode(head.target),
            "protocol": f"HTTP/1.{head.minor}",
            "status": logged_status(exchange),
            "bytes_sent": exchange.body_bytes_sent,
            "duration": _duration(exchange.started_at, now),
            "server": None if server is None else server.name,
            "attempted_servers": [one.name for one in exchange.attempted_servers],
            "referer": _decode(_header_value(wire, lower, b"\r\nreferer:")),
            "user_agent": _decode(_header_value(wire, lower, b"\r\nuser-agent:")),
        }
        request_id = _header_value(wire, lower, b"\r\nx-request-id:")
        if request_id:
            said["id"] = _decode(request_id)
        if exchange.failure is not None:
            said["failure"] = exchange.failure.detail
        for what in ("truncated", "client_aborted"):
            if getattr(exchange, what):
                said[what] = True
        return json.dumps(said) + "\n"

    return line


def rejected_combined_formatter(clock: Clock) -> LineFormatter:
    """Lines about requests that could not be read, in the combined format."""

    def line(request: Any) -> str:
        return (
            f"{_escape_word_cached(request.client)} - - [{local_time(int(clock()))}] "
            f'"{escape_quoted(request.line)}" {request.status} {request.body_bytes_sent} "-" "-"\n'
        )

    return line


def rejected_json_formatter(clock: Clock, frontend: str) -> LineFormatter:
    """Lines about requests that could not be read, as JSON objects."""

    def line(request: Any) -> str:
        said = {
            "time": utc_time(clock()),
            "frontend": frontend,
            "client": request.client,
            "request": _decode(request.line),
            "status": request.status,
            "bytes_sent": request.body_bytes_sent,
            "failure": request.reason,
        }
        return json.dumps(said) + "\n"

    return line


def tcp_combined_formatter(clock: Clock) -> LineFormatter:
    """Lines about TCP connections, for people."""

    def line(exchange: Any) -> str:
        now = clock()
        return (
            f"[{local_time(int(now))}] {_escape_word_cached(exchange.client)} -> "
            f"{escape_quoted_text(exchange.server_name or 'no server')}: "
            f"{escape_quoted_text(exchange.close_reason)}; "
            f"{exchange.bytes_from_client} bytes from client, "
            f"{exchange.bytes_from_server} bytes from server, "
            f"{max(0.0, now - exchange.started_at):.3f} s\n"
        )

    return line


def tcp_json_formatter(clock: Clock, frontend: str) -> LineFormatter:
    """Lines about TCP connections that are JSON objects."""

    def line(exchange: Any) -> str:
        now = clock()
        said = {
            "time": utc_time(now),
            "frontend": frontend,
            "client": exchange.client,
            "server": exchange.server_name or None,
            "close_reason": exchange.close_reason,
            "bytes_received": exchange.bytes_from_client,
            "bytes_sent": exchange.bytes_from_server,
            "duration": round(max(0.0, now - exchange.started_at), 6),
        }
        return json.dumps(said) + "\n"

    return line


def build_format(mode: str, style: str, frontend: str, clock: Clock) -> LogFormat:
    """What makes the lines of a frontend in `mode`, in the `style` combined or json."""
    if style == "json":
        ended = tcp_json_formatter if mode == "tcp" else json_formatter
        return LogFormat(ended(clock, frontend), rejected_json_formatter(clock, frontend))
    in_words = tcp_combined_formatter if mode == "tcp" else combined_formatter
    return LogFormat(in_words(clock), rejected_combined_formatter(clock))


def _decode(data: bytes | None) -> str | None:
    return data.decode("utf-8", "backslashreplace") if data else None


def _duration(started_at: float, now: float) -> float | None:
    """In seconds, if it is known when it began."""
    return round(max(0.0, now - started_at), 6) if started_at else None
