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

    def explain(
        self, key: str, servers: Sequence[BackendT] | None = None
    ) -> Sequence[Selection[BackendT]]:
        """See `ExplainableAlgorithm.explain`. The reason has the share of the server."""
        if servers is None:
            servers = self._sampler.servers
        return by_probability("random by weight", servers, _shares(servers))


def _shares(servers: Sequence[BackendT]) -> list[float]:
    """The share of each server in the sum of the effective weights."""
    total = sum(server.effective_weight for server in servers)
    return [server.effective_weight / total if total else 0.0 for server in servers]


def by_probability(
    reason: str, servers: Sequence[BackendT], probabilities: Sequence[float]
) -> Sequence[Selection[BackendT]]:
    """
    Sort servers by probability, the highest first; equal ones stay in the given order.

    Args:
        reason: What decides, for the reason of each selection.
        servers: The servers.
        probabilities: The probability of each to be first.
    """
    ranked = sorted(zip(probabilities, servers), key=lambda pair: -pair[0])
    return tuple((server, f"{reason}: {probability:.0%}") for probability, server in ranked)
