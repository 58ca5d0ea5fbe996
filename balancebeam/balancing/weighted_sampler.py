"""Weighted random sampling of servers."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import log
from typing import Generic

from balancebeam.balancing.interfaces import BackendT
from balancebeam.core.interfaces import Random

# The resolution of `random()`; replaces 0, which has no logarithm.
_EPSILON = 2.0**-53


class WeightedSampler(Generic[BackendT]):
    """
    Samples `servers` by effective weight, in O(log n) with one random number per sample.

    Attributes:
        servers: The servers.
    """

    def __init__(self, servers: Sequence[BackendT], random: Random) -> None:
        self.servers = servers
        self._cumulative_weights = list(accumulate(server.effective_weight for server in servers))
        self._random = random

    def __len__(self) -> int:
        return len(self.servers)

    def sample(self) -> int:
        """Return the index of a random server."""
        sums = self._cumulative_weights
        return min(bisect(sums, self._random.random() * sums[-1]), len(sums) - 1)

    def sample_other(self, first: int) -> int:
        """Return the index of a random server other than `first`, of at least two."""
        sums = self._cumulative_weights
        weight = self.servers[first].effective_weight
        point = self._random.random() * (sums[-1] - weight)
        if point >= sums[first] - weight:
            # Skip the interval of the first server.
            point += weight
        index = min(bisect(sums, point), len(sums) - 1)
        if index == first:
            # Possible by rounding only.
            index = index - 1 if index else 1
        return index

    def __getitem__(self, index: int) -> BackendT:
        return self.servers[index]

    def remaining(self, excluded: Sequence[BackendT]) -> Iterator[BackendT]:
        """
        Iterate over all servers except `excluded`, sampled without replacement by weight.

        Sorting by exponentially distributed times at these rates gives that order
        (P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006).
        """

        def time(server: BackendT) -> float:
            # The weight may have become 0 since the last update.
            rate = server.effective_weight or _EPSILON
            return -log(max(1 - self._random.random(), _EPSILON)) / rate

        return iter(sorted((s for s in self.servers if s not in excluded), key=time))
