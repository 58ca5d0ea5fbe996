"""Pools in a configuration file."""

from __future__ import annotations

from typing import Any

from balancebeam.balancing.registry import algorithm_name
from balancebeam.config import values as v
from balancebeam.config.addresses import parse_server, parse_server_address
from balancebeam.config.checks import parse_check_path
from balancebeam.config.limits import parse_limits
from balancebeam.config.reader import Table
from balancebeam.core.settings import (
    HealthCheckSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    QueueSettings,
    RetrySettings,
    ServerSettings,
)

_INVALID_SERVER = ServerSettings(parse_server_address("localhost:1"))


def parse_pool(table: Table, first: bool) -> PoolSettings:
    """What one [[pool]] says. Only the `first` may do without a name."""
    usual = PoolSettings()
    if not first and "name" not in table:
        table.document.add_error(table.path, "needs a name")
        table.invalid_keys.add("name")
    settings = PoolSettings(
        name=table.get("name", v.name, usual.name),
        servers=_parse_servers(table),
        algorithm=table.get("algorithm", v.parsed(algorithm_name), usual.algorithm),
        timeouts=_parse_timeouts(table.table("timeouts")),
        active=_parse_health_check(table.table("health")),
        passive=_parse_passive(table.table("passive")),
        retries=_parse_retries(table.table("retries")),
        queue=_parse_queue(table.table("queue")),
        slow_start=table.get("slow_start", v.seconds_or_zero, usual.slow_start),
        limits=parse_limits(table.tables("limit")),
    )
    table.reject_unknown_keys()
    return settings


def _parse_servers(table: Table) -> tuple[ServerSettings, ...]:
    servers: list[ServerSettings] = []
    for path, value in table.get_raw_list("upstreams"):
        if isinstance(value, dict):
            server = _parse_server_table(Table(table.document, path, value))
        else:
            try:
                server = parse_server(v.text(value))
            except ValueError as error:
                table.document.add_error(path, str(error))
                continue
        if server.address is _INVALID_SERVER.address:
            continue
        if any(server.address == other.address for other in servers):
            table.document.add_error(path, f"{server.address} is given twice")
        servers.append(server)
    return tuple(servers)


def _parse_server_table(table: Table) -> ServerSettings:
    if "address" not in table:
        table.document.add_error(table.path, "needs an address")
    settings = ServerSettings(
        table.get("address", v.parsed(parse_server_address), _INVALID_SERVER.address),
        table.get("weight", v.integer(0, 256), 1),
        table.get("backup", v.boolean, False),
        table.get("max_in_flight", v.integer(1), None),
        table.get("proxy", _parse_proxy, None),
    )
    table.reject_unknown_keys()
    return settings


def _parse_proxy(value: Any) -> int:
    return {"v1": 1, "v2": 2}[v.one_of(("v1", "v2"))(value)]


def _parse_timeouts(table: Table | None) -> PoolTimeouts:
    usual = PoolTimeouts()
    if table is None:
        return usual
    settings = PoolTimeouts(
        table.get("connect", v.seconds, usual.connect),
        table.get("upstream", v.seconds, usual.upstream),
    )
    table.reject_unknown_keys()
    return settings


def _parse_health_check(table: Table | None) -> HealthCheckSettings | None:
    if table is None:
        return None
    settings = HealthCheckSettings(
        path=table.get("path", v.parsed(parse_check_path), "/health"),
        interval=table.get("interval", v.seconds, 10.0),
        timeout=table.get("timeout", v.seconds, None),
        fall=table.get("fall", v.integer(1, 1000), 2),
        rise=table.get("rise", v.integer(1, 1000), 2),
        status=table.get("status", v.status_range, (200, 299)),
    )
    table.reject_unknown_keys()
    return settings


def _parse_passive(table: Table | None) -> OutlierDetectionSettings:
    usual = OutlierDetectionSettings()
    if table is None:
        return usual
    settings = OutlierDetectionSettings(
        failures=table.get("failures", v.integer(1, 10**6), usual.failures),
        cooldown=table.get("cooldown", v.seconds_or_zero, usual.cooldown),
        error_ratio=table.get("error_ratio", v.fraction, None),
        window=table.get("window", v.seconds, usual.window),
        min_requests=table.get("min_requests", v.integer(1), usual.min_requests),
        max_ejected_ratio=table.get("max_ejected_ratio", v.fraction, usual.max_ejected_ratio),
    )
    table.reject_unknown_keys()
    return settings


def _parse_retries(table: Table | None) -> RetrySettings:
    usual = RetrySettings()
    if table is None:
        return usual
    settings = RetrySettings(
        table.get("attempts", v.integer(1, 1000), usual.attempts),
        table.get("budget", v.fraction, usual.budget),
    )
    table.reject_unknown_keys()
    return settings


def _parse_queue(table: Table | None) -> QueueSettings:
    usual = QueueSettings()
    if table is None:
        return usual
    settings = QueueSettings(
        table.get("limit", v.integer(0, 10**6), usual.limit),
        table.get("timeout", v.seconds_or_zero, usual.timeout),
    )
    table.reject_unknown_keys()
    return settings
