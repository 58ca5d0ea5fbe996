"""Drawing servers at random, in proportion to their shares."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence
from itertools import accumulate
from math import log
from typing import Generic

from balancebeam.balancing.interfaces import C
from balancebeam.core.interfaces import Random

# Next to nothing, of which there is a logarithm.
_LEAST = 2.0**-53


class Urn(Generic[C]):
    """Holds `servers`; a draw takes O(log n) and one random number."""

    def __init__(self, servers: Sequence[C], random: Random) -> None:
        self._servers = servers
        self._sums = list(accumulate(server.share for server in servers))
        self._random = random

    def __len__(self) -> int:
        return len(self._servers)

    def draw(self) -> int:
        """The number of a server."""
        sums = self._sums
        return min(bisect(sums, self._random.random() * sums[-1]), len(sums) - 1)

    def draw_another(self, first: int) -> int:
        """The number of a server other than `first`, of at least two."""
        sums = self._sums
        share = self._servers[first].share
        point = self._random.random() * (sums[-1] - share)
        if point >= sums[first] - share:
            # The others, as if the first had been cut out.
            point += share
        index = min(bisect(sums, point), len(sums) - 1)
        if index == first:
            # Only rounding leads here.
            index = index - 1 if index else 1
        return index

    def __getitem__(self, index: int) -> C:
        return self._servers[index]

    def rest(self, drawn: Sequence[C]) -> Iterator[C]:
        """
        All but those `drawn`, at random in proportion to their shares: in the
        order of exponential times at these rates.
        """

        def when(server: C) -> float:
            # A weight of 0 may have been given since the servers were met.
            share = server.share or _LEAST
            return -log(max(1 - self._random.random(), _LEAST)) / share

        return iter(sorted((s for s in self._servers if s not in drawn), key=when))
