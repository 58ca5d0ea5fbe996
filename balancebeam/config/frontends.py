"""Frontends in a configuration file."""

from __future__ import annotations

from typing import Any

from balancebeam.config import values as v
from balancebeam.config.addresses import read_listen_address
from balancebeam.config.limits import check_tcp_limits, read_limits
from balancebeam.config.reader import Table
from balancebeam.core.networks import read_network
from balancebeam.core.settings import Forwarding, FrontendSettings, FrontendTimeouts, RouteSettings
from balancebeam.routing.matchers import RouteRule

MODES = ("http", "tcp")

ACCESS_LOG_FORMATS = ("combined", "json")

# What has no meaning for connections of which nothing is read.
_HTTP_ONLY = ("max_body", "registration", "registration_from", "forwarding")


def read_frontend(table: Table) -> FrontendSettings:
    """What one [[frontend]] says."""
    usual = FrontendSettings()
    networks = v.from_text(read_network)
    settings = FrontendSettings(
        name=table.take("name", v.name, usual.name),
        bind=table.each("bind", v.from_text(read_listen_address), usual.bind),
        mode=table.take("mode", v.one_of(MODES), usual.mode),
        pool=table.take("pool", v.name, usual.pool),
        routes=tuple(_read_route(route) for route in table.tables("route")),
        trusted_proxies=table.each("trusted_proxies", networks),
        max_body=table.take("max_body", v.size, None),
        registration=table.take("registration", v.flag, False),
        registration_from=table.each("registration_from", networks),
        access_log=table.take("access_log", v.file_path, None),
        access_log_format=table.take("access_log_format", v.one_of(ACCESS_LOG_FORMATS), "combined"),
        timeouts=_read_timeouts(table.table("timeouts")),
        limits=read_limits(table.tables("limit")),
        allow=table.each("allow", networks),
        deny=table.each("deny", networks),
        forwarding=_read_forwarding(table.table("forwarding")),
        log_connections=table.take("log_connections", v.flag, False),
    )
    table.close()
    if "bind" in table and not settings.bind and "bind" not in table.bad:
        table.say("bind", "needs an address at least")
    if settings.mode == "tcp":
        _check_tcp(table)
    elif "log_connections" in table:
        table.say("log_connections", "belongs to the mode tcp; for requests there is access_log")
    return settings


def _check_tcp(table: Table) -> None:
    for key in _HTTP_ONLY:
        if key in table:
            table.say(key, 'belongs to the mode "http"')
    check_tcp_limits(table.tables("limit"))
    for route in table.tables("route"):
        check_tcp_limits(route.tables("limit"))
        if "path" in route:
            route.say("path", 'belongs to the mode "http"')


def _read_route(table: Table) -> RouteSettings:
    if "pool" not in table:
        table.document.say(table.path, "needs a pool")
    route = RouteSettings(
        pool=table.take("pool", v.name, ""),
        host=table.take("host", _read_host, None),
        path=table.take("path", _read_path, None),
        limits=read_limits(table.tables("limit")),
    )
    table.close()
    if "host" not in table and "path" not in table:
        table.document.say(table.path, "needs a host or a path to go by")
    return route


def _read_host(value: Any) -> str:
    RouteRule(host=v.text(value))
    return str(value)


def _read_path(value: Any) -> str:
    RouteRule(path=v.text(value))
    return str(value)


def _read_timeouts(table: Table | None) -> FrontendTimeouts:
    usual = FrontendTimeouts()
    if table is None:
        return usual
    settings = FrontendTimeouts(
        table.take("header", v.seconds, usual.header),
        table.take("idle", v.seconds, usual.idle),
        table.take("tunnel", v.seconds_or_none, usual.tunnel),
    )
    table.close()
    return settings


def _read_forwarding(table: Table | None) -> Forwarding:
    usual = Forwarding()
    if table is None:
        return usual
    settings = Forwarding(
        table.take("x_forwarded", v.flag, usual.x_forwarded),
        table.take("forwarded", v.flag, usual.forwarded),
        table.take("request_id", v.one_of(("off", "keep", "make")), usual.request_id),
    )
    table.close()
    return settings
