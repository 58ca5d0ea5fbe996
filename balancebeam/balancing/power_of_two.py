"""Power of two choices: the less loaded of two random servers."""

from __future__ import annotations

from collections.abc import Iterator

from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.weighted_random import REASON_RANDOM, WeightedRandom

REASON_LESS_LOADED = "less loaded of two"
REASON_MORE_LOADED = "more loaded of two"


class PowerOfTwo(WeightedRandom[BackendT]):
    """
    Samples two servers in proportion to their weights, and prefers the less loaded one.

    The load of a server is its number of requests in flight per effective weight.

    M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing",
    IEEE TPDS 12 (2001).
    """

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        sampler = self._sampler
        if len(sampler) < 2:
            if len(sampler):
                yield sampler[0], REASON_LESS_LOADED
            return
        index = sampler.sample()
        first, second = sampler[index], sampler[sampler.sample_other(index)]
        if second.in_flight * first.effective_weight < first.in_flight * second.effective_weight:
            first, second = second, first
        yield first, REASON_LESS_LOADED
        yield second, REASON_MORE_LOADED
        for server in sampler.remaining((first, second)):
            yield server, REASON_RANDOM
