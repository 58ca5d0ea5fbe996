"""In turn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import reduce
from heapq import heapify, heapreplace
from math import gcd

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import C, Choice

# A cycle is written out if that takes at most so many steps, and all orders
# that begin in it if they have at most so many places.
MOST_STEPS = 16_384
MOST_PLACES = 4_096

TURN = "its turn"
NEXT = "next in turn"


class RoundRobin(AlgorithmBase[C]):
    """
    In the order given; with unequal shares, interleaved smoothly.

    The weighted form is nginx's smooth weighted round robin, written out for a
    whole cycle, so that a turn costs one look into a table. Where the cycle
    would be long (many servers of many weights, or one that warms up), it is
    earliest deadline first, as in Envoy: a server of share w is due every 1/w,
    which a heap knows without a scan. Both give each server exactly its share
    over a cycle.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._cycle: Sequence[C] = ()
        self._orders: list[tuple[Choice[C], ...]] = []
        self._due: list[tuple[float, int, C]] = []

    def meet(self, servers: Sequence[C]) -> None:
        self._cycle = tuple(servers) if _even(servers) else _smooth_cycle(servers)
        self._orders = []
        if self._cycle:
            self._due = []
            if len(self._cycle) * len(servers) <= MOST_PLACES:
                self._orders = [tuple(self._from(n)) for n in range(len(self._cycle))]
        else:
            self._schedule(servers)

    def order(self, client: str) -> Iterator[Choice[C]]:
        turn = self._turn
        self._turn = turn + 1
        if self._orders:
            return iter(self._orders[turn % len(self._orders)])
        if self._cycle:
            return self._from(turn % len(self._cycle))
        return self._earliest()

    def _from(self, start: int) -> Iterator[Choice[C]]:
        cycle = self._cycle
        yield cycle[start], TURN
        seen = {cycle[start]}
        for index in range(start + 1, start + len(cycle)):
            server = cycle[index % len(cycle)]
            if server not in seen:
                seen.add(server)
                yield server, NEXT

    def _schedule(self, servers: Sequence[C]) -> None:
        """Who is known keeps its place in time; others come in the middle of their first turn."""
        now = self._due[0][0] if self._due else 0.0
        known = {server: deadline - now for deadline, _, server in self._due}
        self._due = [
            (min(known.get(server, 0.5 / server.share), 1 / server.share), number, server)
            for number, server in enumerate(servers)
        ]
        heapify(self._due)

    def _earliest(self) -> Iterator[Choice[C]]:
        due = self._due
        if not due:
            return
        deadline, number, first = due[0]
        # A weight of 0 may have been given since the servers were met.
        heapreplace(due, (deadline + 1 / (first.share or 1.0), number, first))
        yield first, TURN
        for _, _, server in sorted(due):
            if server is not first:
                yield server, NEXT


def _even(servers: Sequence[C]) -> bool:
    return len({server.share for server in servers}) <= 1


def _smooth_cycle(servers: Sequence[C]) -> list[C]:
    """
    One cycle of nginx's algorithm: each turn every server gains its weight,
    the richest is taken and pays the sum of all. Empty if it would be long.
    """
    if any(server.share != int(server.share) for server in servers):
        return []
    shares = [int(server.share) for server in servers]
    divisor = reduce(gcd, shares)
    shares = [share // divisor for share in shares]
    total = sum(shares)
    if total * len(shares) > MOST_STEPS:
        return []
    credits = [0] * len(shares)
    cycle = []
    for _ in range(total):
        credits = [credit + share for credit, share in zip(credits, shares)]
        richest = credits.index(max(credits))
        credits[richest] -= total
        cycle.append(servers[richest])
    return cycle
