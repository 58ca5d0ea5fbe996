"""Every client at the server it had before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import C, Choice
from balancebeam.balancing.round_robin import RoundRobin

# Clients that are remembered in each of two generations.
MOST_CLIENTS = 65_536

KEPT = "the client's own"


class StickyRoundRobin(AlgorithmBase[C]):
    """
    A client gets a server by round robin, and keeps it until it goes down.

    Clients are remembered in two generations: when the young one is full, the
    old one is forgotten and the young one becomes old. So at least the last
    `MOST_CLIENTS` that came are known.
    """

    def __init__(self) -> None:
        self._turns: RoundRobin[C] = RoundRobin()
        self._young: dict[str, C] = {}
        self._old: dict[str, C] = {}
        self._present: frozenset[C] = frozenset()

    def meet(self, servers: Sequence[C]) -> None:
        self._turns.meet(servers)
        self._present = frozenset(servers)

    def order(self, client: str) -> Iterator[Choice[C]]:
        kept = self._young.get(client)
        if kept is None:
            kept = self._old.get(client)
            if kept is not None:
                self._remember(client, kept)
        first = kept if kept in self._present else None
        if first is not None:
            yield first, KEPT
        for server, reason in self._turns.order(client):
            if server is not first:
                # It moves if it has none or that went down, but not when it
                # is merely full.
                if kept is None or kept not in self._present or not kept.available:
                    self._remember(client, server)
                    kept = server
                yield server, reason

    def _remember(self, client: str, server: C) -> None:
        if len(self._young) >= MOST_CLIENTS and client not in self._young:
            self._old, self._young = self._young, {}
        self._young[client] = server
