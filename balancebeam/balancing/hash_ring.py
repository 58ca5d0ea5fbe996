"""Every client at its place on a ring."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import BackendT, Selection

# Points on the ring for each unit of weight: the share of a server then
# deviates by about 6 %.
POINTS = 256

# Where all weights together are more than `LARGE_TOTAL_WEIGHT`, which no small fleet needs,
# a unit gets fewer: weights are large then, and points enough. A ring changes
# over only once, and not back, because all clients might move by it.
LARGE_TOTAL_WEIGHT = 4096
POINTS_LARGE = 16

# A point is a position on the ring and, in the lowest bits, whose it is.
_SLOT_BITS = 20
_SLOTS = (1 << _SLOT_BITS) - 1

_DIGEST = struct.Struct("<8Q")

REASON_OWNER = "the client's place on the ring"
REASON_NEXT = "next on the ring"


class HashRing(AlgorithmBase[BackendT]):
    """
    Consistent hashing: a client goes to the server whose point follows its
    own on a ring. Points depend on nothing but a server's name and weight, so
    that all is the same after a restart, and only the clients of a server
    that leaves move. One that is out for a while keeps its points, which are
    passed over.

    D. Karger et al., "Consistent Hashing and Random Trees", STOC 1997.
    """

    def __init__(self) -> None:
        self._points_per_weight = POINTS
        self._points = array("Q")
        self._point_counts: dict[str, int] = {}
        self._weights: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        # By slot: who is there, if it is present.
        self._owners: list[BackendT | None] = []
        self._present_count = 0

    def update(self, servers: Sequence[BackendT]) -> None:
        here = {server.name: server for server in servers}
        weights = {server.name: server.weight for server in servers}
        absent = {n: weight for n, weight in self._weights.items() if n not in here}
        if sum(absent.values()) <= sum(weights.values()):
            weights.update(absent)
        if weights != self._weights:
            self._weights = weights
            self._rebuild()
        self._owners = [None] * len(self._slots)
        for name, server in here.items():
            self._owners[self._slots[name]] = server
        self._present_count = len(here)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        # As things are now: they may change before the next one is asked for.
        points, owners, present = self._points, self._owners, self._present_count
        index = bisect(points, _position(key))
        reason = REASON_OWNER
        seen: set[BackendT] = set()
        while len(seen) < present:
            owner = owners[points[index % len(points)] & _SLOTS]
            index += 1
            if owner is not None and owner not in seen:
                seen.add(owner)
                yield owner, reason
                reason = REASON_NEXT

    def _rebuild(self) -> None:
        """Put the points where `_weights` want them; those that stay are not made anew."""
        if sum(self._weights.values()) > LARGE_TOTAL_WEIGHT:
            self._points_per_weight = POINTS_LARGE
        counts = {name: weight * self._points_per_weight for name, weight in self._weights.items()}
        stay = {name for name, count in counts.items() if self._point_counts.get(name) == count}
        slots = {name: slot for slot, name in enumerate(counts)}
        moved = {old: slots[name] for name, old in self._slots.items() if name in stay}
        points = [
            point & ~_SLOTS | moved[point & _SLOTS]
            for point in self._points
            if point & _SLOTS in moved
        ]
        for name, count in counts.items():
            if name not in stay:
                points += [point & ~_SLOTS | slots[name] for point in _points(name, count)]
        self._points = array("Q", sorted(points))
        self._point_counts = counts
        self._slots = slots


def _points(name: str, count: int) -> Iterator[int]:
    """The first `count` points of a server, as numbers of 64 bits."""
    for block in range(0, count, 8):
        digest = blake2b(f"{name} {block}".encode()).digest()
        yield from _DIGEST.unpack(digest)[: count - block]


def _position(client: str) -> int:
    return int.from_bytes(blake2b(client.encode(), digest_size=8).digest(), "little")
