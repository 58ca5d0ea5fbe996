"""Parsers of `[[pool]]` tables, with their servers, health checks, retries and queues."""

from __future__ import annotations

import re
from typing import Any

from attrs import evolve

from balancebeam.balancing.registry import algorithm_name
from balancebeam.config import values as v
from balancebeam.config.addresses import parse_server, parse_server_url
from balancebeam.config.limits import parse_limits
from balancebeam.config.reader import Table
from balancebeam.config.tls import parse_pool_tls
from balancebeam.core.settings import (
    DEFAULT_HEALTH_PATH,
    RETRY_CONDITIONS,
    UPSTREAM_PROTOCOLS,
    HealthCheckSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    QueueSettings,
    RetrySettings,
    ServerSettings,
)

_PROXY_VERSIONS = {"v1": 1, "v2": 2}

# The name of a service in a .proto file, with its package: identifiers with dots between them. A
# server may also register other names, which gRPC does not restrict; these are the usual ones.
_GRPC_SERVICE = re.compile(r"[A-Za-z0-9_\-./]{1,255}")


def parse_pool(table: Table, first: bool) -> PoolSettings:
    """
    Parse one `[[pool]]`.

    Args:
        first: whether it is the first pool, which has a default name.
    """
    defaults = PoolSettings()
    if not first and "name" not in table:
        table.reject("name", "missing name: expected one for every pool but the first")
    settings = PoolSettings(
        name=table.get("name", v.name, defaults.name),
        servers=_parse_servers(table),
        algorithm=table.get("algorithm", v.parsed(algorithm_name), defaults.algorithm),
        timeouts=_parse_timeouts(table.table("timeouts")),
        active=_parse_health_check(table.table("health")),
        passive=_parse_outlier_detection(table.table("passive")),
        retries=_parse_retries(table.table("retries")),
        queue=_parse_queue(table.table("queue")),
        slow_start=table.get("slow_start", v.seconds_or_zero, defaults.slow_start),
        limits=parse_limits(table.tables("limit")),
        tls=parse_pool_tls(table.table("tls")),
        protocol=table.get("protocol", _parse_protocol, defaults.protocol),
    )
    table.reject_unknown_keys()
    return settings


def _parse_servers(table: Table) -> tuple[ServerSettings, ...]:
    servers: list[ServerSettings] = []
    for path, value in table.get_raw_list("upstreams"):
        server: ServerSettings | None = None
        if isinstance(value, dict):
            server = _parse_server_table(Table(table.document, path, value))
        else:
            try:
                server = parse_server(v.string(value))
            except ValueError as error:
                table.document.add_error(path, str(error))
        if server is None:
            table.invalid_keys.add("upstreams")
            continue
        if any(server.address == earlier.address for earlier in servers):
            table.document.add_error(
                path, f"duplicate address {server.address}: expected each server once"
            )
        servers.append(server)
    return tuple(servers)


def _parse_server_table(table: Table) -> ServerSettings | None:
    """Parse a server with options; `None` if its address is missing or invalid."""
    if "address" not in table:
        table.document.add_error(table.path, "missing address: expected host:port or unix:/path")
    server = table.get("address", v.parsed(parse_server_url), None)
    weight = table.get("weight", v.weight, 1)
    backup = table.get("backup", v.boolean, False)
    max_in_flight = table.get("max_in_flight", v.integer(1), None)
    proxy_protocol = table.get("proxy", _parse_proxy_version, None)
    protocol = table.get("protocol", _parse_protocol, None)
    table.reject_unknown_keys()
    if server is None:
        return None
    return evolve(
        server,
        weight=weight,
        backup=backup,
        max_in_flight=max_in_flight,
        proxy_protocol=proxy_protocol,
        protocol=protocol,
    )


def _parse_protocol(value: Any) -> str:
    """Return the protocol of requests to servers."""
    return v.one_of(UPSTREAM_PROTOCOLS)(value)


def _parse_proxy_version(value: Any) -> int:
    """Return the version of the PROXY protocol."""
    return _PROXY_VERSIONS[v.one_of(tuple(_PROXY_VERSIONS))(value)]


def _parse_timeouts(table: Table | None) -> PoolTimeouts:
    defaults = PoolTimeouts()
    if table is None:
        return defaults
    settings = PoolTimeouts(
        table.get("connect", v.seconds, defaults.connect),
        table.get("upstream", v.seconds, defaults.upstream),
    )
    table.reject_unknown_keys()
    return settings


def _parse_health_check(table: Table | None) -> HealthCheckSettings | None:
    """Parse `[pool.health]`; without that table there are no active health checks."""
    if table is None:
        return None
    defaults = HealthCheckSettings(None if "grpc" in table else DEFAULT_HEALTH_PATH)
    settings = HealthCheckSettings(
        path=table.get("path", v.parsed(v.parse_check_path), defaults.path),
        interval=table.get("interval", v.seconds, defaults.interval),
        timeout=table.get("timeout", v.seconds, None),
        fall=table.get("fall", v.integer(1, 1000), defaults.fall),
        rise=table.get("rise", v.integer(1, 1000), defaults.rise),
        status=table.get("status", v.status_range, defaults.status),
        grpc=table.get("grpc", v.parsed(_parse_grpc_service), None),
    )
    table.reject_unknown_keys()
    return settings


def _parse_grpc_service(text: str) -> str:
    """Parse the name of a gRPC service; empty for the server as a whole."""
    if text and _GRPC_SERVICE.fullmatch(text) is None:
        raise ValueError(
            f"invalid service {v.display(text)}: expected a name such as my.package.Service, "
            'or "" for the whole server'
        )
    return text


def _parse_outlier_detection(table: Table | None) -> OutlierDetectionSettings:
    defaults = OutlierDetectionSettings()
    if table is None:
        return defaults
    settings = OutlierDetectionSettings(
        failures=table.get("failures", v.integer(1, 10**6), defaults.failures),
        cooldown=table.get("cooldown", v.seconds_or_zero, defaults.cooldown),
        error_ratio=table.get("error_ratio", v.fraction, None),
        window=table.get("window", v.seconds, defaults.window),
        min_requests=table.get("min_requests", v.integer(1), defaults.min_requests),
        max_ejected_ratio=table.get("max_ejected_ratio", v.fraction, defaults.max_ejected_ratio),
        bad_answers=table.get("bad_answers", v.integer(1, 10**6), defaults.bad_answers),
    )
    table.reject_unknown_keys()
    return settings


def _parse_retries(table: Table | None) -> RetrySettings:
    defaults = RetrySettings()
    if table is None:
        return defaults
    settings = RetrySettings(
        table.get("attempts", v.integer(1, 1000), defaults.attempts),
        table.get("budget", v.fraction, defaults.budget),
        table.get("on", v.list_of(v.one_of(RETRY_CONDITIONS)), defaults.on),
    )
    table.reject_unknown_keys()
    return settings


def _parse_queue(table: Table | None) -> QueueSettings:
    defaults = QueueSettings()
    if table is None:
        return defaults
    settings = QueueSettings(
        table.get("limit", v.integer(0, 10**6), defaults.limit),
        table.get("timeout", v.seconds_or_zero, defaults.timeout),
    )
    table.reject_unknown_keys()
    return settings
