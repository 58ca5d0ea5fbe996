"""The configuration file, as settings."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from balancebeam.config import values as v
from balancebeam.config.addresses import parse_listen_address
from balancebeam.config.frontends import parse_frontend
from balancebeam.config.limits import check_tcp_limits
from balancebeam.config.mini_balancer import is_mini_balancer, parse_mini_balancer
from balancebeam.config.pools import parse_pool
from balancebeam.config.reader import Document, Table, escape_control, suggest
from balancebeam.core.settings import (
    AdminSettings,
    FrontendSettings,
    PoolSettings,
    SecretSource,
    Settings,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_file(path: str) -> tuple[Settings, list[str]]:
    """What the file at `path` says, and what is wrong with it, a line each."""
    settings, document = load_document(path)
    return settings, document.problems


def load_document(path: str) -> tuple[Settings, Document]:
    """What the file at `path` says, and where, and what is wrong with it."""
    nothing, document = Settings((), ()), Document(path, "")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        place = f"{path}:{line[1]}" if line else path
        document.problems.append(escape_control(f"{place}: is no TOML: {error}"))
        return nothing, document
    except (UnicodeDecodeError, RecursionError) as error:
        why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else "it nests too deep"
        document.add_error((), f"cannot be read: {why}")
        return nothing, document
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        document.add_error((), f"cannot be read: {why}")
        return nothing, document
    document = Document(path, text)
    if is_mini_balancer(content):
        settings, problems = parse_mini_balancer(path, text, content)
        document.problems += problems
        return settings, document
    return _parse_root(Table(document, (), content)), document


def _parse_root(root: Table) -> Settings:
    pools = root.tables("pool")
    frontends = root.tables("frontend")
    read_pools = [parse_pool(table, first=not number) for number, table in enumerate(pools)]
    read_frontends = [parse_frontend(table) for table in frontends]
    names = [pool.name for pool in read_pools]
    if len(names) == 1:
        # With one pool there is nothing to choose.
        read_frontends = [
            evolve(frontend, pool=names[0]) if "pool" not in table else frontend
            for table, frontend in zip(frontends, read_frontends)
        ]
    admin = root.table("admin")
    settings = Settings(
        frontends=tuple(read_frontends),
        pools=tuple(read_pools),
        admin=_parse_admin(admin) if admin is not None else None,
        state=root.get("state", v.file_path, None),
        drain_timeout=root.get("drain_timeout", v.seconds_or_zero, 30.0),
        demo=root.get("demo", v.integer(0, 100), 0),
    )
    settings = evolve(
        settings, source_locations=_source_locations(root.document, frontends, settings)
    )
    root.reject_unknown_keys()
    _check_names(frontends, settings.frontends, "frontend")
    _check_names(pools, settings.pools, "pool")
    _check_references(frontends, settings)
    _check_binds(frontends, settings)
    _check_modes(pools, frontends, settings)
    return settings


def _source_locations(
    document: Document, frontends: list[Table], settings: Settings
) -> Mapping[str, str]:
    """Where each address to listen at stands."""
    places = {}
    if settings.admin is not None:
        places[str(settings.admin.bind)] = f"{document.location(('admin', 'bind'))}: admin.bind"
    for table, frontend in zip(frontends, settings.frontends):
        for number, address in enumerate(frontend.bind):
            line = document.location((*table.path, "bind", number))
            places[str(address)] = f"{line}: frontend.bind"
    return places


def _parse_admin(table: Table) -> AdminSettings:
    token = table.get("token", _parse_secret, None)
    file = table.get("token_file", v.file_path, None)
    if token is not None and file is not None:
        table.add_error("token_file", "there is a token already; give one of them")
    settings = AdminSettings(
        table.get("bind", v.parsed(parse_listen_address), AdminSettings().bind),
        SecretSource(file=file) if file is not None else token,
    )
    table.reject_unknown_keys()
    return settings


def _parse_secret(value: Any) -> SecretSource:
    """A text, or `{env = "NAME"}`. Raises `ValueError`."""
    if isinstance(value, str) and value:
        return SecretSource(value)
    if isinstance(value, dict) and list(value) == ["env"] and isinstance(value["env"], str):
        return SecretSource(variable=value["env"])
    raise ValueError('it is no token; give a text, or {env = "NAME"}')


# What one table says of another.


def _check_names(tables: list[Table], settings: Any, kind: str) -> None:
    seen = set()
    for table, one in zip(tables, settings):
        if one.name in seen and "name" not in table.invalid_keys:
            table.add_error(
                "name", f"there is a {kind} called {one.name!r} already; give another name"
            )
        seen.add(one.name)


def _check_references(tables: list[Table], settings: Settings) -> None:
    # Without any, the one that is made of the command line will be called so.
    names = [pool.name for pool in settings.pools] or [PoolSettings().name]
    for table, frontend in zip(tables, settings.frontends):
        _check_reference(table, frontend.pool, names)
        seen = set()
        for route_table, route in zip(table.tables("route"), frontend.routes):
            if "pool" in route_table:
                _check_reference(route_table, route.pool, names)
            if route_table.invalid_keys or route.host == route.path is None:
                continue
            if (route.host, route.path) in seen:
                table.document.add_error(
                    route_table.path, "there is a route for that already, which is first"
                )
            seen.add((route.host, route.path))


def _check_reference(table: Table, pool: str, names: list[str]) -> None:
    if pool not in names and "pool" not in table.invalid_keys:
        table.add_error("pool", f"there is no pool {pool!r}; {suggest(pool, names)}")


def _check_binds(tables: list[Table], settings: Settings) -> None:
    seen = set()
    for table, frontend in zip(tables, settings.frontends):
        for address in frontend.bind:
            if str(address) in seen:
                table.add_error("bind", f"{address} is given twice")
            seen.add(str(address))
    if settings.admin is not None and str(settings.admin.bind) in seen:
        tables[0].document.add_error(
            ("admin", "bind"), f"{settings.admin.bind} is a frontend's already"
        )


def _check_modes(pools: list[Table], frontends: list[Table], settings: Settings) -> None:
    modes: dict[str, str] = {}
    for table, frontend in zip(frontends, settings.frontends):
        if "mode" in table.invalid_keys:
            continue
        users = [(table, frontend.pool)]
        users += zip(table.tables("route"), (route.pool for route in frontend.routes))
        for user, pool in users:
            if modes.setdefault(pool, frontend.mode) != frontend.mode:
                user.add_error(
                    "pool", f"{pool!r} is for HTTP or for TCP, not for both; make two of it"
                )
    for table, one in zip(pools, settings.pools):
        if modes.get(one.name) == "tcp":
            check_tcp_limits(table.tables("limit"))
        health = table.table("health")
        if modes.get(one.name) == "tcp" and health is not None and "path" in health:
            health.add_error(
                "path", "servers of a TCP frontend are asked to connect only; leave it out"
            )


def with_defaults(settings: Settings) -> Settings:
    """`settings` with a frontend and a pool, if there are none."""
    pools = settings.pools or (PoolSettings(),)
    frontends = settings.frontends or (FrontendSettings(pool=pools[0].name),)
    return evolve(settings, frontends=frontends, pools=pools)


def finalize(settings: Settings) -> Settings:
    """
    `settings` with a frontend and a pool, if there are none, and with what
    active checks look like in TCP mode.
    """
    settings = with_defaults(settings)

    def checked(pool: PoolSettings) -> PoolSettings:
        if pool.active is None or settings.pool_mode(pool.name) != "tcp":
            return pool
        return evolve(pool, active=evolve(pool.active, path=None))

    return evolve(settings, pools=tuple(checked(pool) for pool in settings.pools))
