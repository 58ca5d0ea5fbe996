"""Drawing servers at random, in proportion to their shares."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import log
from typing import Generic

from balancebeam.balancing.interfaces import BackendT
from balancebeam.core.interfaces import Random

# Next to nothing, of which there is a logarithm.
_EPSILON = 2.0**-53


class WeightedSampler(Generic[BackendT]):
    """Holds `servers`; a sample takes O(log n) and one random number."""

    def __init__(self, servers: Sequence[BackendT], random: Random) -> None:
        self._servers = servers
        self._cumulative_weights = list(accumulate(server.effective_weight for server in servers))
        self._random = random

    def __len__(self) -> int:
        return len(self._servers)

    def sample(self) -> int:
        """The number of a server."""
        sums = self._cumulative_weights
        return min(bisect(sums, self._random.random() * sums[-1]), len(sums) - 1)

    def sample_other(self, first: int) -> int:
        """The number of a server other than `first`, of at least two."""
        sums = self._cumulative_weights
        share = self._servers[first].effective_weight
        point = self._random.random() * (sums[-1] - share)
        if point >= sums[first] - share:
            # The others, as if the first had been cut out.
            point += share
        index = min(bisect(sums, point), len(sums) - 1)
        if index == first:
            # Only rounding leads here.
            index = index - 1 if index else 1
        return index

    def __getitem__(self, index: int) -> BackendT:
        return self._servers[index]

    def remaining(self, excluded: Sequence[BackendT]) -> Iterator[BackendT]:
        """
        All but those `excluded`, at random in proportion to their shares: in the
        order of exponential times at these rates.
        """

        def when(server: BackendT) -> float:
            # A weight of 0 may have been given since the servers were met.
            share = server.effective_weight or _EPSILON
            return -log(max(1 - self._random.random(), _EPSILON)) / share

        return iter(sorted((s for s in self._servers if s not in excluded), key=when))
