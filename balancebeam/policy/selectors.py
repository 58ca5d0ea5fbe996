"""Which server is tried first, and which after it."""

from __future__ import annotations

from typing import Callable, Dict, Iterator, List, Mapping, Sequence

from balancebeam.interfaces import Algorithm, C, Random


class RoundRobin:
    """
    In turn, in the order given; with unequal weights, interleaved smoothly.

    The weighted form is nginx's smooth weighted round robin: each turn every
    server gains its weight, the richest is taken and pays the sum of all.
    """

    def __init__(self) -> None:
        self._turn = 0
        self._credits: Dict[int, int] = {}

    def order(self, servers: Sequence[C]) -> Iterator[C]:
        if not servers:
            return
        weight = servers[0].weight
        for server in servers:
            if server.weight != weight:
                yield from self._weighted(servers)
                return
        count = len(servers)
        turn = self._turn
        self._turn = turn + 1
        for step in range(count):
            yield servers[(turn + step) % count]

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
        left: List[C] = list(servers)
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
    "random": RandomChoice,
}

# What S4 called them; case does not matter either.
_ABBREVIATIONS: Mapping[str, str] = {"rr": "round-robin"}


def algorithm_name(text: str) -> str:
    """The long name of an algorithm. Raises `ValueError` for one there is not."""
    name = text.lower()
    name = _ABBREVIATIONS.get(name, name)
    if name not in ALGORITHMS:
        raise ValueError(f"{text!r} is no algorithm; give one of {', '.join(sorted(ALGORITHMS))}")
    return name
