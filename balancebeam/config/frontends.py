"""Parsers of `[[frontend]]` tables, with their routes, timeouts and forwarding settings."""

from __future__ import annotations

import re
from typing import Any

from balancebeam.config import values as v
from balancebeam.config.addresses import parse_bind_address
from balancebeam.config.limits import parse_limits
from balancebeam.config.reader import Table
from balancebeam.config.tls import parse_frontend_tls
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

# RFC 9110, 7.6.3: `received-by = pseudonym [ ":" port ]`, where a pseudonym is a token.
_VIA_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,255}(:[0-9]{1,5})?")

_REQUEST_ID_MODES = ("off", "keep", "make")


def parse_frontend(table: Table) -> FrontendSettings:
    """Parse one `[[frontend]]`."""
    defaults = FrontendSettings()
    networks = v.parsed(parse_network)
    settings = FrontendSettings(
        name=table.get("name", v.name, defaults.name),
        bind=table.get_list("bind", v.parsed(parse_bind_address), defaults.bind),
        mode=table.get("mode", v.one_of(MODES), defaults.mode),
        pool=table.get("pool", v.name, defaults.pool),
        routes=tuple(_parse_route(route) for route in table.tables("route")),
        trusted_proxies=table.get_list("trusted_proxies", networks),
        max_body=table.get("max_body", v.size, None),
        registration=table.get("registration", v.boolean, defaults.registration),
        registration_from=table.get_list("registration_from", networks),
        access_log=table.get("access_log", v.file_path, None),
        access_log_format=table.get(
            "access_log_format", v.one_of(ACCESS_LOG_FORMATS), defaults.access_log_format
        ),
        timeouts=_parse_timeouts(table.table("timeouts")),
        limits=parse_limits(table.tables("limit")),
        allow=table.get_list("allow", networks),
        deny=table.get_list("deny", networks),
        forwarding=_parse_forwarding(table.table("forwarding")),
        log_connections=table.get("log_connections", v.boolean, defaults.log_connections),
        max_connections=table.get("max_connections", v.integer(1), None),
        tls=parse_frontend_tls(table.table("tls")),
        redirect_https=table.get("redirect_https", v.boolean, defaults.redirect_https),
        h2c=table.get("h2c", v.boolean, defaults.h2c),
    )
    table.reject_unknown_keys()
    if "bind" in table and not settings.bind and "bind" not in table.invalid_keys:
        table.add_error("bind", "empty list: expected at least one address")
    return settings


def _parse_route(table: Table) -> RouteSettings:
    if "pool" not in table:
        table.document.add_error(table.path, "missing pool: expected the name of a pool")
    route = RouteSettings(
        pool=table.get("pool", v.name, ""),
        host=table.get("host", _parse_host, None),
        path=table.get("path", _parse_path, None),
        limits=parse_limits(table.tables("limit")),
    )
    table.reject_unknown_keys()
    if "host" not in table and "path" not in table:
        table.document.add_error(table.path, "empty route: expected a host, a path or both")
    return route


def _parse_host(value: Any) -> str:
    """Return the host of a route, which its matcher validates."""
    HostPathMatcher(host=v.string(value))
    return str(value)


def _parse_path(value: Any) -> str:
    """Return the path of a route, which its matcher validates."""
    HostPathMatcher(path=v.string(value))
    return str(value)


def _parse_via(value: Any) -> bool | str:
    """Return whether Via is sent, or the name that it has."""
    if isinstance(value, bool) or (isinstance(value, str) and _VIA_NAME.fullmatch(value)):
        return value
    raise ValueError(f"invalid value {v.display(value)}: expected true, false or a name")


def _parse_timeouts(table: Table | None) -> FrontendTimeouts:
    defaults = FrontendTimeouts()
    if table is None:
        return defaults
    settings = FrontendTimeouts(
        table.get("header", v.seconds, defaults.header),
        table.get("idle", v.seconds, defaults.idle),
        table.get("tunnel", v.seconds_or_zero, defaults.tunnel),
    )
    table.reject_unknown_keys()
    return settings


def _parse_forwarding(table: Table | None) -> ForwardingSettings:
    defaults = ForwardingSettings()
    if table is None:
        return defaults
    settings = ForwardingSettings(
        table.get("x_forwarded", v.boolean, defaults.x_forwarded),
        table.get("forwarded", v.boolean, defaults.forwarded),
        table.get("request_id", v.one_of(_REQUEST_ID_MODES), defaults.request_id),
        table.get("via", _parse_via, defaults.via),
    )
    table.reject_unknown_keys()
    return settings
