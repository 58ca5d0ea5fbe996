"""Base class of algorithms that select the server with the least cost, without a scan."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from itertools import count
from typing import Any, Generic, TypeVar

from balancebeam.balancing.base import ReplicatedAlgorithm
from balancebeam.balancing.interfaces import BackendT, Selection

LeastLoadedT = TypeVar("LeastLoadedT", bound="LeastLoaded[Any]")

# Cost, virtual finish time, tie breaker (unique, so that servers are never compared), server.
_Entry = tuple[float, float, int, BackendT]


class LeastLoaded(ReplicatedAlgorithm[BackendT], Generic[BackendT]):
    """
    The server with the least `cost` first; servers of equal cost take turns.

    A heap holds the current entry of each server, and outdated entries, which are dropped
    when they reach the top. Each event of a request pushes one entry in O(log n).

    Turns are stride scheduling (C. Waldspurger, 1995): each request advances the virtual
    time of its server by 1 / weight, and the server that is furthest behind is next.

    Attributes:
        best_reason: Why the first server was selected, for logs.
        next_reason: Why the others follow.
    """

    tracks_load = True
    best_reason = "least cost"
    next_reason = "next least cost"

    def __init__(self) -> None:
        self._heap: list[_Entry[BackendT]] = []
        self._entries: dict[BackendT, _Entry[BackendT]] = {}
        self._tie_breakers = count()
        # The virtual time of the server that was used last.
        self._virtual_time = 0.0

    @abstractmethod
    def cost(self, server: BackendT) -> float:
        """The cost of `server`: how loaded it is, relative to its effective weight."""

    def update(self, servers: Sequence[BackendT]) -> None:
        old_entries, start = self._entries, self._virtual_time
        self._virtual_time = 0.0
        self._entries = {}
        for server in servers:
            if not server.effective_weight:
                continue
            entry = old_entries.get(server)
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

    def replica(self: LeastLoadedT, key: str) -> LeastLoadedT:
        replica = super().replica(key)
        replica._heap = list(self._heap)
        # `update` numbers all entries anew, so the replica need not continue the count.
        replica._tie_breakers = count()
        return replica

    def request_started(self, server: BackendT, now: float) -> None:
        old = self._entries.get(server)
        if old is None or not server.effective_weight:
            return
        # A server that was busy or absent must not catch up on the turns that it missed.
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
        """Replace the entry of `server`, whose cost has changed."""
        old = self._entries.get(server)
        # A weight of 0 means that the server is about to be removed.
        if old is not None and server.effective_weight:
            entry = (self.cost(server), old[1], next(self._tie_breakers), server)
            self._entries[server] = entry
            self._push(entry)

    def _push(self, entry: _Entry[BackendT]) -> None:
        # Rebuilding in O(n) at twice the size keeps pushes at O(log n) on average; the
        # constant avoids frequent rebuilds in small pools.
        if len(self._heap) > 2 * len(self._entries) + 64:
            self._rebuild_heap()
        else:
            heappush(self._heap, entry)

    def _rebuild_heap(self) -> None:
        """Drop all outdated entries."""
        self._heap = list(self._entries.values())
        heapify(self._heap)
