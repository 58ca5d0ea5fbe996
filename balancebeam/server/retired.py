"""Pools and frontends that are configured no more."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

from twisted.application import service

from balancebeam.server.frontend import FrontendService
from balancebeam.server.pool import PoolService

Child = Union[PoolService, FrontendService]


class RetiredServices:
    """Children of `parent` that have lost their place; what is in progress there goes on."""

    def __init__(self, parent: service.MultiService) -> None:
        self._parent = parent
        self._children: list[Child] = []

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def add(self, child: Child) -> None:
        """Let `child` go as soon as nothing is in progress there."""
        del self._parent.namedServices[child.name]
        child.name = f"{child.name} (retired)"
        child.drain()
        self._children.append(child)

    def reap(self, _: float) -> None:
        """Part with those that are done."""
        clients = [one for one in self._children if isinstance(one, FrontendService)]
        for child in list(self._children):
            # Somebody who is still connected may ask for something once more.
            if child.has_connections or any(
                one.routes_to(child) for one in clients if one.has_connections
            ):
                continue
            self._children.remove(child)
            child.unregister_timers()
            self._parent.services.remove(child)
            child.parent = None
            child.stopService()
