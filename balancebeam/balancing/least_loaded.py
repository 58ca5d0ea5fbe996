"""The server with the least of something first, without a scan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Generic

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import BackendT, Selection

# Load, pass, a number that no two entries share, server.
_Entry = tuple[float, float, int, BackendT]


class LeastLoaded(AlgorithmBase[BackendT], Generic[BackendT]):
    """
    The server with the least `cost` first; among equals, in turn.

    A heap holds an entry for each server, and entries that have become out of
    date, which are dropped when they come up. Equals take turns by stride
    scheduling (C. Waldspurger, 1995): each request moves a server on by one
    over its share, and the one that is furthest behind is next.
    """

    tracks_load = True
    best_reason = "least load"
    next_reason = "next least load"

    def __init__(self) -> None:
        self._heap: list[_Entry[BackendT]] = []
        self._entries: dict[BackendT, _Entry[BackendT]] = {}
        self._tie_breakers = count()
        # Where the one that was taken last stood.
        self._virtual_time = 0.0

    @abstractmethod
    def cost(self, server: BackendT) -> float:
        """How much `server` has to do, for its share."""

    def update(self, servers: Sequence[BackendT]) -> None:
        known, start = self._entries, self._virtual_time
        self._virtual_time = 0.0
        self._entries = {}
        for server in servers:
            if not server.effective_weight:
                continue
            entry = known.get(server)
            behind = max(0.0, entry[1] - start) if entry is not None else 0.0
            self._entries[server] = (self.cost(server), behind, next(self._tie_breakers), server)
        self._rebuild_heap()

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        heap, current = self._heap, self._entries
        while heap and current.get(heap[0][3]) is not heap[0]:
            heappop(heap)
        if not heap:
            return
        first = heap[0][3]
        yield first, self.best_reason
        for entry in sorted(self._entries.values()):
            if entry[3] is not first:
                yield entry[3], self.next_reason

    def request_started(self, server: BackendT, now: float) -> None:
        old = self._entries.get(server)
        if old is None or not server.effective_weight:
            return
        # Who was busy with something else has no arrears to be made up for.
        self._virtual_time = max(self._virtual_time, old[1])
        entry = (
            self.cost(server),
            self._virtual_time + 1 / server.effective_weight,
            next(self._tie_breakers),
            server,
        )
        self._entries[server] = entry
        if self._heap[0] is old:
            heapreplace(self._heap, entry)
        else:
            self._push(entry)

    def response_started(self, server: BackendT, seconds: float, now: float) -> None:
        self._requeue(server)

    def request_finished(self, server: BackendT, seconds: float | None, now: float) -> None:
        self._requeue(server)

    def _requeue(self, server: BackendT) -> None:
        old = self._entries.get(server)
        # One that has just been given a weight of 0 is about to leave.
        if old is not None and server.effective_weight:
            entry = (self.cost(server), old[1], next(self._tie_breakers), server)
            self._entries[server] = entry
            self._push(entry)

    def _push(self, entry: _Entry[BackendT]) -> None:
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._rebuild_heap()
        else:
            heappush(self._heap, entry)

    def _rebuild_heap(self) -> None:
        """Drop all entries that are out of date."""
        self._heap = list(self._entries.values())
        heapify(self._heap)
