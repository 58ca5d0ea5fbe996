"""Tables of keys that are bounded, and never take long for one step."""

from __future__ import annotations

from math import inf
from typing import Callable, Generic, TypeVar

V = TypeVar("V")

# A dict of a million keys takes tens of milliseconds to grow or to be freed,
# during which nobody is served; one of 256 parts takes a fraction of one.
# Whose shard a key is, `hash` decides, so nobody can choose keys of one shard.
SHARD_COUNT = 256
SHARD_MASK = SHARD_COUNT - 1

# Shards that are tidied at a time, a few times a minute each.
SHARDS_PER_SWEEP = 8

# How many keys are looked at to find one that can be spared.
_EVICTION_SAMPLES = 8

# The worth of a value that must not be forgotten.
NEVER_EVICT = inf


class BoundedMap(Generic[V]):
    """
    A part of a table: at most `max_keys` keys and their `values`.

    When it is full, a new key takes the place of another: of a few chosen
    without a pattern, the one that is worth least.
    """

    __slots__ = ("_keys", "_random_state", "max_keys", "values")

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        self.values: dict[bytes, V] = {}
        self._keys: list[bytes] = []
        self._random_state = 0

    def add(self, key: bytes, value: V, eviction_cost: Callable[[bytes, V], float]) -> None:
        """
        Add a key that is not there. Nothing changes if it is full of keys
        that are `NEVER_EVICT`, as far as one can see at a glance.
        """
        if len(self._keys) < self.max_keys or self._evict_one(eviction_cost):
            self.values[key] = value
            self._keys.append(key)

    def _evict_one(self, eviction_cost: Callable[[bytes, V], float]) -> bool:
        keys, values = self._keys, self.values
        least, place = NEVER_EVICT, -1
        for _ in range(_EVICTION_SAMPLES):
            # A linear congruential generator; its low bits are of no use.
            self._random_state = (self._random_state * 1103515245 + 12345) & 0x7FFFFFFF
            looked_at = (self._random_state >> 8) % len(keys)
            key = keys[looked_at]
            value = eviction_cost(key, values[key])
            if value < least:
                least, place = value, looked_at
        if place < 0:
            return False
        del values[keys[place]]
        keys[place] = keys[-1]
        keys.pop()
        return True

    def retain(self, predicate: Callable[[V], bool]) -> None:
        """Forget all keys but those whose values are those that `predicate` accepts."""
        kept = {key: value for key, value in self.values.items() if predicate(value)}
        if len(kept) < len(self.values):
            self.values = kept
            self._keys = list(kept)


class ShardedTable(Generic[V]):
    """A table of at most about `max_keys` keys, in shards."""

    def __init__(self, max_keys: int) -> None:
        self.shards: list[BoundedMap[V]] = [
            BoundedMap(max(1, max_keys // SHARD_COUNT)) for _ in range(SHARD_COUNT)
        ]
        self._last_swept = 0

    def shard(self, key: bytes) -> BoundedMap[V]:
        """Where `key` is, if it is anywhere."""
        return self.shards[hash(key) & SHARD_MASK]

    def retain(self, predicate: Callable[[V], bool]) -> None:
        """Forget what is not wanted any more in the next few shards."""
        for _ in range(SHARDS_PER_SWEEP):
            self._last_swept = (self._last_swept + 1) & SHARD_MASK
            self.shards[self._last_swept].retain(predicate)

    def __len__(self) -> int:
        return sum(len(shard.values) for shard in self.shards)
