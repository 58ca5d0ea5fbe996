"""
Rules that concern several settings together: names, references, addresses and modes.

`find_conflicts` has the rules. It is called twice: for the configuration file alone, whose mistakes
are reported with their lines, and by `validate_settings` for the result of file and options, where
a new mistake can only come from an option. `check_admin` has the rules of the admin listener.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from ipaddress import ip_address

from balancebeam.config.addresses import check_scheme
from balancebeam.config.conflicts import HTTP_ONLY, Conflict, Keys
from balancebeam.config.http2_checks import find_http2_conflicts
from balancebeam.config.reader import Document, Table, suggest
from balancebeam.config.secret_source import load_secret
from balancebeam.config.source_map import Path
from balancebeam.config.tls_checks import check_certificates, find_tls_conflicts
from balancebeam.core.addresses import ListenAddress, ProxyProtocolAddress, TcpAddress, UnixAddress
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    LimitSettings,
    PoolSettings,
    Settings,
)

# Keys of [[frontend]] that concern requests. In TCP mode no request is parsed.
_HTTP_KEYS = (
    *("max_body", "registration", "registration_from", "forwarding", "redirect_https"),
    "h2c",
)


def find_conflicts(settings: Settings, root: Table | None = None) -> Iterator[Conflict]:
    """
    Check the rules that concern several frontends, pools and the admin listener.

    Args:
        settings: the settings to check.
        root: the root table of the file that `settings` were parsed from, if they are the
            settings of a file alone. A key that is set to its default then counts as set, and
            rules about invalid values, which are reported already, are skipped.
    """
    keys = Keys(root)
    yield from _check_names("frontend", settings.frontends, keys)
    yield from _check_names("pool", settings.pools, keys)
    yield from _check_pool_references(settings, keys)
    yield from _check_routes(settings, keys)
    yield from _check_binds(settings)
    yield from _check_modes(settings, keys)
    yield from find_tls_conflicts(settings, keys)
    yield from find_http2_conflicts(settings, keys)


def report_conflicts(settings: Settings, root: Table) -> None:
    """Add the mistakes of a file, `settings` parsed from `root`, to its document."""
    for conflict in find_conflicts(settings, root):
        *parents, last = conflict.path
        if isinstance(last, int):
            root.document.add_error(root.descend(conflict.path).path, conflict.message)
        else:
            root.descend(tuple(parents)).add_error(last, conflict.message, conflict.element)


def _check_names(
    kind: str, items: Sequence[FrontendSettings | PoolSettings], keys: Keys
) -> Iterator[Conflict]:
    names = set()
    for number, item in enumerate(items):
        path = (kind, number, "name")
        if item.name in names and not keys.is_invalid(path):
            yield Conflict(path, f"duplicate name {item.name!r}: expected each {kind} name once")
        names.add(item.name)


def _pool_references(settings: Settings) -> Iterator[tuple[int, Path, str]]:
    """Yield the number of a frontend, and the path and the value of each of its keys `pool`."""
    for number, frontend in enumerate(settings.frontends):
        if frontend.redirect_https:
            continue
        yield number, ("frontend", number, "pool"), frontend.pool
        for route_number, route in enumerate(frontend.routes):
            # A route without a pool is reported as such.
            if route.pool:
                yield number, ("frontend", number, "route", route_number, "pool"), route.pool


def _check_pool_references(settings: Settings, keys: Keys) -> Iterator[Conflict]:
    # Without any pool in the file, the options define one with the default name.
    names = [pool.name for pool in settings.pools] or [PoolSettings().name]
    for _, path, pool in _pool_references(settings):
        if pool not in names and not keys.is_invalid(path):
            yield Conflict(path, f"unknown pool {pool!r}: {suggest(pool, names)}")


def _check_routes(settings: Settings, keys: Keys) -> Iterator[Conflict]:
    """Report routes that never match, because an earlier one has the same host and path."""
    for number, frontend in enumerate(settings.frontends):
        seen = set()
        for route_number, route in enumerate(frontend.routes):
            path = ("frontend", number, "route", route_number)
            invalid = keys.is_invalid((*path, "host")) or keys.is_invalid((*path, "path"))
            if invalid or (route.host is None and route.path is None):
                continue
            if (route.host, route.path) in seen:
                yield Conflict(path, "duplicate route: expected another host or path")
            seen.add((route.host, route.path))


def _check_binds(settings: Settings) -> Iterator[Conflict]:
    used = set()
    for number, frontend in enumerate(settings.frontends):
        for address in map(str, frontend.bind):
            if address in used:
                yield Conflict(
                    ("frontend", number, "bind"),
                    f"duplicate address {address}: expected each address once",
                )
            used.add(address)
    if settings.admin is not None and str(settings.admin.bind) in used:
        yield Conflict(
            ("admin", "bind"),
            f"duplicate address {settings.admin.bind}: expected one that no frontend uses",
        )


def _check_modes(settings: Settings, keys: Keys) -> Iterator[Conflict]:
    """Report pools that are used in both modes, and keys that the mode does not have."""
    modes: dict[str, str] = {}
    for number, path, pool in _pool_references(settings):
        mode = settings.frontends[number].mode
        if keys.is_invalid(("frontend", number, "mode")) or keys.is_invalid(path):
            continue
        if modes.setdefault(pool, mode) != mode:
            yield Conflict(
                path, f'pool {pool!r} is used in the modes "http" and "tcp": expected one pool each'
            )
    for number, frontend in enumerate(settings.frontends):
        if not keys.is_invalid(("frontend", number, "mode")):
            yield from _check_frontend_mode(number, frontend, keys)
    for number, item in enumerate(settings.pools):
        if modes.get(item.name) == "tcp":
            yield from _check_tcp_pool(number, item, keys)
        for index, server in enumerate(item.servers) if item.name in modes else ():
            try:
                check_scheme(server, modes[item.name])
            except ValueError as error:
                yield Conflict(("pool", number, "upstreams"), str(error), index)


def _check_frontend_mode(number: int, frontend: FrontendSettings, keys: Keys) -> Iterator[Conflict]:
    parent = ("frontend", number)
    if frontend.mode != "tcp":
        path: Path = (*parent, "log_connections")
        if keys.is_set(path, frontend.log_connections):
            yield Conflict(path, 'not available in mode "http": expected access_log, or mode "tcp"')
        return
    defaults = FrontendSettings()
    for key in _HTTP_KEYS:
        path = (*parent, key)
        if keys.is_set(path, getattr(frontend, key) != getattr(defaults, key)):
            yield Conflict(path, HTTP_ONLY)
    yield from _check_tcp_limits(parent, frontend.limits, keys)
    for route_number, route in enumerate(frontend.routes):
        route_path = (*parent, "route", route_number)
        path = (*route_path, "path")
        if keys.is_set(path, route.path is not None):
            yield Conflict(path, HTTP_ONLY)
        yield from _check_tcp_limits(route_path, route.limits, keys)


def _check_tcp_pool(number: int, pool: PoolSettings, keys: Keys) -> Iterator[Conflict]:
    yield from _check_tcp_limits(("pool", number), pool.limits, keys)
    if pool.active is not None:
        path = ("pool", number, "health", "path")
        if keys.is_set(path, pool.active.path is not None):
            yield Conflict(
                path,
                'not available for a pool in mode "tcp": expected no path, as checks only connect',
            )


def _check_tcp_limits(
    parent: Path, limits: Sequence[LimitSettings], keys: Keys
) -> Iterator[Conflict]:
    """Report limits with keys of requests; a connection has only the address of its client."""
    for number, limit in enumerate(limits):
        path = (*parent, "limit", number, "key")
        parts = [part for part in limit.key if part != "client"]
        if parts and not keys.is_invalid(path):
            yield Conflict(path, f'invalid key {", ".join(parts)}: expected "client" in mode "tcp"')


def validate_settings(settings: Settings, document: Document | None = None) -> list[str]:
    """
    Check the settings that result from file and options.

    Args:
        settings: complete settings, as `finalize` returns them.
        document: the file that the pools are from, if any.

    Returns:
        One message for each mistake.
    """
    problems = []
    registration = any(frontend.registration for frontend in settings.frontends)
    if settings.admin is None and not registration:
        problems += _check_servers(settings, document)
    problems += [
        f"{_describe(settings, conflict.path)}: {conflict.message}"
        for conflict in find_conflicts(settings)
    ]
    problems += check_certificates(settings, document)
    problems += _check_state(settings.state)
    return problems


def _describe(settings: Settings, path: Path) -> str:
    """Return the text for the path of a conflict: `frontend NAME: route.pool`."""
    kind, *rest = path
    if kind not in ("frontend", "pool"):
        return ".".join(map(str, path))
    number, *parts = rest
    items = settings.frontends if kind == "frontend" else settings.pools
    key = ".".join(part for part in parts if isinstance(part, str))
    name = f"{kind} {items[int(number)].name}"
    return f"{name}: {key}" if key else name


def _check_servers(settings: Settings, document: Document | None) -> list[str]:
    """
    Report pools without a server.

    They are valid only if servers can be registered later, by the admin API or on a frontend, or
    if they get the demo servers. A balancer that only redirects needs no pool.
    """
    if all(frontend.redirect_https for frontend in settings.frontends):
        return []
    file = ""
    if document is not None and ("pool",) not in document:
        file, document = f"{document.location(())}: ", None
    if document is None and not settings.demo and not any(pool.servers for pool in settings.pools):
        return [f"{file}no servers: expected --upstream host:port (or --demo 3)"]
    demo_pool = settings.default_pool if settings.demo else None
    problems = []
    for number, pool in enumerate(settings.pools):
        if not pool.servers and pool.name != demo_pool:
            location = "" if document is None else f"{document.location(('pool', number))}: "
            problems.append(f"{location}pool {pool.name}: no upstreams: expected at least one")
    return problems


def _check_state(path: str | None) -> list[str]:
    """Report a state file that cannot be written, at start instead of at the first change."""
    if path is None:
        return []
    folder = os.path.dirname(os.path.realpath(path))
    if os.path.isdir(path):
        return [f"state: invalid path {path}: expected a file, not a directory"]
    if not os.path.isdir(folder):
        return [f"state: missing directory {folder}: expected the path of a file in a directory"]
    if not os.access(folder, os.W_OK | os.X_OK):
        return [f"state: no permission to write to {folder}: expected a writable directory"]
    return []


def check_admin(admin: AdminSettings) -> tuple[str, str] | None:
    """
    Check that the admin listener is safe: on a loopback address, or with a readable token.

    Returns:
        The key with the mistake (`bind`, `token` or `token_file`) and the message, if any.
    """
    if isinstance(admin.bind, ProxyProtocolAddress):
        return "bind", f"invalid address {admin.bind}: expected an address without haproxy:"
    token = admin.token
    if token is None:
        if is_local(admin.bind):
            return None
        return "bind", (
            f"{admin.bind} needs a token, because other hosts can connect to it: expected "
            "token_file (--admin-token-file), or a loopback address such as 127.0.0.1:1101"
        )
    try:
        load_secret(token)
    except ValueError as error:
        return "token_file" if token.file is not None else "token", str(error)
    return None


def is_local(address: ListenAddress) -> bool:
    """Return whether only programs on this host can connect to `address`."""
    if isinstance(address, UnixAddress):
        return True
    if not isinstance(address, TcpAddress):
        return False
    if address.host == "localhost":
        return True
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return False
