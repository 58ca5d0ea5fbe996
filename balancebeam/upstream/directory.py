"""The servers of a pool, and what is known of each right now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from balancebeam.model import ServerSettings

if TYPE_CHECKING:
    from balancebeam.upstream.connection import UpstreamConnection


class Server:
    """
    One server while the program runs.

    `in_flight` counts the requests that are its to answer. `idle` holds its
    idle connections, the one used last at the end. `failures`, `cooldown` and
    `avoided_until` belong to the health policy.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.address = settings.address
        self.name = str(settings.address)
        self.weight = settings.weight
        self.backup = settings.backup
        self.in_flight = 0
        self.failures = 0
        self.cooldown = 0.0
        self.avoided_until = 0.0
        self.idle: dict[UpstreamConnection, None] = {}

    def __repr__(self) -> str:
        return f"<Server {self.name} in_flight={self.in_flight} idle={len(self.idle)}>"


class Directory:
    """
    All servers of a pool, in the order given.

    `primaries` and `backups` are those that may take traffic by their weight;
    `troubled` are those that the health policy has something against.
    """

    def __init__(self, servers: Iterable[ServerSettings] = ()) -> None:
        self.servers: list[Server] = []
        self.primaries: tuple[Server, ...] = ()
        self.backups: tuple[Server, ...] = ()
        self.troubled: set[Server] = set()
        for settings in servers:
            self.add(settings)

    def add(self, settings: ServerSettings) -> Server:
        """Add a server, behind those that are there."""
        server = Server(settings)
        self.servers.append(server)
        self._sort_out()
        return server

    def remove(self, server: Server) -> None:
        """Give `server` no more requests; those in flight go on."""
        self.servers.remove(server)
        self.troubled.discard(server)
        self._sort_out()

    def _sort_out(self) -> None:
        usable = [s for s in self.servers if s.weight > 0]
        self.primaries = tuple(s for s in usable if not s.backup)
        self.backups = tuple(s for s in usable if s.backup)
