"""The set of servers of a pool: membership, priorities and notifications of changes."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Callable

from balancebeam.core.addresses import ServerAddress
from balancebeam.core.settings import AdminState, ServerSettings, ServerSource
from balancebeam.upstream.server import Server


class Priority(enum.IntEnum):
    """
    The order in which groups of servers are tried.

    Ejected servers come last instead of never: a pool whose servers have all been
    ejected fails open and uses them anyway.
    """

    PRIMARY = 0
    BACKUP = 1
    EJECTED_PRIMARY = 2
    EJECTED_BACKUP = 3


class ServerSet:
    """
    All servers of a pool.

    Code that changes an attribute of a server on which its tier depends must call `notify`.

    Attributes:
        servers: The servers, in the configured order, registered servers last.
        generation: Incremented whenever a server is added or removed.
    """

    def __init__(self, servers: Iterable[ServerSettings] = ()) -> None:
        self.servers: list[Server] = []
        self.generation = 0
        self._draining: list[Server] = []
        self._tiers: tuple[tuple[Server, ...], ...] | None = None
        self._subscribers: list[Callable[[], object]] = []
        self._observers: list[Callable[[Server], object]] = []
        for settings in servers:
            self.add(settings)

    @property
    def tiers(self) -> tuple[tuple[Server, ...], ...]:
        """The eligible servers by `Priority`; built on first use after a change."""
        if self._tiers is None:
            tiers: tuple[list[Server], ...] = ([], [], [], [])
            for server in self.servers:
                if server.eligible:
                    tiers[server.backup + 2 * server.ejected].append(server)
            self._tiers = tuple(tuple(tier) for tier in tiers)
        return self._tiers

    @property
    def draining(self) -> list[Server]:
        """Removed servers that still have requests in flight."""
        return [server for server in self._draining if server.in_flight]

    def subscribe(self, listener: Callable[[], object]) -> None:
        """Call `listener` after every change."""
        self._subscribers.append(listener)

    def observe(self, observer: Callable[[Server], object]) -> None:
        """Call `observer` with each server that changed, after every change."""
        self._observers.append(observer)

    def find(self, address: ServerAddress) -> Server | None:
        """Return the server at `address`, or `None`."""
        return next((server for server in self.servers if server.address == address), None)

    def reorder(self, key: Callable[[Server], int]) -> None:
        """Sort the servers by `key`; the sort is stable."""
        ordered = sorted(self.servers, key=key)
        if ordered != self.servers:
            self.servers = ordered
            self.notify()

    def add(
        self, settings: ServerSettings, source: ServerSource = ServerSource.CONFIGURED
    ) -> Server:
        """
        Append a server.

        Args:
            settings: Its address, weight and limits.
            source: How it came here. A reload removes only `CONFIGURED` servers that are
                no longer in the file.

        Returns:
            The new server.
        """
        server = Server(settings, source)
        self.servers.append(server)
        self.generation += 1
        self.notify(server)
        return server

    def remove(self, server: Server) -> None:
        """Remove `server` from the rotation; its requests in flight finish."""
        self.servers.remove(server)
        self._draining = self.draining
        if server.in_flight:
            self._draining.append(server)
        server.removed = True
        self.generation += 1
        server.close_idle_connections()
        self.notify(server)

    def set_admin_state(self, server: Server, state: AdminState, now: float) -> None:
        """Set the admin state of `server`; `now` is the time of day (seconds since the epoch)."""
        server.admin_state = state
        server.status_reason, server.status_since = f"set to {state.value} by administrator", now
        if state is AdminState.READY:
            server.max_idle = server.default_max_idle
        else:
            server.close_idle_connections()
        self.notify(server)

    def set_status_reason(self, server: Server, reason: str, now: float) -> None:
        """Record why the status of `server` changed, at `now` (seconds since the epoch)."""
        server.status_reason, server.status_since = reason, now
        self.notify(server)

    def notify(self, *servers: Server) -> None:
        """
        Recompute tiers and availability, and call all listeners.

        Args:
            *servers: The servers with a changed attribute; none if only the order changed.
        """
        self._tiers = None
        for server in servers:
            server.available = server.eligible and not server.ejected
        for listener in self._subscribers:
            listener()
        for observer in self._observers:
            for server in servers:
                observer(server)
