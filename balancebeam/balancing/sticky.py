"""Every client at the server it had before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.round_robin import RoundRobin

# Clients that are remembered in each of two generations.
MAX_CLIENTS = 65_536

REASON_STICKY = "the client's own"


class StickyRoundRobin(AlgorithmBase[BackendT]):
    """
    A client gets a server by round robin, and keeps it until it goes down.

    Clients are remembered in two generations: when the young one is full, the
    old one is forgotten and the young one becomes old. So at least the last
    `MAX_CLIENTS` that came are known.
    """

    def __init__(self) -> None:
        self._round_robin: RoundRobin[BackendT] = RoundRobin()
        self._new_generation: dict[str, BackendT] = {}
        self._old_generation: dict[str, BackendT] = {}
        self._servers: frozenset[BackendT] = frozenset()

    def update(self, servers: Sequence[BackendT]) -> None:
        self._round_robin.update(servers)
        self._servers = frozenset(servers)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        kept = self._new_generation.get(key)
        if kept is None:
            kept = self._old_generation.get(key)
            if kept is not None:
                self._assign(key, kept)
        first = kept if kept in self._servers else None
        if first is not None:
            yield first, REASON_STICKY
        for server, reason in self._round_robin.candidates(key):
            if server is not first:
                # It moves if it has none or that went down, but not when it
                # is merely full.
                if kept is None or kept not in self._servers or not kept.available:
                    self._assign(key, server)
                    kept = server
                yield server, reason

    def _assign(self, client: str, server: BackendT) -> None:
        if len(self._new_generation) >= MAX_CLIENTS and client not in self._new_generation:
            self._old_generation, self._new_generation = self._new_generation, {}
        self._new_generation[client] = server
