"""Differences between two settings as text, for the log of a reload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from attrs import AttrsInstance, fields

from balancebeam.core.settings import FrontendSettings, PoolSettings, ServerSettings, Settings

ItemT = TypeVar("ItemT", FrontendSettings, PoolSettings)


def diff_settings(old: Settings, new: Settings) -> list[str]:
    """
    Compare settings.

    Frontends and pools are compared by name, servers by address. Values are not part of the
    result, so secrets are not shown.

    Returns:
        One line for each change, such as `pool app: server 10.0.0.1:80 added`.
    """
    lines = list(_diff_named("frontend", old.frontends, new.frontends))
    lines += _diff_named("pool", old.pools, new.pools)
    lines += [
        f"{name} changed"
        for name in _changed_fields(old, new)
        if name not in ("frontends", "pools")
    ]
    return lines


def _diff_named(kind: str, old_items: Sequence[ItemT], new_items: Sequence[ItemT]) -> Iterator[str]:
    """Compare frontends or pools by their names."""
    old_by_name = {item.name: item for item in old_items}
    new_by_name = {item.name: item for item in new_items}
    for name, new in new_by_name.items():
        if name not in old_by_name:
            yield f"{kind} {name} added"
            continue
        old = old_by_name[name]
        for field in _changed_fields(old, new):
            if (
                field == "servers"
                and isinstance(old, PoolSettings)
                and isinstance(new, PoolSettings)
            ):
                yield from _diff_servers(old, new)
            else:
                yield f"{kind} {name}: {field} changed"
    yield from (f"{kind} {name} removed" for name in old_by_name if name not in new_by_name)


def _diff_servers(old_pool: PoolSettings, new_pool: PoolSettings) -> Iterator[str]:
    old: dict[str, ServerSettings] = {str(server.address): server for server in old_pool.servers}
    new = {str(server.address): server for server in new_pool.servers}
    for address, server in new.items():
        if address not in old:
            yield f"pool {new_pool.name}: server {address} added"
        for field in _changed_fields(old.get(address, server), server):
            yield f"pool {new_pool.name}: server {address}: {field} changed"
    yield from (
        f"pool {new_pool.name}: server {address} removed" for address in old if address not in new
    )
    if old.keys() == new.keys() and list(old) != list(new):
        yield f"pool {new_pool.name}: the order of servers changed"


def _changed_fields(old: AttrsInstance, new: AttrsInstance) -> list[str]:
    """Return the names of the attributes in which two settings of one class differ."""
    return [
        field.name
        for field in fields(type(old))
        if field.eq and getattr(old, field.name) != getattr(new, field.name)
    ]
