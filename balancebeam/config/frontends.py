"""Frontends in a configuration file."""

from __future__ import annotations

from typing import Any

from balancebeam.config import values as v
from balancebeam.config.addresses import parse_listen_address
from balancebeam.config.limits import check_tcp_limits, parse_limits
from balancebeam.config.reader import Table
from balancebeam.core.networks import parse_network
from balancebeam.core.settings import (
    ForwardingSettings,
    FrontendSettings,
    FrontendTimeouts,
    RouteSettings,
)
from balancebeam.routing.matchers import HostPathMatcher

MODES = ("http", "tcp")

ACCESS_LOG_FORMATS = ("combined", "json")

# What has no meaning for connections of which nothing is read.
_HTTP_ONLY = ("max_body", "registration", "registration_from", "forwarding")


def parse_frontend(table: Table) -> FrontendSettings:
    """What one [[frontend]] says."""
    usual = FrontendSettings()
    networks = v.parsed(parse_network)
    settings = FrontendSettings(
        name=table.get("name", v.name, usual.name),
        bind=table.get_list("bind", v.parsed(parse_listen_address), usual.bind),
        mode=table.get("mode", v.one_of(MODES), usual.mode),
        pool=table.get("pool", v.name, usual.pool),
        routes=tuple(_parse_route(route) for route in table.tables("route")),
        trusted_proxies=table.get_list("trusted_proxies", networks),
        max_body=table.get("max_body", v.size, None),
        registration=table.get("registration", v.boolean, False),
        registration_from=table.get_list("registration_from", networks),
        access_log=table.get("access_log", v.file_path, None),
        access_log_format=table.get("access_log_format", v.one_of(ACCESS_LOG_FORMATS), "combined"),
        timeouts=_parse_timeouts(table.table("timeouts")),
        limits=parse_limits(table.tables("limit")),
        allow=table.get_list("allow", networks),
        deny=table.get_list("deny", networks),
        forwarding=_parse_forwarding(table.table("forwarding")),
        log_connections=table.get("log_connections", v.boolean, False),
    )
    table.reject_unknown_keys()
    if "bind" in table and not settings.bind and "bind" not in table.invalid_keys:
        table.add_error("bind", "needs an address at least")
    if settings.mode == "tcp":
        _check_tcp(table)
    elif "log_connections" in table:
        table.add_error(
            "log_connections", "belongs to the mode tcp; for requests there is access_log"
        )
    return settings


def _check_tcp(table: Table) -> None:
    for key in _HTTP_ONLY:
        if key in table:
            table.add_error(key, 'belongs to the mode "http"')
    check_tcp_limits(table.tables("limit"))
    for route in table.tables("route"):
        check_tcp_limits(route.tables("limit"))
        if "path" in route:
            route.add_error("path", 'belongs to the mode "http"')


def _parse_route(table: Table) -> RouteSettings:
    if "pool" not in table:
        table.document.add_error(table.path, "needs a pool")
    route = RouteSettings(
        pool=table.get("pool", v.name, ""),
        host=table.get("host", _parse_host, None),
        path=table.get("path", _parse_path, None),
        limits=parse_limits(table.tables("limit")),
    )
    table.reject_unknown_keys()
    if "host" not in table and "path" not in table:
        table.document.add_error(table.path, "needs a host or a path to go by")
    return route


def _parse_host(value: Any) -> str:
    HostPathMatcher(host=v.text(value))
    return str(value)


def _parse_path(value: Any) -> str:
    HostPathMatcher(path=v.text(value))
    return str(value)


def _parse_timeouts(table: Table | None) -> FrontendTimeouts:
    usual = FrontendTimeouts()
    if table is None:
        return usual
    settings = FrontendTimeouts(
        table.get("header", v.seconds, usual.header),
        table.get("idle", v.seconds, usual.idle),
        table.get("tunnel", v.seconds_or_zero, usual.tunnel),
    )
    table.reject_unknown_keys()
    return settings


def _parse_forwarding(table: Table | None) -> ForwardingSettings:
    usual = ForwardingSettings()
    if table is None:
        return usual
    settings = ForwardingSettings(
        table.get("x_forwarded", v.boolean, usual.x_forwarded),
        table.get("forwarded", v.boolean, usual.forwarded),
        table.get("request_id", v.one_of(("off", "keep", "make")), usual.request_id),
    )
    table.reject_unknown_keys()
    return settings
