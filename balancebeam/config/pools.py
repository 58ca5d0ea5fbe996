"""Pools in a configuration file."""

from __future__ import annotations

from typing import Any

from balancebeam.balancing.registry import algorithm_name
from balancebeam.config import values as v
from balancebeam.config.addresses import read_server, read_server_address
from balancebeam.config.checks import read_check_path
from balancebeam.config.limits import read_limits
from balancebeam.config.reader import Table
from balancebeam.core.settings import (
    ActiveChecks,
    PassiveChecks,
    PoolSettings,
    PoolTimeouts,
    Retries,
    ServerSettings,
    Waiting,
)

_NOBODY = ServerSettings(read_server_address("localhost:1"))


def read_pool(table: Table, first: bool) -> PoolSettings:
    """What one [[pool]] says. Only the `first` may do without a name."""
    usual = PoolSettings()
    if not first and "name" not in table:
        table.document.say(table.path, "needs a name")
        table.bad.add("name")
    settings = PoolSettings(
        name=table.take("name", v.name, usual.name),
        servers=_read_servers(table),
        algorithm=table.take("algorithm", v.from_text(algorithm_name), usual.algorithm),
        timeouts=_read_timeouts(table.table("timeouts")),
        active=_read_health(table.table("health")),
        passive=_read_passive(table.table("passive")),
        retries=_read_retries(table.table("retries")),
        waiting=_read_waiting(table.table("waiting")),
        slow_start=table.take("slow_start", v.seconds_or_none, usual.slow_start),
        limits=read_limits(table.tables("limit")),
    )
    table.close()
    return settings


def _read_servers(table: Table) -> tuple[ServerSettings, ...]:
    servers: list[ServerSettings] = []
    for path, value in table.raw("upstreams"):
        if isinstance(value, dict):
            server = _read_server_table(Table(table.document, path, value))
        else:
            try:
                server = read_server(v.text(value))
            except ValueError as error:
                table.document.say(path, str(error))
                continue
        if server.address is _NOBODY.address:
            continue
        if any(server.address == other.address for other in servers):
            table.document.say(path, f"{server.address} is given twice")
        servers.append(server)
    return tuple(servers)


def _read_server_table(table: Table) -> ServerSettings:
    if "address" not in table:
        table.document.say(table.path, "needs an address")
    settings = ServerSettings(
        table.take("address", v.from_text(read_server_address), _NOBODY.address),
        table.take("weight", v.whole(0, 256), 1),
        table.take("backup", v.flag, False),
        table.take("max_in_flight", v.whole(1), None),
        table.take("proxy", _read_proxy, None),
    )
    table.close()
    return settings


def _read_proxy(value: Any) -> int:
    return {"v1": 1, "v2": 2}[v.one_of(("v1", "v2"))(value)]


def _read_timeouts(table: Table | None) -> PoolTimeouts:
    usual = PoolTimeouts()
    if table is None:
        return usual
    settings = PoolTimeouts(
        table.take("connect", v.seconds, usual.connect),
        table.take("upstream", v.seconds, usual.upstream),
    )
    table.close()
    return settings


def _read_health(table: Table | None) -> ActiveChecks | None:
    if table is None:
        return None
    settings = ActiveChecks(
        path=table.take("path", v.from_text(read_check_path), "/health"),
        interval=table.take("interval", v.seconds, 10.0),
        timeout=table.take("timeout", v.seconds, None),
        fall=table.take("fall", v.whole(1, 1000), 2),
        rise=table.take("rise", v.whole(1, 1000), 2),
        status=table.take("status", v.status_range, (200, 299)),
    )
    table.close()
    return settings


def _read_passive(table: Table | None) -> PassiveChecks:
    usual = PassiveChecks()
    if table is None:
        return usual
    settings = PassiveChecks(
        failures=table.take("failures", v.whole(1, 10**6), usual.failures),
        cooldown=table.take("cooldown", v.seconds_or_none, usual.cooldown),
        error_ratio=table.take("error_ratio", v.share, None),
        window=table.take("window", v.seconds, usual.window),
        least_answers=table.take("least_answers", v.whole(1), usual.least_answers),
        most_ejected=table.take("most_ejected", v.share, usual.most_ejected),
    )
    table.close()
    return settings


def _read_retries(table: Table | None) -> Retries:
    usual = Retries()
    if table is None:
        return usual
    settings = Retries(
        table.take("attempts", v.whole(1, 1000), usual.attempts),
        table.take("budget", v.share, usual.budget),
    )
    table.close()
    return settings


def _read_waiting(table: Table | None) -> Waiting:
    usual = Waiting()
    if table is None:
        return usual
    settings = Waiting(
        table.take("limit", v.whole(0, 10**6), usual.limit),
        table.take("timeout", v.seconds_or_none, usual.timeout),
    )
    table.close()
    return settings
