"""Tables of keys with bounded memory and bounded time per operation."""

from __future__ import annotations

from math import inf
from typing import Callable, Generic, TypeVar

V = TypeVar("V")

# A dict of a million keys takes tens of milliseconds to grow or to be freed, during
# which the event loop is blocked; one of 256 shards takes a fraction of a millisecond.
# The shard of a key is chosen by `hash`, which is randomized per process, so clients
# cannot choose keys of one shard.
SHARD_COUNT = 256
SHARD_MASK = SHARD_COUNT - 1

# Shards that one sweep visits. With a sweep per 0.4 s, each shard is swept every 13 s.
SHARDS_PER_SWEEP = 8

# Keys that are compared to evict one, as in Redis's approximated LRU
# (`maxmemory-samples`, 5 by default).
_EVICTION_SAMPLES = 8

# The eviction cost of a value that must not be evicted.
NEVER_EVICT = inf


class BoundedMap(Generic[V]):
    """
    A shard of a table: a map with approximated eviction.

    When it is full, a new key replaces the cheapest of a few keys that are sampled at
    random.

    Attributes:
        max_keys: The maximum number of keys.
        values: The values by key. Values may be replaced here; keys are added by
            `add` only.
    """

    __slots__ = ("_keys", "_random_state", "max_keys", "values")

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        self.values: dict[bytes, V] = {}
        self._keys: list[bytes] = []
        self._random_state = 0

    def add(self, key: bytes, value: V, eviction_cost: Callable[[bytes, V], float]) -> None:
        """
        Add a new key, unless the map is full and all sampled keys are `NEVER_EVICT`.

        Args:
            key: A key that is not in the map.
            value: Its value.
            eviction_cost: Returns the cost of forgetting a key with its value.
        """
        if len(self._keys) < self.max_keys or self._evict_one(eviction_cost):
            self.values[key] = value
            self._keys.append(key)

    def _evict_one(self, eviction_cost: Callable[[bytes, V], float]) -> bool:
        keys, values = self._keys, self.values
        lowest_cost, victim = NEVER_EVICT, -1
        for _ in range(_EVICTION_SAMPLES):
            # The linear congruential generator of the C standard's example for
            # `rand`. Its low bits have short periods and are dropped.
            self._random_state = (self._random_state * 1103515245 + 12345) & 0x7FFFFFFF
            index = (self._random_state >> 8) % len(keys)
            key = keys[index]
            cost = eviction_cost(key, values[key])
            if cost < lowest_cost:
                lowest_cost, victim = cost, index
        if victim < 0:
            return False
        del values[keys[victim]]
        keys[victim] = keys[-1]
        keys.pop()
        return True

    def retain(self, predicate: Callable[[V], bool]) -> None:
        """Remove all keys whose value `predicate` does not accept."""
        kept = {key: value for key, value in self.values.items() if predicate(value)}
        if len(kept) < len(self.values):
            self.values = kept
            self._keys = list(kept)


class ShardedTable(Generic[V]):
    """
    A table of about `max_keys` keys at most.

    Attributes:
        shards: The shards, indexed by `hash(key) & SHARD_MASK`.
    """

    def __init__(self, max_keys: int) -> None:
        self.shards: list[BoundedMap[V]] = [
            BoundedMap(max(1, max_keys // SHARD_COUNT)) for _ in range(SHARD_COUNT)
        ]
        self._last_swept = 0

    def shard(self, key: bytes) -> BoundedMap[V]:
        """The shard of `key`."""
        return self.shards[hash(key) & SHARD_MASK]

    def retain(self, predicate: Callable[[V], bool]) -> None:
        """Remove the keys that `predicate` does not accept from the next few shards."""
        for _ in range(SHARDS_PER_SWEEP):
            self._last_swept = (self._last_swept + 1) & SHARD_MASK
            self.shards[self._last_swept].retain(predicate)

    def __len__(self) -> int:
        return sum(len(shard.values) for shard in self.shards)
