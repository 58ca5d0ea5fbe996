"""Table of the servers and their states."""

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

# The keys of a server in the admin API, for the first columns.
_KEYS = ("pool", "address", "state", "weight", "in_flight", "requests", "failures")

_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def status_table(servers: Sequence[Mapping[str, Any]], now: float, terminal: Terminal) -> str:
    """
    Format a table with one row for each server.

    Args:
        servers: JSON objects of `GET /upstreams`; missing keys are shown as "-".
        now: current time in seconds since the epoch.
        terminal: width and colors of the output.
    """
    if not servers:
        return "there are no servers\n"
    return table(_COLUMNS, [_row(server, now) for server in servers], terminal)


def _row(server: Mapping[str, Any], now: float) -> list[str]:
    cells = ["-" if server.get(key) is None else str(server[key]) for key in _KEYS]
    if server.get("backup") is True:
        cells[_KEYS.index("address")] += " (backup)"
    return [*cells, format_age(server.get("since"), now), str(server.get("reason") or "")]


def format_age(since: Any, now: float) -> str:
    """
    Format the time since a timestamp in the largest unit that fits, such as `5m ago`.

    Args:
        since: RFC 3339 timestamp. Other text is returned unchanged, other values as "-".
        now: current time in seconds since the epoch.
    """
    if not isinstance(since, str):
        return "-"
    try:
        # Before Python 3.11, `fromisoformat` does not accept the suffix Z.
        timestamp = datetime.fromisoformat(since.replace("Z", "+00:00")).timestamp()
    except (ValueError, OverflowError):
        return since
    # The clock of the balancer may be ahead of the local clock.
    seconds = max(0, int(now - timestamp))
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{seconds // size}{unit} ago"
    return "now"
