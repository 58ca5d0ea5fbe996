"""Which server is tried first, and which after it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Callable

from balancebeam.interfaces import Algorithm, C, Random

MOST_TURNS = 64


class RoundRobin:
    """
    In turn, in the order given; with unequal weights, interleaved smoothly.

    The weighted form is nginx's smooth weighted round robin: each turn every
    server gains its weight, the richest is taken and pays the sum of all.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._credits: dict[int, int] = {}
        self._servers: Sequence[Any] | None = None
        self._even = True
        self._turns: list[tuple[Any, ...]] = []

    def order(self, servers: Sequence[C]) -> Iterator[C]:
        if not servers:
            return iter(())
        turn = self._turn
        self._turn = turn + 1
        if servers is not self._servers:
            self._meet(servers)
        if not self._even:
            return self._weighted(servers)
        if self._turns:
            return iter(self._turns[turn % len(servers)])
        start = turn % len(servers)
        return chain(servers[start:], servers[:start])

    def _meet(self, servers: Sequence[Any]) -> None:
        """
        Prepare for `servers`. The directory hands out the same tuple until
        something changes; then all orders are written out, so that a turn
        costs one look into a table, unless the table would be large.
        """
        self._servers = servers
        self._even = len({server.weight for server in servers}) <= 1
        self._turns = []
        if self._even and isinstance(servers, tuple) and len(servers) <= MOST_TURNS:
            self._turns = [servers[start:] + servers[:start] for start in range(len(servers))]

    def _weighted(self, servers: Sequence[C]) -> Iterator[C]:
        credit = {id(s): self._credits.get(id(s), 0) + s.weight for s in servers}
        ranked = sorted(servers, key=lambda s: -credit[id(s)])
        credit[id(ranked[0])] -= sum(s.weight for s in servers)
        self._credits = credit
        yield from ranked


class RandomChoice:
    """At random, in proportion to weight, each server once."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def order(self, servers: Sequence[C]) -> Iterator[C]:
        left: list[C] = list(servers)
        total = sum(server.weight for server in left)
        while left:
            point = self._random.random() * total
            chosen = len(left) - 1
            for index, server in enumerate(left):
                point -= server.weight
                if point < 0:
                    chosen = index
                    break
            server = left.pop(chosen)
            total -= server.weight
            yield server


ALGORITHMS: Mapping[str, Callable[[Random], Algorithm]] = {
    "round-robin": lambda random: RoundRobin(),
    "weighted-round-robin": lambda random: RoundRobin(),
    "random": RandomChoice,
}

# What S4 called them; case does not matter either.
_ABBREVIATIONS: Mapping[str, str] = {"rr": "round-robin", "wrr": "weighted-round-robin"}


def algorithm_name(text: str) -> str:
    """The long name of an algorithm. Raises `ValueError` for one there is not."""
    name = text.lower()
    name = _ABBREVIATIONS.get(name, name)
    if name not in ALGORITHMS:
        raise ValueError(f"{text!r} is no algorithm; give one of {', '.join(sorted(ALGORITHMS))}")
    return name
