"""The table of servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from balancebeam.cli.terminal import Column, Terminal, table

_COLUMNS = (
    Column("POOL", wrappable=True),
    Column("SERVER", wrappable=True),
    Column("STATE", color=True),
    Column("WEIGHT", align_right=True),
    Column("IN FLIGHT", align_right=True),
    Column("REQUESTS", align_right=True),
    Column("FAILURES", align_right=True),
    Column("SINCE"),
    Column("REASON"),
)

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def status_table(servers: Sequence[Mapping[str, Any]], now: float, terminal: Terminal) -> str:
    """The lines about `servers`; `now` is in seconds since the epoch."""
    if not servers:
        return "there are no servers\n"
    return table(_COLUMNS, [_row(server, now) for server in servers], terminal)


def _row(server: Mapping[str, Any], now: float) -> list[str]:
    def cell(name: str) -> str:
        value = server.get(name)
        return "-" if value is None else str(value)

    names = ("state", "weight", "in_flight", "requests", "failures")
    return [
        cell("pool"),
        cell("address") + (" (backup)" if server.get("backup") is True else ""),
        *map(cell, names),
        format_age(server.get("since"), now),
        str(server.get("reason") or ""),
    ]


def format_age(since: Any, now: float) -> str:
    """How long ago the time `since` was, in the largest unit that there is one of."""
    if not isinstance(since, str):
        return "-"
    try:
        # What `fromisoformat` reads of RFC 3339 before Python 3.11.
        moment = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return since
    # Clocks of two machines differ.
    seconds = max(0, int(now - moment))
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return "now"
