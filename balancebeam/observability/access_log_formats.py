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

from balancebeam.observability.escaping import HARMLESS, quoted, quoted_text, word

# Makes the line of an exchange, or of a request that could not be read.
Line = Callable[[Any], str]


@frozen
class Lines:
    """How exchanges that have `ended` are told of, and requests that are `unread`."""

    ended: Line
    unread: Line


# Gives seconds since the epoch.
Time = Callable[[], float]

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

# What nginx logs when nothing was answered because the client had left.
CLIENT_LEFT = 499

_word = lru_cache(maxsize=4096)(word)


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


def status_of(exchange: Any) -> int:
    """The status that the client got, or 499."""
    status: int = exchange.status
    return CLIENT_LEFT if exchange.client_aborted and not status else status


def _value(wire: bytes, lower: bytes, name: bytes) -> bytes:
    """The value of the first field that is called `name`, such as b"\\r\\nreferer:"."""
    found = lower.find(name)
    if found < 0:
        return b""
    end = wire.find(b"\r\n", found + len(name))
    return wire[found + len(name) : end if end >= 0 else None].strip(b" \t")


def combined(clock: Time) -> Line:
    """Lines in the combined format of Apache and nginx."""

    def line(exchange: Any) -> str:
        head, octets, wire = exchange.head, exchange.body_bytes_sent, exchange.upstream_head
        lower = wire.lower()
        referer = _value(wire, lower, b"\r\nreferer:") or b"-"
        agent = _value(wire, lower, b"\r\nuser-agent:") or b"-"
        request = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor)
        # Nearly always there is nothing to escape, which one look shows.
        if (request + referer + agent).translate(None, HARMLESS):
            said = f'"{quoted(request)}" {status_of(exchange)} {octets} '
            said += f'"{quoted(referer)}" "{quoted(agent)}"\n'
        else:
            said = f'"{request.decode()}" {exchange.status or status_of(exchange)} {octets} '
            said += f'"{referer.decode()}" "{agent.decode()}"\n'
        return f"{_word(exchange.client)} - - [{local_time(int(clock()))}] {said}"

    return line


def structured(clock: Time, frontend: str) -> Line:
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
            "method": _text(head.method),
            "host": _text(head.host),
            "target": _text(head.target),
            "protocol": f"HTTP/1.{head.minor}",
            "status": status_of(exchange),
            "octets": exchange.body_bytes_sent,
            "seconds": _duration(exchange.started_at, now),
            "server": None if server is None else server.name,
            "tried": [one.name for one in exchange.attempted_servers],
            "referer": _text(_value(wire, lower, b"\r\nreferer:")),
            "user_agent": _text(_value(wire, lower, b"\r\nuser-agent:")),
        }
        request_id = _value(wire, lower, b"\r\nx-request-id:")
        if request_id:
            said["request_id"] = _text(request_id)
        if exchange.failure is not None:
            said["failure"] = exchange.failure.detail
        for what in ("truncated", "client_aborted"):
            if getattr(exchange, what):
                said[what] = True
        return json.dumps(said) + "\n"

    return line


def unread_combined(clock: Time) -> Line:
    """Lines about requests that could not be read, in the combined format."""

    def line(request: Any) -> str:
        return (
            f"{_word(request.client)} - - [{local_time(int(clock()))}] "
            f'"{quoted(request.line)}" {request.status} {request.body_bytes_sent} "-" "-"\n'
        )

    return line


def unread_structured(clock: Time, frontend: str) -> Line:
    """Lines about requests that could not be read, as JSON objects."""

    def line(request: Any) -> str:
        said = {
            "time": utc_time(clock()),
            "frontend": frontend,
            "client": request.client,
            "request": _text(request.line),
            "status": request.status,
            "octets": request.body_bytes_sent,
            "failure": request.reason,
        }
        return json.dumps(said) + "\n"

    return line


def connections_in_words(clock: Time) -> Line:
    """Lines about TCP connections, for people."""

    def line(exchange: Any) -> str:
        now = clock()
        return (
            f"[{local_time(int(now))}] {_word(exchange.client)} -> "
            f"{quoted_text(exchange.server_name or 'no server')}: {quoted_text(exchange.close_reason)}; "
            f"{exchange.bytes_from_client} octets sent, {exchange.bytes_from_server} received, "
            f"{max(0.0, now - exchange.started_at):.3f} s\n"
        )

    return line


def connections_structured(clock: Time, frontend: str) -> Line:
    """Lines about TCP connections that are JSON objects."""

    def line(exchange: Any) -> str:
        now = clock()
        said = {
            "time": utc_time(now),
            "frontend": frontend,
            "client": exchange.client,
            "server": exchange.server_name or None,
            "why": exchange.close_reason,
            "sent": exchange.bytes_from_client,
            "received": exchange.bytes_from_server,
            "seconds": round(max(0.0, now - exchange.started_at), 6),
        }
        return json.dumps(said) + "\n"

    return line


def line_maker(mode: str, style: str, frontend: str, clock: Time) -> Lines:
    """What makes the lines of a frontend in `mode`, in the `style` combined or json."""
    if style == "json":
        ended = connections_structured if mode == "tcp" else structured
        return Lines(ended(clock, frontend), unread_structured(clock, frontend))
    in_words = connections_in_words if mode == "tcp" else combined
    return Lines(in_words(clock), unread_combined(clock))


def _text(octets: bytes | None) -> str | None:
    return octets.decode("utf-8", "backslashreplace") if octets else None


def _duration(begun: float, now: float) -> float | None:
    """In seconds, if it is known when it began."""
    return round(max(0.0, now - begun), 6) if begun else None
