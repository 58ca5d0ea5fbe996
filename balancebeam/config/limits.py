"""Parsers of the tables `limit` of frontends, routes and pools: rate limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balancebeam.config import values as v
from balancebeam.config.reader import Table
from balancebeam.core.settings import LimitSettings
from balancebeam.ratelimit.keys import build_key_function
from balancebeam.ratelimit.limit import ALGORITHMS, build_limit


def parse_limits(tables: Sequence[Table]) -> tuple[LimitSettings, ...]:
    """Parse the limits of a frontend, a route or a pool, one for each table."""
    return tuple(_parse_limit(table) for table in tables)


def _parse_limit(table: Table) -> LimitSettings:
    defaults = LimitSettings(1)
    if "requests" not in table:
        table.document.add_error(
            table.path, "missing requests: expected the number of requests that are admitted"
        )
    limit = LimitSettings(
        requests=table.get("requests", v.integer(1), defaults.requests),
        window=table.get("per", v.seconds, defaults.window),
        algorithm=table.get("algorithm", v.one_of(ALGORITHMS), defaults.algorithm),
        burst=table.get("burst", v.integer(1), None),
        key=table.get("key", _parse_key, defaults.key),
        ipv6_prefix=table.get("ipv6_prefix", v.integer(1, 128), defaults.ipv6_prefix),
        dry_run=table.get("dry_run", v.boolean, defaults.dry_run),
        status=table.get("status", v.integer(400, 599), defaults.status),
        message=table.get("message", v.string, defaults.message),
        name=table.get("name", v.string, defaults.name),
    )
    table.reject_unknown_keys()
    if "key" not in table.invalid_keys:
        # What the limit itself rejects: a name, explicit or made of the key, that cannot be sent.
        try:
            build_limit(limit)
        except ValueError as error:
            table.document.add_error(table.path, str(error))
    return limit


def _parse_key(value: Any) -> tuple[str, ...]:
    """Return the parts of a key, which the function that computes the key validates."""
    parts = v.list_of(v.string)(value)
    build_key_function(parts)
    return parts
