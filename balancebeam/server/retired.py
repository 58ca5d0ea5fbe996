"""Pools and frontends removed by a reload."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Union

from twisted.application import service

from balancebeam.server.frontend import FrontendService
from balancebeam.server.pool import PoolService

Child = Union[PoolService, FrontendService]


class RetiredServices:
    """
    Pools and frontends removed by a reload. They keep running until their last
    request or connection has ended.
    """

    def __init__(self, parent: service.MultiService) -> None:
        """
        Args:
            parent: the service that has the retired services as children.
        """
        self._parent = parent
        self._children: list[Child] = []

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Child]:
        return iter(self._children)

    def add(self, child: Child) -> None:
        """Drain `child`; it is stopped as soon as it is idle."""
        # The name is free for a new service at once, while `child` keeps running as a
        # child without a name. Twisted has no call for that: disownServiceParent()
        # stops the service, and setName() rejects a service that has a parent.
        del self._parent.namedServices[child.name]
        child.name = None
        child.drain()
        self._children.append(child)

    def reap(self, _: float) -> None:
        """Stop retired services that have become idle."""
        frontends = [child for child in self._children if isinstance(child, FrontendService)]
        connected = [frontend for frontend in frontends if frontend.has_connections]
        for child in list(self._children):
            # A client that is still connected to a retired frontend may send another
            # request, so the pools that the frontend routes to are needed.
            needed = isinstance(child, PoolService) and any(
                frontend.routes_to(child) for frontend in connected
            )
            if not child.has_connections and not needed:
                self._children.remove(child)
                child.unregister_timers()
                child.disownServiceParent()
