"""Sticky round robin: each client keeps its server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from balancebeam.balancing.base import ReplicatedAlgorithm
from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.round_robin import RoundRobin

# Clients stored in each of two generations: 11 MiB for both, when full.
MAX_CLIENTS = 65_536

REASON_STICKY = "server of this client"


class StickyRoundRobin(ReplicatedAlgorithm[BackendT]):
    """
    Assigns a server to each client by round robin; the client keeps it until it goes down.

    Assignments are stored in two generations. When the new one is full, it becomes the old
    one, and the previous old one is dropped. So at least the `MAX_CLIENTS` most recent
    clients keep their servers, and memory is bounded.
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
        assigned = self._new_generation.get(key)
        if assigned is None:
            assigned = self._old_generation.get(key)
            if assigned is not None:
                self._assign(key, assigned)
        first = assigned if assigned in self._servers else None
        if first is not None:
            yield first, REASON_STICKY
        for server, reason in self._round_robin.candidates(key):
            if server is not first:
                # The client moves if it has no server or if that is down, but not if the
                # server is only saturated.
                if assigned is None or assigned not in self._servers or not assigned.available:
                    self._assign(key, server)
                    assigned = server
                yield server, reason

    def replica(self, key: str) -> StickyRoundRobin[BackendT]:
        replica = super().replica(key)
        replica._round_robin = self._round_robin.replica(key)
        # The assignments of other clients have no influence, and may be many.
        replica._new_generation = _only(self._new_generation, key)
        replica._old_generation = _only(self._old_generation, key)
        return replica

    def _assign(self, key: str, server: BackendT) -> None:
        """Store the server of a client."""
        if len(self._new_generation) >= MAX_CLIENTS and key not in self._new_generation:
            self._old_generation, self._new_generation = self._new_generation, {}
        self._new_generation[key] = server


def _only(assignments: Mapping[str, BackendT], key: str) -> dict[str, BackendT]:
    """The assignment of one client, if it has one."""
    return {key: assignments[key]} if key in assignments else {}
