"""Text of the explanation of a request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from balancebeam.cli.terminal import Column, Terminal, escape, table

_CANDIDATE_COLUMNS = (
    Column("SERVER", wrappable=True),
    Column("STATE", color=True),
    Column("WEIGHT", align_right=True),
    Column("IN FLIGHT", align_right=True),
    Column("REASON"),
)
_CANDIDATE_KEYS = ("server", "state", "weight", "in_flight", "reason")

_LIMIT_COLUMNS = (
    Column("LIMIT", wrappable=True),
    Column("SCOPE", wrappable=True),
    Column("KEY", wrappable=True),
    Column("REMAINING", align_right=True),
    Column("VERDICT"),
)
_LIMIT_KEYS = ("name", "scope", "key", "remaining")


def explanation_text(explanation: Mapping[str, Any], terminal: Terminal) -> str:
    """
    Format an explanation: the route, the limits, the servers, and the answer.

    Args:
        explanation: JSON object of `GET /explain`; missing keys are shown as "-".
        terminal: width and colors of the output.
    """
    lines = [
        f"frontend: {_text(explanation.get('frontend'))}",
        f"route:    {_text(explanation.get('route') or 'default')}",
        f"pool:     {_text(explanation.get('pool'))}",
        f"answer:   {_answer(explanation)}",
    ]
    parts = ["".join(f"{escape(line)}\n" for line in lines)]
    limits = _objects(explanation.get("limits"))
    if limits:
        rows = [[*_cells(limit, _LIMIT_KEYS), _verdict(limit)] for limit in limits]
        parts.append(table(_LIMIT_COLUMNS, rows, terminal))
    candidates = _objects(explanation.get("candidates"))
    if candidates:
        rows = [_cells(candidate, _CANDIDATE_KEYS) for candidate in candidates]
        parts.append(table(_CANDIDATE_COLUMNS, rows, terminal))
    return "\n".join(parts)


def _answer(explanation: Mapping[str, Any]) -> str:
    status = explanation.get("answer")
    return "of a server" if status is None else f"{status}, by the balancer"


def _verdict(limit: Mapping[str, Any]) -> str:
    if limit.get("refuses"):
        return f"refuses, retry after {_text(limit.get('retry_after'))} s"
    return "exceeded, dry run" if limit.get("retry_after") else "admits"


def _objects(items: Any) -> Sequence[Mapping[str, Any]]:
    """The JSON objects of an array; nothing else can be shown as a row."""
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def _cells(item: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [_text(item.get(key)) for key in keys]


def _text(value: Any) -> str:
    return "-" if value is None else str(value)
