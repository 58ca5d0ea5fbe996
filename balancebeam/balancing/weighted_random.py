"""At random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import C, Choice
from balancebeam.balancing.weighted_sampler import Urn
from balancebeam.core.interfaces import Random

DRAWN = "drawn at random"


class RandomChoice(AlgorithmBase[C]):
    """At random, in proportion to the shares."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._urn: Urn[C] = Urn((), random)

    def meet(self, servers: Sequence[C]) -> None:
        self._urn = Urn(servers, self._random)

    def order(self, client: str) -> Iterator[Choice[C]]:
        urn = self._urn
        if not len(urn):
            return
        first = urn[urn.draw()]
        yield first, DRAWN
        for server in urn.rest((first,)):
            yield server, DRAWN
