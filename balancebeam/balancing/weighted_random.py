"""Weighted random selection."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.weighted_sampler import WeightedSampler
from balancebeam.core.interfaces import Random

REASON_RANDOM = "random"


class WeightedRandom(AlgorithmBase[BackendT]):
    """Selects servers at random, in proportion to their effective weights."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._sampler: WeightedSampler[BackendT] = WeightedSampler((), random)

    def update(self, servers: Sequence[BackendT]) -> None:
        self._sampler = WeightedSampler(servers, self._random)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        sampler = self._sampler
        if not len(sampler):
            return
        first = sampler[sampler.sample()]
        yield first, REASON_RANDOM
        for server in sampler.remaining((first,)):
            yield server, REASON_RANDOM
