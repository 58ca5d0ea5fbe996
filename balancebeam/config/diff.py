"""What is different between two settings, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import fields

from balancebeam.core.settings import PoolSettings, ServerSettings, Settings


def diff_settings(old: Settings, new: Settings) -> list[str]:
    """What has changed, a line each; secrets are not shown."""
    lines = list(_diff_named("frontend", old.frontends, new.frontends))
    lines += _diff_named("pool", old.pools, new.pools)
    lines += [
        f"{name} changed"
        for name in _changed_fields(old, new)
        if name not in ("frontends", "pools")
    ]
    return lines


def _diff_named(kind: str, old_items: Sequence[Any], new_items: Sequence[Any]) -> Iterator[str]:
    old = {one.name: one for one in old_items}
    new = {one.name: one for one in new_items}
    for name, one in new.items():
        if name not in old:
            yield f"{kind} {name} added"
            continue
        for field in _changed_fields(old[name], one):
            if field == "servers":
                yield from _diff_servers(old[name], one)
            else:
                yield f"{kind} {name}: {field} changed"
    yield from (f"{kind} {name} removed" for name in old if name not in new)


def _diff_servers(old_pool: PoolSettings, new_pool: PoolSettings) -> Iterator[str]:
    old: dict[str, ServerSettings] = {str(one.address): one for one in old_pool.servers}
    new = {str(one.address): one for one in new_pool.servers}
    for address, one in new.items():
        if address not in old:
            yield f"pool {new_pool.name}: server {address} added"
        for field in _changed_fields(old.get(address, one), one):
            yield f"pool {new_pool.name}: server {address}: {field} changed"
    yield from (
        f"pool {new_pool.name}: server {address} removed" for address in old if address not in new
    )
    if old.keys() == new.keys() and list(old) != list(new):
        yield f"pool {new_pool.name}: the order of servers changed"


def _changed_fields(old: Any, new: Any) -> list[str]:
    return [
        field.name
        for field in fields(type(old))
        if field.eq and getattr(old, field.name) != getattr(new, field.name)
    ]
