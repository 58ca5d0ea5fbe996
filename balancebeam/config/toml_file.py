"""
The configuration file: TOML, parsed into settings.

The schema is that of the documentation (`[[frontend]]`, `[[pool]]`, `[admin]`), or that of
mini-balancer. `load_file` returns the settings of the file alone; after the options have been
applied, `finalize` completes them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from attrs import evolve

from balancebeam.config import values as v
from balancebeam.config.addresses import parse_listen_address
from balancebeam.config.cross_checks import report_conflicts
from balancebeam.config.frontends import parse_frontend
from balancebeam.config.mini_balancer import is_mini_balancer, parse_mini_balancer
from balancebeam.config.pools import parse_pool
from balancebeam.config.reader import Document, Table, escape_control
from balancebeam.config.tls import parse_acme
from balancebeam.config.tracing import parse_tracing
from balancebeam.core.errors import describe_os_error
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

_NO_SETTINGS = Settings((), ())

# Formats of the log of the program itself.
LOG_FORMATS = ("text", "json")

# Every table of the schema; the parsers that read it know the keys.
_ALL_TABLES = """
[[frontend]]
[frontend.timeouts]
[frontend.forwarding]
[frontend.tls]
[[frontend.limit]]
[[frontend.route]]
[[frontend.route.limit]]
[[pool]]
upstreams = [{}]
[pool.timeouts]
[pool.health]
[pool.passive]
[pool.retries]
[pool.queue]
[pool.tls]
[[pool.limit]]
[admin]
[acme]
[tracing]
"""


def load_file(path: str) -> tuple[Settings, list[str]]:
    """
    Read the configuration file at `path`.

    Returns:
        The settings, and one message for each mistake, `<file>:<line>: <key>: <mistake>`. With
        mistakes, the settings have defaults in place of the invalid values.
    """
    settings, document = load_document(path)
    return settings, document.problems


def load_document(path: str) -> tuple[Settings, Document]:
    """
    Read the configuration file at `path`.

    Returns:
        The settings as `load_file` returns them, and the document with the mistakes and the lines
        of all keys.
    """
    document = Document(path, "")
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        location = f"{path}:{line[1]}" if line else path
        document.problems.append(escape_control(f"{location}: invalid TOML: {error}"))
        return _NO_SETTINGS, document
    except UnicodeDecodeError:
        document.add_error((), "cannot be read: it is not UTF-8")
        return _NO_SETTINGS, document
    except RecursionError:
        document.add_error((), "cannot be read: arrays or tables are nested too deeply")
        return _NO_SETTINGS, document
    except (OSError, ValueError) as error:
        document.add_error((), f"cannot be read: {describe_os_error(error)}")
        return _NO_SETTINGS, document
    document = Document(path, text, _find_tables)
    if is_mini_balancer(content):
        settings, problems = parse_mini_balancer(path, text, content)
        document.problems += problems
        return settings, document
    return _parse_root(Table(document, (), content)), document


def _parse_root(root: Table) -> Settings:
    """Parse the whole document and report all of its mistakes."""
    pool_tables = root.tables("pool")
    frontend_tables = root.tables("frontend")
    pools = [parse_pool(table, first=not number) for number, table in enumerate(pool_tables)]
    frontends = [parse_frontend(table) for table in frontend_tables]
    if len(pools) == 1:
        # The only pool is the pool of all frontends that name none.
        frontends = [
            evolve(frontend, pool=pools[0].name)
            if "pool" not in table and not frontend.redirect_https
            else frontend
            for table, frontend in zip(frontend_tables, frontends)
        ]
    admin = root.table("admin")
    defaults = _NO_SETTINGS
    settings = Settings(
        frontends=tuple(frontends),
        pools=tuple(pools),
        admin=_parse_admin(admin) if admin is not None else None,
        state=root.get("state", v.file_path, None),
        drain_timeout=root.get("drain_timeout", v.seconds_or_zero, defaults.drain_timeout),
        demo=root.get("demo", v.integer(0, 100), defaults.demo),
        handover_timeout=root.get("handover_timeout", v.seconds_or_zero, None),
        log_format=root.get("log_format", v.one_of(LOG_FORMATS), defaults.log_format),
        acme=parse_acme(root.table("acme")),
        tracing=parse_tracing(root.table("tracing")),
    )
    settings = evolve(
        settings, source_locations=_source_locations(root.document, frontend_tables, settings)
    )
    root.reject_unknown_keys()
    report_conflicts(settings, root)
    return settings


def _find_tables(key: str) -> list[str]:
    """Return the headers of all tables of the schema in which `key` is valid."""
    document = Document("", "")
    _parse_root(Table(document, (), tomllib.loads(_ALL_TABLES)))
    found = []
    for path, keys in document.known_keys.items():
        if key in keys and path:
            header = ".".join(part for part in path if isinstance(part, str))
            is_array = isinstance(path[-1], int)
            found.append(f"[[{header}]]" if is_array else f"[{header}]")
        elif key in keys and not path:
            found.append("the top level, above all tables")
    return sorted(found)


def _source_locations(
    document: Document, frontend_tables: list[Table], settings: Settings
) -> Mapping[str, str]:
    """Return `<file>:<line>: <key>` for each address of a listener, for errors of binding it."""
    locations = {}
    if settings.admin is not None:
        line = document.location(("admin", "bind"))
        locations[str(settings.admin.bind)] = f"{line}: admin.bind"
    for table, frontend in zip(frontend_tables, settings.frontends):
        for number, address in enumerate(frontend.bind):
            line = document.location((*table.path, "bind", number))
            locations[str(address)] = f"{line}: frontend.bind"
    return locations


def _parse_admin(table: Table) -> AdminSettings:
    token = table.get("token", _parse_secret, None)
    file = table.get("token_file", v.file_path, None)
    if token is not None and file is not None:
        table.add_error("token_file", "duplicate token: expected either token or token_file")
    settings = AdminSettings(
        table.get("bind", v.parsed(parse_listen_address), AdminSettings().bind),
        SecretSource(file=file) if file is not None else token,
    )
    table.reject_unknown_keys()
    return settings


def _parse_secret(value: Any) -> SecretSource:
    """
    Parse a secret: a string, or a table `{env = "NAME"}` with the name of a variable.

    Raises:
        ValueError: it is neither; the text does not show it.
    """
    if isinstance(value, str) and value:
        return SecretSource(value)
    if isinstance(value, dict) and list(value) == ["env"] and isinstance(value["env"], str):
        return SecretSource(variable=value["env"])
    raise ValueError('invalid token: expected a string or {env = "NAME"}')


def with_defaults(settings: Settings) -> Settings:
    """Return `settings` with the default frontend or pool where there are none."""
    pools = settings.pools or (PoolSettings(),)
    frontends = settings.frontends or (FrontendSettings(pool=pools[0].name),)
    return evolve(settings, frontends=frontends, pools=pools)


def finalize(settings: Settings) -> Settings:
    """
    Return complete settings, for the result of file and options.

    The default frontend or pool is added where there are none. Active health checks of pools in
    TCP mode lose their path, as they only connect.
    """
    settings = with_defaults(settings)

    def complete(pool: PoolSettings) -> PoolSettings:
        if pool.active is None or settings.pool_mode(pool.name) != "tcp":
            return pool
        return evolve(pool, active=evolve(pool.active, path=None))

    return evolve(settings, pools=tuple(map(complete, settings.pools)))
