"""Power of two choices: the less loaded of two random servers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.balancing.weighted_random import REASON_RANDOM, WeightedRandom, by_probability

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

    def explain(
        self, key: str, servers: Sequence[BackendT] | None = None
    ) -> Sequence[Selection[BackendT]]:
        """See `ExplainableAlgorithm.explain`. The reason has the probability to be first."""
        if servers is None:
            servers = self._sampler.servers
        return by_probability("less loaded of two at random", servers, _probabilities(servers))


def _probabilities(servers: Sequence[BackendT]) -> list[float]:
    """
    The probability of each server to be the less loaded one of a sample of two.

    A server of weight w is sampled first with the probability w / W, where W is the sum of the
    weights, and then another one of weight v with v / (W - w). The first wins unless its load
    is greater. Sums over the servers in the order of their loads make this O(n log n).
    """
    total = sum(server.effective_weight for server in servers)
    if len(servers) < 2 or not total:
        return [1.0] * len(servers)
    loads = [server.in_flight / (server.effective_weight or 1.0) for server in servers]
    probabilities = [0.0] * len(servers)
    # Over the servers with a greater load: the sum of their weights; and the probability to be
    # sampled first, over the sum of the weights from which the second is sampled.
    heavier_weight = heavier_first = 0.0
    by_load = sorted(range(len(servers)), key=loads.__getitem__, reverse=True)
    for _, group in groupby(by_load, loads.__getitem__):
        weights = {number: servers[number].effective_weight for number in group}
        equal_weight = sum(weights.values())
        for number, weight in weights.items():
            others = heavier_weight + equal_weight - weight
            wins_as_first = others / (total - weight) if total > weight else 0.0
            probabilities[number] = weight / total * (wins_as_first + heavier_first)
        heavier_weight += equal_weight
        heavier_first += sum(w / (total - w) for w in weights.values() if total > w)
    return probabilities
