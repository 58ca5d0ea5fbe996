"""Tables of keys that are bounded, and never take long for one step."""

from __future__ import annotations

from math import inf
from typing import Callable, Generic, TypeVar

V = TypeVar("V")

# A dict of a million keys takes tens of milliseconds to grow or to be freed,
# during which nobody is served; one of 256 parts takes a fraction of one.
# Whose shard a key is, `hash` decides, so nobody can choose keys of one shard.
SHARDS = 256
LAST_SHARD = SHARDS - 1

# Shards that are tidied at a time, a few times a minute each.
TIDIED = 8

# How many keys are looked at to find one that can be spared.
_LOOKED_AT = 8

# The worth of a value that must not be forgotten.
PRICELESS = inf


class Shard(Generic[V]):
    """
    A part of a table: at most `most` keys and their `values`.

    When it is full, a new key takes the place of another: of a few chosen
    without a pattern, the one that is worth least.
    """

    __slots__ = ("_hand", "_keys", "most", "values")

    def __init__(self, most: int) -> None:
        self.most = most
        self.values: dict[bytes, V] = {}
        self._keys: list[bytes] = []
        self._hand = 0

    def add(self, key: bytes, value: V, worth: Callable[[bytes, V], float]) -> None:
        """
        Add a key that is not there. Nothing changes if it is full of keys
        that are `PRICELESS`, as far as one can see at a glance.
        """
        if len(self._keys) < self.most or self._forget_one(worth):
            self.values[key] = value
            self._keys.append(key)

    def _forget_one(self, worth: Callable[[bytes, V], float]) -> bool:
        keys, values = self._keys, self.values
        least, place = PRICELESS, -1
        for _ in range(_LOOKED_AT):
            # A linear congruential generator; its low bits are of no use.
            self._hand = (self._hand * 1103515245 + 12345) & 0x7FFFFFFF
            looked_at = (self._hand >> 8) % len(keys)
            key = keys[looked_at]
            value = worth(key, values[key])
            if value < least:
                least, place = value, looked_at
        if place < 0:
            return False
        del values[keys[place]]
        keys[place] = keys[-1]
        keys.pop()
        return True

    def keep(self, wanted: Callable[[V], bool]) -> None:
        """Forget all keys but those whose values are `wanted`."""
        kept = {key: value for key, value in self.values.items() if wanted(value)}
        if len(kept) < len(self.values):
            self.values = kept
            self._keys = list(kept)


class Table(Generic[V]):
    """A table of at most about `most` keys, in shards."""

    def __init__(self, most: int) -> None:
        self.shards: list[Shard[V]] = [Shard(max(1, most // SHARDS)) for _ in range(SHARDS)]
        self._tidied = 0

    def shard(self, key: bytes) -> Shard[V]:
        """Where `key` is, if it is anywhere."""
        return self.shards[hash(key) & LAST_SHARD]

    def keep(self, wanted: Callable[[V], bool]) -> None:
        """Forget what is not wanted any more in the next few shards."""
        for _ in range(TIDIED):
            self._tidied = (self._tidied + 1) & LAST_SHARD
            self.shards[self._tidied].keep(wanted)

    def __len__(self) -> int:
        return sum(len(shard.values) for shard in self.shards)
