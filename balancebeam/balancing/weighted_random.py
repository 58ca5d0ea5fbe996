"""At random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.weighted_sampler import WeightedSampler
from balancebeam.core.interfaces import Random

REASON_RANDOM = "drawn at random"


class WeightedRandom(AlgorithmBase[BackendT]):
    """At random, in proportion to the shares."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._sampler: WeightedSampler[BackendT] = WeightedSampler((), random)

    def update(self, servers: Sequence[BackendT]) -> None:
        self._sampler = WeightedSampler(servers, self._random)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        urn = self._sampler
        if not len(urn):
            return
        first = urn[urn.sample()]
        yield first, REASON_RANDOM
        for server in urn.remaining((first,)):
            yield server, REASON_RANDOM
