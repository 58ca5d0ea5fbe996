"""Table of recent requests, and all that is known of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balancebeam.cli.terminal import Column, Terminal, escape, table

_COLUMNS = (
    Column("TIME"),
    Column("ID", wrappable=True),
    Column("CLIENT", wrappable=True),
    Column("REQUEST", wrappable=True),
    Column("STATUS", align_right=True),
    Column("ENDED"),
    Column("SECONDS", align_right=True),
    Column("SERVERS"),
)

# The keys of a request in the admin API that `request_details` shows, in order.
_KEYS = (
    *("id", "time", "client", "method", "host", "target", "frontend", "route", "pool"),
    *("status", "bytes", "ended"),
)

_NONE = "there are no such requests\n"


def requests_table(requests: Sequence[Mapping[str, Any]], terminal: Terminal) -> str:
    """
    Format a table with one row for each request.

    Args:
        requests: JSON objects of `GET /requests`; missing keys are shown as "-".
        terminal: width and colors of the output.
    """
    if not requests:
        return _NONE
    return table(_COLUMNS, [_row(request) for request in requests], terminal)


def request_details(requests: Sequence[Mapping[str, Any]]) -> str:
    """Format all values of each request, one per line, and its tries; see `requests_table`."""
    return "\n".join(map(_details, requests)) or _NONE


def _row(request: Mapping[str, Any]) -> list[str]:
    parts = (request.get("method"), request.get("host"), request.get("target"))
    tries = (
        f"{_text(item.get('server'))}: {_text(item.get('result'))}" for item in _tries(request)
    )
    return [
        _text(request.get("time")),
        _text(request.get("id")),
        _text(request.get("client")),
        " ".join(str(part) for part in parts if part) or "-",
        _text(request.get("status")),
        _text(request.get("ended")),
        _seconds(_total(request)),
        ", ".join(tries),
    ]


def _details(request: Mapping[str, Any]) -> str:
    values = [(key, _text(request.get(key))) for key in _KEYS]
    values += [(f"{name} seconds", _seconds(value)) for name, value in _phases(request).items()]
    for item in _tries(request):
        reason, result = _text(item.get("reason")), _text(item.get("result"))
        text = f"{_text(item.get('server'))} ({reason}): {result}"
        values.append(("try", f"{text}, {_seconds(item.get('seconds'))} s"))
    return "".join(f"{escape(name)}: {escape(value)}\n" for name, value in values)


def _total(request: Mapping[str, Any]) -> float | None:
    """The seconds in the queue, and of failed attempts and of the last one."""
    seconds = [_phases(request).get("queue"), *(item.get("seconds") for item in _tries(request))]
    numbers = [value for value in seconds if isinstance(value, (int, float))]
    return sum(numbers) if numbers else None


def _phases(request: Mapping[str, Any]) -> Mapping[str, Any]:
    phases = request.get("phases")
    return phases if isinstance(phases, dict) else {}


def _tries(request: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    tries = request.get("tries")
    return [item for item in tries if isinstance(item, dict)] if isinstance(tries, list) else []


def _text(value: Any) -> str:
    return "-" if value is None else str(value)


def _seconds(value: Any) -> str:
    return f"{value:.6f}" if isinstance(value, (int, float)) else "-"
