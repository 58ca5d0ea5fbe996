"""The table of `balancebeam top`, made from a snapshot of the admin API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple

from balancebeam.cli.terminal import Terminal, escape, state_color, width

_GAP = "  "

# Cells of an address or a pool name in a terminal that is too narrow for all of it.
_MIN_NAME_WIDTH = 12


class _Column(NamedTuple):
    """
    A column.

    Attributes:
        heading: text of the first line.
        cell: text for a server of the snapshot.
        rank: columns with a high rank are omitted first in a narrow terminal.
        align_right: whether cells are aligned to the right.
    """

    heading: str
    cell: Callable[[Mapping[str, Any]], str]
    rank: int
    align_right: bool = True


def top_table(snapshot: Mapping[str, Any], terminal: Terminal, height: int | None = None) -> str:
    """
    Format a snapshot: two lines of totals, and one line for each server.

    Args:
        snapshot: the data of the event `snapshot`; missing values are shown as "-".
        terminal: width and colors of the output.
        height: lines of the terminal; None if unlimited. Servers that need attention are shown
            first if there is not enough space for all.
    """
    servers = [server for server in _list(snapshot, "servers") if isinstance(server, dict)]
    lines = [*_totals(snapshot, servers), ""]
    hidden = 0
    if height is not None:
        # The heading, and the line with the number of servers that are not shown.
        space = max(1, height - len(lines) - 1)
        if len(servers) > space:
            hidden = len(servers) - max(1, space - 1)
            servers = sorted(servers, key=lambda server: server.get("state") == "up")[:-hidden]
    if servers:
        lines += _table(servers, terminal)
    else:
        lines.append("there are no servers")
    if hidden:
        lines.append(f"and {hidden} more; see balancebeam status")
    return "".join(f"{line}\n" for line in lines)


def _totals(snapshot: Mapping[str, Any], servers: Sequence[Mapping[str, Any]]) -> list[str]:
    process = snapshot.get("process")
    process = process if isinstance(process, dict) else {}
    pools = [pool for pool in _list(snapshot, "pools") if isinstance(pool, dict)]
    frontends = [item for item in _list(snapshot, "frontends") if isinstance(item, dict)]
    limits = [item for item in _list(snapshot, "limits") if isinstance(item, dict)]
    up = sum(server.get("state") == "up" for server in servers)
    state = "draining" if process.get("draining") else process.get("not_ready") or "ready"
    return [
        escape(
            f"balancebeam {process.get('version', '-')}, {state}, "
            f"up {format_seconds(process.get('uptime'))}, CPU {format_percent(process.get('cpu'))}"
        ),
        f"{_sum(pools, 'rate'):.0f} requests/s, {_sum(pools, 'in_flight'):.0f} in flight, "
        f"{_sum(pools, 'queued'):.0f} queued, {_sum(frontends, 'connections'):.0f} clients, "
        f"{up} of {len(servers)} servers up, "
        f"{_sum(limits, 'rejected_last_minute'):.0f} limited in the last minute",
    ]


def _table(servers: Sequence[Mapping[str, Any]], terminal: Terminal) -> list[str]:
    columns = list(_COLUMNS)
    cells = {column: [escape(column.cell(server)) for server in servers] for column in columns}
    widths = {
        column: max(width(text) for text in (column.heading, *cells[column])) for column in columns
    }
    if terminal.width is not None:
        while _total(columns, widths) > terminal.width and len(columns) > 2:
            columns.remove(max(columns, key=lambda column: column.rank))
        # A long address leaves space for the state at least.
        excess = _total(columns, widths) - terminal.width
        if excess > 0:
            widths[_SERVER] = max(_MIN_NAME_WIDTH, widths[_SERVER] - excess)
    lines = [_GAP.join(_pad(column, column.heading, widths[column]) for column in columns)]
    for index in range(len(servers)):
        pieces = []
        for column in columns:
            text = cells[column][index]
            piece = _pad(column, text, widths[column])
            color = state_color(text) if terminal.colors and column is _STATE else None
            pieces.append(piece if color is None else f"{color}{piece}\x1b[0m")
        lines.append(_GAP.join(pieces))
    return [line.rstrip() for line in lines]


def _total(columns: Sequence[_Column], widths: Mapping[_Column, int]) -> int:
    return sum(widths[column] for column in columns) + len(_GAP) * (len(columns) - 1)


def _pad(column: _Column, text: str, cells: int) -> str:
    """Return `text` with exactly so many cells; the beginning of a text that is too long."""
    while width(text) > cells:
        text = f"{text[:-2]}\u2026" if len(text) > 1 else ""
    padding = " " * (cells - width(text))
    return padding + text if column.align_right else text + padding


def _text(key: str) -> Callable[[Mapping[str, Any]], str]:
    def cell(server: Mapping[str, Any]) -> str:
        value = server.get(key)
        return "-" if value is None else str(value)

    return cell


def _server_name(server: Mapping[str, Any]) -> str:
    return _text("address")(server) + (" (backup)" if server.get("backup") is True else "")


def format_percent(value: Any) -> str:
    """Format a share, such as 0.123 as `12.3%`; other values than numbers as "-"."""
    return f"{value * 100:.1f}%" if _is_number(value) else "-"


def format_milliseconds(value: Any) -> str:
    """Format seconds as milliseconds, such as `12.5ms`, and from 10 s on as seconds."""
    if not _is_number(value):
        return "-"
    return f"{value:.1f}s" if value >= 10 else f"{value * 1000:.{1 if value < 0.1 else 0}f}ms"


def format_seconds(value: Any) -> str:
    """Format a duration in its two largest units, such as `3d 4h`."""
    if not _is_number(value):
        return "-"
    seconds = max(0, int(value))
    units = ((seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "m"))
    parts = [f"{number}{unit}" for number, unit in (*units, (seconds % 60, "s")) if number]
    return " ".join(parts[:2]) or "0s"


def _rate(server: Mapping[str, Any]) -> str:
    value = server.get("rate")
    return f"{value:.0f}" if _is_number(value) else "-"


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _list(snapshot: Mapping[str, Any], key: str) -> list[Any]:
    value = snapshot.get(key)
    return value if isinstance(value, list) else []


def _sum(items: Sequence[Mapping[str, Any]], key: str) -> float:
    return float(sum(item[key] for item in items if _is_number(item.get(key))))


_SERVER = _Column("SERVER", _server_name, 0, align_right=False)
_STATE = _Column("STATE", _text("state"), 1, align_right=False)
_COLUMNS = (
    _Column("POOL", _text("pool"), 6, align_right=False),
    _SERVER,
    _STATE,
    _Column("WEIGHT", _text("weight"), 9),
    _Column("SHARE", lambda server: format_percent(server.get("share")), 7),
    _Column("REQ/S", _rate, 2),
    _Column("ERRORS", lambda server: format_percent(server.get("error_rate")), 3),
    _Column("P50", lambda server: format_milliseconds(server.get("p50")), 8),
    _Column("P99", lambda server: format_milliseconds(server.get("p99")), 5),
    _Column("IN FLIGHT", _text("in_flight"), 4),
    _Column("IDLE", _text("idle"), 10),
)
