"""The less loaded of two."""

from __future__ import annotations

from collections.abc import Iterator

from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.weighted_random import REASON_RANDOM, WeightedRandom

REASON_LESS_LOADED = "the less loaded of two"
REASON_MORE_LOADED = "the more loaded of two"


class PowerOfTwo(WeightedRandom[BackendT]):
    """
    Two servers at random, in proportion to their shares, and of these the one
    with fewer requests in flight for its share.

    M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
    IEEE TPDS 12 (2001).
    """

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        urn = self._sampler
        if len(urn) < 2:
            if len(urn):
                yield urn[0], REASON_LESS_LOADED
            return
        number = urn.sample()
        first, second = urn[number], urn[urn.sample_other(number)]
        if second.in_flight * first.effective_weight < first.in_flight * second.effective_weight:
            first, second = second, first
        yield first, REASON_LESS_LOADED
        yield second, REASON_MORE_LOADED
        for server in urn.remaining((first, second)):
            yield server, REASON_RANDOM
