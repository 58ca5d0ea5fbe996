"""
States of the dynamic table, and the blocks that were decoded in them.

Clients repeat their header blocks. A block decoded with the same table means the same,
on whatever connection, so its result and the state it leads to are memoised in the
state: `block -> (result, next state)`. Equal keys have equal meaning, which is why no
value can reach a connection that has not sent it itself.

There are two kinds of states:

- Shared states belong to `SharedTables`. A connection reaches them with
  the blocks that another connection has sent before in the same order, such as the first
  requests of equal browsers.
- Local states belong to one connection, and so do their memos. All states after a block
  with a credential or a never-indexed value are local, and so are states after a
  block that was seen for the first time.

A block is memoised when it is seen for the second time in a state: a block that never
occurs again, such as a hostile client may send forever, evicts nothing.

Most clients send :path as an unindexed literal, and often a new one. For the others
fields such a block is looked up without it. The key consists of what is before and
behind the path, and where it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Generic, TypeVar
from weakref import WeakValueDictionary

from balancebeam.protocols.http2.hpack import (
    FIRST_DYNAMIC,
    PATH_LITERAL,
    DecodedBlock,
    Field,
    HeaderLimits,
    Table,
    decode_block,
    decode_string,
    lower_limit,
)
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge
from balancebeam.protocols.http2.path_literal import find_path, path_end, without_path

T = TypeVar("T")
# See `TableState`.
_Entry = tuple[T, "TableState[T] | None", int]
_EntryWithoutPath = tuple[T, "TableState[T] | None", int, int, int]

# Limits on lists per shared tables: they change with a reload only.
MAX_ROOTS = 16
# Blocks that were seen once, as hashes. At 10000 requests a second all different, a
# block is memoised if it is repeated within a second.
MAX_SEEN = 16384
# Paths by their literal. With 128 bytes each they take 512 KiB; more of them, most of which are
# requested once, would displace other data from the caches of the processor.
MAX_PATHS = 1024
MAX_CACHED_PATH = 128
# Blocks with longer lists differ from request to request (tokens, tracing).
MAX_ENTRY_COST = 16 * 1024
# Estimates, in bytes, of the objects of an entry beside its block and fields, and of a
# state beside its dynamic table.
_ENTRY_COST = 512
_STATE_COST = 2048

# What a local memo holds at most: connections that send credentials repeat few blocks,
# and 10000 connections must not hold more than 640 MB even if all are hostile.
LOCAL_ENTRIES = 32
LOCAL_BYTES = 64 * 1024


class TableState(Generic[T]):
    """
    A state of the dynamic table, immutable but for its memos.

    The entries of the memos are tuples, because an item of a tuple is read faster than an
    attribute: `(result, next state or None for the same, cost)`, and for blocks
    without :path `(result for "/", next state or None, cost, path start, spare)`, where
    `spare` is the length of the longest path within the limits.

    Attributes:
        table: The content.
        limits: The limits of the decoders in this state.
        shared: Whether more than one connection may use it.
        memo: Entries by block.
        memo_without_path: Entries by block without the string of :path.
        older: The older generation of `memo`; not used by local states.
        older_without_path: The older generation of `memo_without_path`.
        path_start: Where :path started in the last block that was found without it.
        salt: Distinguishes blocks of this state from blocks of others.
    """

    __slots__ = (
        "__weakref__",
        "_cost",
        "limits",
        "memo",
        "memo_without_path",
        "older",
        "older_without_path",
        "path_start",
        "salt",
        "shared",
        "table",
    )

    def __init__(self, table: Table, limits: HeaderLimits, shared: bool, salt: int) -> None:
        self.table = table
        self.limits = limits
        self.shared = shared
        self.salt = salt
        self.memo: dict[bytes, _Entry[T]] = {}
        self.memo_without_path: dict[bytes, _EntryWithoutPath[T]] = {}
        self.older: dict[bytes, _Entry[T]] = {}
        self.older_without_path: dict[bytes, _EntryWithoutPath[T]] = {}
        self.path_start = 0
        self._cost = 0

    def next_generation(self) -> bool:
        """Start the next generation of the memos; return whether the last one was used."""
        used = bool(self.memo or self.memo_without_path)
        self.older, self.memo = self.memo, {}
        self.older_without_path, self.memo_without_path = self.memo_without_path, {}
        return used

    def reserve(self, cost: int) -> None:
        """Make space for an entry of a local state: the memos are cleared if it is exceeded."""
        entries = len(self.memo) + len(self.memo_without_path)
        if self._cost + cost > LOCAL_BYTES or entries >= LOCAL_ENTRIES:
            self.memo.clear()
            self.memo_without_path.clear()
            self._cost = 0
        self._cost += cost


class SharedTables(Generic[T]):
    """
    What the decoders of all connections of a frontend share.

    Two generations bound the memos of all shared states: an entry in use moves from the
    older to the younger one, and when the younger is full it becomes the older. An
    entry costs the lengths of its block and its fields and an estimate of its objects; a
    result usually has two to three times the length of its fields. With the defaults,
    that is 8 MiB for both generations, and 10 to 20 MiB in fact. Blocks seen once take
    another 1 MiB, paths another 512 KiB at most.

    The time of a look-up reveals whether a complete block was sent before, path included;
    it does not reveal parts of a block, as the key is all of it.

    Attributes:
        interpret: See the argument.
        with_path: See the argument.
        paths: Paths that were sent before, by their literal (RFC 7541, 5.2); not the ones that were
            sent as never indexed.
    """

    def __init__(
        self,
        interpret: Callable[[Sequence[Field]], T],
        with_path: Callable[[T, bytes], T | None] | None = None,
        max_entries: int = 4096,
        max_cost: int = 4 * 1024 * 1024,
    ) -> None:
        """
        Create tables without states.

        Args:
            interpret: Makes the result of a block's fields. The result is shared by
                connections, so it must be immutable.
            with_path: Returns the result for the same fields with another :path, or
                `None` if it has to be interpreted. It must not raise.
            max_entries: Number of memoised blocks of one generation.
            max_cost: Cost of the memoised blocks of one generation, in bytes.
        """
        self.interpret = interpret
        self.with_path = with_path
        self._max_entries = max_entries
        self._max_cost = max_cost
        self._entries = 0
        self._cost = 0
        self._roots: dict[HeaderLimits, TableState[T]] = {}
        # Shared states by content. Memos and connections keep the states alive.
        self._states: WeakValueDictionary[object, TableState[T]] = WeakValueDictionary()
        # States with memos; the others are not kept.
        self._active: set[TableState[T]] = set()
        self._seen: set[int] = set()
        self.paths: dict[bytes, bytes] = {}
        self._salt = 0

    def root(self, limits: HeaderLimits) -> TableState[T]:
        """Return the state of new connections."""
        root = self._roots.get(limits)
        if root is None:
            if len(self._roots) >= MAX_ROOTS:
                self._roots.clear()
            root = self._roots[limits] = self.state(Table(), limits, True)
        return root

    def state(self, table: Table, limits: HeaderLimits, shared: bool) -> TableState[T]:
        """Return the shared state with a content, or a new local one."""
        key = (table.fields[FIRST_DYNAMIC:], table[1:], limits) if shared else None
        state = self._states.get(key) if shared else None
        if state is None:
            # An odd constant of 64 bits spreads consecutive numbers over all bits.
            self._salt = (self._salt + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
            state = TableState(table, limits, shared, self._salt)
            if shared:
                self._states[key] = state
        return state

    def was_seen(self, state: TableState[T], block: bytes) -> bool:
        """Whether a block, or its key without path, was seen in a state recently."""
        mark = hash(block) ^ state.salt
        seen = self._seen
        if mark in seen:
            return True
        if len(seen) >= MAX_SEEN:
            seen.clear()
        seen.add(mark)
        return False

    def reserve(self, state: TableState[T], cost: int) -> bool:
        """Make space for an entry in the memos of a state; return whether it may be added."""
        if cost > MAX_ENTRY_COST:
            return False
        if not state.shared:
            state.reserve(cost)
            return True
        if self._cost + cost > self._max_cost or self._entries >= self._max_entries:
            self._active = {state for state in self._active if state.next_generation()}
            self._entries = self._cost = 0
        self._entries += 1
        self._cost += cost
        self._active.add(state)
        return True

    def keep_path(self, literal: bytes, path: bytes) -> None:
        """Keep a decoded path that may be sent again."""
        if len(literal) <= MAX_CACHED_PATH:
            if len(self.paths) >= MAX_PATHS:
                self.paths.clear()
            self.paths[literal] = path


class HeaderDecoder(Generic[T]):
    """Decodes the header blocks of one direction of a connection."""

    __slots__ = ("_shared", "_state")

    def __init__(self, shared: SharedTables[T], limits: HeaderLimits) -> None:
        self._shared = shared
        self._state = shared.root(limits)

    def set_max_table_size(self, size: int) -> None:
        """
        Set the limit of the dynamic table, once the peer has acknowledged it.

        Args:
            size: SETTINGS_HEADER_TABLE_SIZE, in bytes.
        """
        state = self._state
        table = lower_limit(state.table, size)
        if table is not state.table:
            self._state = self._shared.state(table, state.limits, state.shared)

    def decode(self, block: bytes) -> T:
        """
        Decode a complete header block.

        The table has advanced also if the fields exceed a limit or `interpret` raises,
        so later blocks can be decoded.

        Raises:
            HpackError: The block is invalid; the connection has to be closed with
                COMPRESSION_ERROR, and no further block may be decoded.
            HeaderListTooLarge: The fields exceed a limit.
            Exception: What `interpret` raises.
        """
        entry = self._state.memo.get(block)
        if entry is not None:
            if entry[1] is not None:
                self._state = entry[1]
            return entry[0]
        return self._decode_rare(block)

    def _decode_rare(self, block: bytes) -> T:
        """Decode a block that is not in the younger generation."""
        state = self._state
        entry = state.older.pop(block, None)
        if entry is not None:
            if self._shared.reserve(state, entry[2]):
                state.memo[block] = entry
            self._state = entry[1] or state
            return entry[0]
        if state.memo_without_path or state.older_without_path:
            start = state.path_start
            result = self._find_without_path(state, block, start)
            if result is None:
                actual = find_path(block)
                if actual not in (-1, start):
                    result = self._find_without_path(state, block, actual)
            if result is not None:
                return result
        return self._decode_new(state, block)

    def _find_without_path(self, state: TableState[T], block: bytes, start: int) -> T | None:
        """
        Return the result for a block whose :path literal starts at `start`, or `None`.

        Most requests of browsers are decoded here, so it makes few calls.
        """
        end = path_end(block, start)
        key = without_path(block, start, end)
        entry = state.memo_without_path.get(key) or self._older_without_path(state, key)
        # The key alone does not define where the path was.
        if entry is None or entry[3] != start or not end:
            return None
        neutral, following, cost, _, spare = entry
        shared = self._shared
        literal = block[start + 1 : end]
        path = shared.paths.get(literal)
        known = path is not None
        if path is None:
            path = decode_string(literal, 0)[0]
        if len(path) > spare or shared.with_path is None:
            return None
        result = shared.with_path(neutral, path)
        if result is None:
            return None
        state.path_start = start
        if following is not None:
            self._state = following
        indexable = block[start] == PATH_LITERAL
        if indexable and not known:
            # A block with a new path is no repetition.
            shared.keep_path(literal, path)
        # A path that was sent as never indexed is kept by no shared state.
        elif (indexable or not state.shared) and shared.was_seen(state, block):
            cost += len(block) + len(path)
            if shared.reserve(state, cost):
                state.memo[block] = (result, following, cost)
        return result

    def _older_without_path(self, state: TableState[T], key: bytes) -> _EntryWithoutPath[T] | None:
        """Return the entry for a key of the older generation, and move it to the younger one."""
        entry = state.older_without_path.pop(key, None)
        if entry is not None and self._shared.reserve(state, entry[2]):
            state.memo_without_path[key] = entry
        return entry

    def _decode_new(self, state: TableState[T], block: bytes) -> T:
        """Decode a block that is not memoised, and memoise it if it was seen before."""
        shared = self._shared
        decoded = decode_block(block, state.table, state.limits)
        fields = decoded.fields
        seen = fields is not None and shared.was_seen(state, block)
        start, end = decoded.path_start, decoded.path_end
        key = None
        if end and shared.with_path is not None and fields is not None:
            key = without_path(block, start, end)
            if not shared.was_seen(state, key):
                key = None
        following = self._next_state(state, decoded, seen or key is not None)
        self._state = following
        if fields is None:
            raise HeaderListTooLarge("header list exceeds the limit")
        result = shared.interpret(fields)
        if state.shared and not following.shared:
            return result
        if following is not state and not state.shared:
            # The connection has left the state and never returns to it.
            return result
        memo_next = None if following is state else following
        cost = len(block) + decoded.list_size + _ENTRY_COST
        if memo_next is not None:
            cost += _STATE_COST + memo_next.table.size
        if key is not None and shared.with_path is not None:
            neutral = shared.with_path(result, b"/")
            if neutral is not None and shared.reserve(state, cost):
                path = next(value for name, value in fields if name == b":path")
                spare = state.limits.max_list_size - decoded.list_size + len(path)
                state.memo_without_path[key] = (neutral, memo_next, cost, start, spare)
                state.path_start = start
        never_indexed = end and block[start] != PATH_LITERAL
        if seen and not (state.shared and never_indexed) and shared.reserve(state, cost):
            state.memo[block] = (result, memo_next, cost)
        return result

    def _next_state(
        self, state: TableState[T], decoded: DecodedBlock, repeated: bool
    ) -> TableState[T]:
        """Return the state after a block; see the docstring of this module."""
        changed = decoded.table is not state.table
        if state.shared and not decoded.sensitive and (repeated or not changed):
            return self._shared.state(decoded.table, state.limits, True) if changed else state
        if changed or state.shared:
            return self._shared.state(decoded.table, state.limits, False)
        return state
