"""The server with the least of something first, without a scan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import C, Choice

# Load, pass, a number that no two entries share, server.
_Entry = tuple[float, float, int, C]


class LeastFirst(AlgorithmBase[C], Generic[C]):
    """
    The server with the least `load` first; among equals, in turn.

    A heap holds an entry for each server, and entries that have become out of
    date, which are dropped when they come up. Equals take turns by stride
    scheduling (C. Waldspurger, 1995): each request moves a server on by one
    over its share, and the one that is furthest behind is next.
    """

    follows_load = True
    best = "least load"
    others = "next least load"

    def __init__(self) -> None:
        self._heap: list[_Entry[C]] = []
        self._current: dict[C, _Entry[C]] = {}
        self._numbers = count()
        # Where the one that was taken last stood.
        self._turn = 0.0

    @abstractmethod
    def load(self, server: C) -> float:
        """How much `server` has to do, for its share."""

    def meet(self, servers: Sequence[C]) -> None:
        known, start = self._current, self._turn
        self._turn = 0.0
        self._current = {}
        for server in servers:
            if not server.share:
                continue
            entry = known.get(server)
            behind = max(0.0, entry[1] - start) if entry is not None else 0.0
            self._current[server] = (self.load(server), behind, next(self._numbers), server)
        self._tidy()

    def order(self, client: str) -> Iterator[Choice[C]]:
        heap, current = self._heap, self._current
        while heap and current.get(heap[0][3]) is not heap[0]:
            heappop(heap)
        if not heap:
            return
        first = heap[0][3]
        yield first, self.best
        for entry in sorted(self._current.values()):
            if entry[3] is not first:
                yield entry[3], self.others

    def taken(self, server: C, now: float) -> None:
        old = self._current.get(server)
        if old is None or not server.share:
            return
        # Who was busy with something else has no arrears to be made up for.
        self._turn = max(self._turn, old[1])
        entry = (self.load(server), self._turn + 1 / server.share, next(self._numbers), server)
        self._current[server] = entry
        if self._heap[0] is old:
            heapreplace(self._heap, entry)
        else:
            self._push(entry)

    def answered(self, server: C, seconds: float, now: float) -> None:
        self._update(server)

    def released(self, server: C, seconds: float | None, now: float) -> None:
        self._update(server)

    def _update(self, server: C) -> None:
        old = self._current.get(server)
        # One that has just been given a weight of 0 is about to leave.
        if old is not None and server.share:
            entry = (self.load(server), old[1], next(self._numbers), server)
            self._current[server] = entry
            self._push(entry)

    def _push(self, entry: _Entry[C]) -> None:
        if len(self._heap) > 2 * len(self._current) + 64:
            self._tidy()
        else:
            heappush(self._heap, entry)

    def _tidy(self) -> None:
        """Drop all entries that are out of date."""
        self._heap = list(self._current.values())
        heapify(self._heap)
