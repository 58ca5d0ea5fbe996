"""Weighted round robin."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from heapq import heapify, heapreplace
from math import gcd

from balancebeam.balancing.base import ReplicatedAlgorithm
from balancebeam.balancing.interfaces import BackendT, Selection

# A cycle is computed in advance if that takes at most MAX_CYCLE steps (servers times turns):
# about 1 ms at a change of the servers. All rotations of a cycle are stored if they have at
# most MAX_TABLE elements together, which takes up to 270 KiB.
MAX_CYCLE = 16_384
MAX_TABLE = 4_096

REASON_TURN = "next turn"
REASON_NEXT = "following turn"


class RoundRobin(ReplicatedAlgorithm[BackendT]):
    """
    Servers take turns in the given order, smoothly interleaved by weight.

    The weighted form is nginx's smooth weighted round robin, computed for a whole cycle in
    advance, so that a turn is one table lookup. If the cycle would be long (many servers
    with many weights, or a server in slow start), it is earliest deadline first, as in
    Envoy: a server of weight w is due every 1/w, and a heap finds the next one without a
    scan. Both give each server exactly its share over a cycle.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._cycle: Sequence[BackendT] = ()
        self._table: list[tuple[Selection[BackendT], ...]] = []
        self._deadlines: list[tuple[float, int, BackendT]] = []

    def update(self, servers: Sequence[BackendT]) -> None:
        self._cycle = tuple(servers) if _has_equal_weights(servers) else _smooth_cycle(servers)
        self._table = []
        if self._cycle:
            self._deadlines = []
            if len(self._cycle) * len(servers) <= MAX_TABLE:
                self._table = [tuple(self._rotation(n)) for n in range(len(self._cycle))]
        else:
            self._schedule(servers)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        turn = self._turn
        self._turn = turn + 1
        if self._table:
            return iter(self._table[turn % len(self._table)])
        if self._cycle:
            return self._rotation(turn % len(self._cycle))
        return self._earliest_deadline_first()

    def replica(self, key: str) -> RoundRobin[BackendT]:
        replica = super().replica(key)
        # A turn by deadlines changes the heap in place.
        replica._deadlines = list(self._deadlines)
        return replica

    def _rotation(self, start: int) -> Iterator[Selection[BackendT]]:
        """The servers in the order in which they follow `start` in the cycle."""
        cycle = self._cycle
        yield cycle[start], REASON_TURN
        seen = {cycle[start]}
        for index in range(start + 1, start + len(cycle)):
            server = cycle[index % len(cycle)]
            if server not in seen:
                seen.add(server)
                yield server, REASON_NEXT

    def _schedule(self, servers: Sequence[BackendT]) -> None:
        """Build the heap: known servers keep their deadline, new ones get half a period."""
        now = self._deadlines[0][0] if self._deadlines else 0.0
        remaining = {server: deadline - now for deadline, _, server in self._deadlines}
        self._deadlines = [
            (
                min(
                    remaining.get(server, 0.5 / server.effective_weight),
                    1 / server.effective_weight,
                ),
                number,
                server,
            )
            for number, server in enumerate(servers)
        ]
        heapify(self._deadlines)

    def _earliest_deadline_first(self) -> Iterator[Selection[BackendT]]:
        deadlines = self._deadlines
        if not deadlines:
            return
        deadline, number, first = deadlines[0]
        # The weight may have become 0 since the last update.
        heapreplace(deadlines, (deadline + 1 / (first.effective_weight or 1.0), number, first))
        yield first, REASON_TURN
        for _, _, server in sorted(deadlines):
            if server is not first:
                yield server, REASON_NEXT


def _has_equal_weights(servers: Sequence[BackendT]) -> bool:
    return len({server.effective_weight for server in servers}) <= 1


def _smooth_cycle(servers: Sequence[BackendT]) -> list[BackendT]:
    """
    One cycle of nginx's smooth weighted round robin; empty if it would be too long.

    In each turn every server gains its weight as credit; the server with the most credit
    is selected, and pays the sum of all weights.
    """
    if any(server.effective_weight != int(server.effective_weight) for server in servers):
        return []
    shares = [int(server.effective_weight) for server in servers]
    divisor = reduce(gcd, shares)
    shares = [share // divisor for share in shares]
    total = sum(shares)
    if total * len(shares) > MAX_CYCLE:
        return []
    credits = [0] * len(shares)
    cycle = []
    for _ in range(total):
        credits = [credit + share for credit, share in zip(credits, shares)]
        richest = credits.index(max(credits))
        credits[richest] -= total
        cycle.append(servers[richest])
    return cycle
