"""Limits in a configuration file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from balancebeam.config import values as v
from balancebeam.config.reader import Table
from balancebeam.core.settings import LimitSettings
from balancebeam.ratelimit.keys import key_maker
from balancebeam.ratelimit.limit import ALGORITHMS, make_limit


def read_limits(tables: Sequence[Table]) -> tuple[LimitSettings, ...]:
    """What the tables of limits say; those with mistakes are left out."""
    found = (_read_limit(table) for table in tables)
    return tuple(limit for limit in found if limit is not None)


def _read_limit(table: Table) -> LimitSettings | None:
    usual = LimitSettings(1)
    if "requests" not in table:
        table.document.say(table.path, "needs requests, the number that is let in")
    limit = LimitSettings(
        requests=table.take("requests", v.whole(1), 1),
        per=table.take("per", v.seconds, usual.per),
        algorithm=table.take("algorithm", v.one_of(ALGORITHMS), usual.algorithm),
        burst=table.take("burst", v.whole(1), None),
        key=table.take("key", _read_key, usual.key),
        ipv6_prefix=table.take("ipv6_prefix", v.whole(1, 128), usual.ipv6_prefix),
        dry_run=table.take("dry_run", v.flag, usual.dry_run),
        status=table.take("status", v.whole(400, 599), usual.status),
        message=table.take("message", v.text, usual.message),
        name=table.take("name", v.text, usual.name),
    )
    table.close()
    if "key" in table.bad:
        return None
    try:
        make_limit(limit)
    except ValueError as error:
        table.document.say(table.path, str(error))
        return None
    return limit


def _read_key(value: Any) -> tuple[str, ...]:
    names = v.each(v.text)(value)
    key_maker(names)
    return names


def check_tcp_limits(tables: Sequence[Table]) -> None:
    """Of a connection nothing is known but where it comes from."""
    for table in tables:
        if "key" in table.bad:
            continue
        for name in table.take("key", _read_key, LimitSettings(1).key):
            if name != "client":
                table.say("key", f'{name} belongs to the mode "http"; give "client"')
