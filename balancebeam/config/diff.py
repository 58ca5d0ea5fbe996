"""What is different between two settings, in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import fields

from balancebeam.core.settings import PoolSettings, ServerSettings, Settings


def differences(before: Settings, after: Settings) -> list[str]:
    """What has changed, a line each; secrets are not shown."""
    lines = list(_named("frontend", before.frontends, after.frontends))
    lines += _named("pool", before.pools, after.pools)
    lines += [
        f"{name} changed" for name in _changed(before, after) if name not in ("frontends", "pools")
    ]
    return lines


def _named(kind: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[str]:
    old = {one.name: one for one in before}
    new = {one.name: one for one in after}
    for name, one in new.items():
        if name not in old:
            yield f"{kind} {name} added"
            continue
        for field in _changed(old[name], one):
            if field == "servers":
                yield from _servers(old[name], one)
            else:
                yield f"{kind} {name}: {field} changed"
    yield from (f"{kind} {name} removed" for name in old if name not in new)


def _servers(before: PoolSettings, after: PoolSettings) -> Iterator[str]:
    old: dict[str, ServerSettings] = {str(one.address): one for one in before.servers}
    new = {str(one.address): one for one in after.servers}
    for address, one in new.items():
        if address not in old:
            yield f"pool {after.name}: server {address} added"
        for field in _changed(old.get(address, one), one):
            yield f"pool {after.name}: server {address}: {field} changed"
    yield from (
        f"pool {after.name}: server {address} removed" for address in old if address not in new
    )
    if old.keys() == new.keys() and list(old) != list(new):
        yield f"pool {after.name}: the order of servers changed"


def _changed(before: Any, after: Any) -> list[str]:
    return [
        field.name
        for field in fields(type(before))
        if field.eq and getattr(before, field.name) != getattr(after, field.name)
    ]
