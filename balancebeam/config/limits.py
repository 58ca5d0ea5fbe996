"""Limits in a configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balancebeam.config import values as v
from balancebeam.config.reader import Table
from balancebeam.core.settings import LimitSettings
from balancebeam.ratelimit.keys import build_key_function
from balancebeam.ratelimit.limit import ALGORITHMS, build_limit


def parse_limits(tables: Sequence[Table]) -> tuple[LimitSettings, ...]:
    """What the tables of limits say; those with mistakes are left out."""
    found = (_parse_limit(table) for table in tables)
    return tuple(limit for limit in found if limit is not None)


def _parse_limit(table: Table) -> LimitSettings | None:
    usual = LimitSettings(1)
    if "requests" not in table:
        table.document.add_error(table.path, "needs requests, the number that is let in")
    limit = LimitSettings(
        requests=table.get("requests", v.integer(1), 1),
        window=table.get("per", v.seconds, usual.window),
        algorithm=table.get("algorithm", v.one_of(ALGORITHMS), usual.algorithm),
        burst=table.get("burst", v.integer(1), None),
        key=table.get("key", _parse_key, usual.key),
        ipv6_prefix=table.get("ipv6_prefix", v.integer(1, 128), usual.ipv6_prefix),
        dry_run=table.get("dry_run", v.boolean, usual.dry_run),
        status=table.get("status", v.integer(400, 599), usual.status),
        message=table.get("message", v.text, usual.message),
        name=table.get("name", v.text, usual.name),
    )
    table.reject_unknown_keys()
    if "key" in table.invalid_keys:
        return None
    try:
        build_limit(limit)
    except ValueError as error:
        table.document.add_error(table.path, str(error))
        return None
    return limit


def _parse_key(value: Any) -> tuple[str, ...]:
    names = v.list_of(v.text)(value)
    build_key_function(names)
    return names


def check_tcp_limits(tables: Sequence[Table]) -> None:
    """Of a connection nothing is known but where it comes from."""
    for table in tables:
        if "key" in table.invalid_keys:
            continue
        for name in table.get("key", _parse_key, LimitSettings(1).key):
            if name != "client":
                table.add_error("key", f'{name} belongs to the mode "http"; give "client"')
