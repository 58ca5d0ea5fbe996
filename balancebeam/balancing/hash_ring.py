"""Consistent hashing: each client has a fixed server."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from balancebeam.balancing.base import ReplicatedAlgorithm
from balancebeam.balancing.interfaces import BackendT, Selection

# Points on the ring per unit of weight. The share of a server then deviates by about 6 %
# from its weight (the standard deviation is 1 / sqrt(points)).
POINTS = 256

# If the sum of all weights exceeds LARGE_TOTAL_WEIGHT, a unit of weight gets fewer points:
# the weights themselves are large then, and the ring stays below 2**20 points for 100 servers
# of the largest weight. A ring switches once, and never back, as a switch may move clients.
LARGE_TOTAL_WEIGHT = 4096
POINTS_LARGE = 16

# A point is a 64-bit integer: a position on the ring and, in its lowest bits, a slot,
# which is the index of its server in `_owners`.
_SLOT_BITS = 20
_SLOTS = (1 << _SLOT_BITS) - 1

_DIGEST = struct.Struct("<8Q")

REASON_OWNER = "owner on the ring"
REASON_NEXT = "next on the ring"


class HashRing(ReplicatedAlgorithm[BackendT]):
    """
    Assigns a client to the server whose point follows the client's position on a ring.

    Points depend only on the name and weight of a server. So assignments are the same after
    a restart, and if a server is removed only its own clients move. A server that is absent
    for a while keeps its points, which are skipped, as long as the absent weights are no
    more than the present ones.

    D. Karger et al., "Consistent Hashing and Random Trees", STOC 1997.
    """

    def __init__(self) -> None:
        self._points_per_weight = POINTS
        self._points = array("Q")
        self._point_counts: dict[str, int] = {}
        self._weights: dict[str, int] = {}
        self._slots: dict[str, int] = {}
        # By slot: the server; `None` if it is absent.
        self._owners: list[BackendT | None] = []
        self._present_count = 0

    def update(self, servers: Sequence[BackendT]) -> None:
        present = {server.name: server for server in servers}
        weights = {server.name: server.weight for server in servers}
        absent = {n: weight for n, weight in self._weights.items() if n not in present}
        if sum(absent.values()) <= sum(weights.values()):
            weights.update(absent)
        if weights != self._weights:
            self._weights = weights
            self._rebuild()
        self._owners = [None] * len(self._slots)
        for name, server in present.items():
            self._owners[self._slots[name]] = server
        self._present_count = len(present)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        # Local references: `update` may replace the attributes during the iteration.
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
        """Build the points for `_weights`; points of unchanged servers are reused."""
        if sum(self._weights.values()) > LARGE_TOTAL_WEIGHT:
            self._points_per_weight = POINTS_LARGE
        counts = {name: weight * self._points_per_weight for name, weight in self._weights.items()}
        unchanged = {
            name for name, count in counts.items() if self._point_counts.get(name) == count
        }
        slots = {name: slot for slot, name in enumerate(counts)}
        new_slots = {old: slots[name] for name, old in self._slots.items() if name in unchanged}
        points = [
            point & ~_SLOTS | new_slots[point & _SLOTS]
            for point in self._points
            if point & _SLOTS in new_slots
        ]
        for name, count in counts.items():
            if name not in unchanged:
                points += [point & ~_SLOTS | slots[name] for point in _points(name, count)]
        self._points = array("Q", sorted(points))
        self._point_counts = counts
        self._slots = slots


def _points(name: str, count: int) -> Iterator[int]:
    """The first `count` points of the server called `name`, as 64-bit integers."""
    for block in range(0, count, 8):
        digest = blake2b(f"{name} {block}".encode()).digest()
        yield from _DIGEST.unpack(digest)[: count - block]


def _position(key: str) -> int:
    """The position of a client on the ring."""
    return int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "little")
