"""
HPACK primitives and the decoder of header blocks (RFC 7541).

`decode_block` depends on nothing but its arguments, so that its results can be
memoised (`table_state`). Its work is linear in the length of a block: a field by
reference is one reference, whatever its length, and a block that exceeds the limit of
fields by far is not decoded to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import frozen

from balancebeam.protocols.http2.hpack_errors import HeaderFlood, HpackError
from balancebeam.protocols.http2.huffman import decode_huffman
from balancebeam.protocols.http2.static_table import STATIC_TABLE

Field = tuple[bytes, bytes]

# RFC 7541, 4.1: the size of an entry is the sum of its lengths and 32.
ENTRY_OVERHEAD = 32
# RFC 9113, 6.5.2: the initial value of SETTINGS_HEADER_TABLE_SIZE, in octets.
DEFAULT_TABLE_SIZE = 4096

# RFC 7541, 5.1: "Integer encodings that exceed implementation limits -- in value or octet
# length -- MUST be treated as decoding errors." No length or index of ours has 32 bits.
MAX_INTEGER = 2**32 - 1
_MAX_SHIFT = 28

# Fields that are decoded, for the state of the table, in multiples of
# `HeaderLimits.max_fields`. One byte may be a field, so a block of 64 KiB would cost as much as
# hundreds of requests.
_MAX_EXCESS = 4

# RFC 7541, 4.2 needs "at most two dynamic table size updates"; some encoders repeat them.
_MAX_SIZE_UPDATES = 8

# The first index of the dynamic table.
FIRST_DYNAMIC = len(STATIC_TABLE)

# The first octets of a :path with its name by index, without indexing or never indexed
# (RFC 7541, 6.2.2 and 6.2.3); they differ in one bit.
PATH_LITERAL = 0x04
PATH_LITERAL_MASK = 0xEF

# Values of these fields are credentials, whatever representation a peer has chosen.
SENSITIVE_NAMES = frozenset(
    (
        *(b"cookie", b"authorization", b"proxy-authorization", b"set-cookie"),
        *(b"www-authenticate", b"proxy-authenticate"),
        *(b"authentication-info", b"proxy-authentication-info"),
    )
)


@frozen
class HeaderLimits:
    """
    Limits of a decoded header list.

    Attributes:
        max_list_size: Sum of the sizes of all fields in bytes, each with 32 added, as
            SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113, 6.5.2).
        max_fields: Number of fields.
    """

    max_list_size: int
    max_fields: int


class Table(NamedTuple):
    """
    The content of a decoder's table between two blocks.

    Attributes:
        fields: The static table and, behind it, the dynamic table: an index of the wire
            format is an index of this tuple.
        size: Size of the dynamic table (RFC 7541, 4.1).
        max_size: Maximum size, as chosen by the encoder.
        limit: Upper limit of `max_size`: SETTINGS_HEADER_TABLE_SIZE, acknowledged.
        required: Size to which the next block has to reduce the table at its start, or
            `None`; see `lower_limit`.
    """

    fields: tuple[Field, ...] = STATIC_TABLE
    size: int = 0
    max_size: int = DEFAULT_TABLE_SIZE
    limit: int = DEFAULT_TABLE_SIZE
    required: int | None = None


class DecodedBlock(NamedTuple):
    """
    A decoded header block.

    Attributes:
        fields: The fields in order, or `None` if they exceed the limits.
        list_size: Their size, as `HeaderLimits.max_list_size` counts it.
        table: The table for the next block; the object that was passed if unchanged.
        sensitive: A field other than :path is a credential or was sent as never indexed.
        path_start: Where the representation of :path starts and
        path_end: ends, if it is an unindexed literal with its name by index, and the
            only one; else both are 0.
    """

    fields: list[Field] | None
    list_size: int
    table: Table
    sensitive: bool
    path_start: int
    path_end: int


def decode_integer(data: bytes, position: int, mask: int) -> tuple[int, int]:
    """
    Decode an integer (RFC 7541, 5.1).

    Args:
        data: A header block.
        position: Where the integer starts.
        mask: The bits of its first byte that belong to it.

    Returns:
        The integer, and where it ends.

    Raises:
        HpackError: It is incomplete or too large.
    """
    try:
        value = data[position] & mask
        position += 1
        if value != mask:
            return value, position
        shift = 0
        while True:
            byte = data[position]
            position += 1
            value += (byte & 0x7F) << shift
            if byte < 0x80:
                break
            shift += 7
            if shift > _MAX_SHIFT:
                raise HpackError("invalid integer: too long")
    except IndexError:
        raise HpackError("invalid integer: header block ends within it") from None
    if value > MAX_INTEGER:
        raise HpackError("invalid integer: expected less than 2**32")
    return value, position


def decode_string(data: bytes, position: int) -> tuple[bytes, int]:
    """
    Decode a string literal (RFC 7541, 5.2).

    Returns:
        The string, and where it ends.

    Raises:
        HpackError: It is incomplete, or not valid Huffman code.
    """
    length, start = decode_integer(data, position, 0x7F)
    end = start + length
    if end > len(data):
        raise HpackError("invalid string: header block ends within it")
    if data[position] < 0x80:
        return data[start:end], end
    return decode_huffman(data[start:end]), end


def lower_limit(table: Table, limit: int) -> Table:
    """
    Return the table after the peer has acknowledged SETTINGS_HEADER_TABLE_SIZE.

    The encoder has to follow a limit below its maximum size at the start of its next
    block, and if the limit changes more than once, the lowest (RFC 7541, 4.2). The
    dynamic table is evicted when it does.
    """
    required = table.required
    if limit < table.max_size and (required is None or limit < required):
        required = limit
    if limit == table.limit and required == table.required:
        return table
    return table._replace(limit=limit, required=required)


def field_size(field: Field) -> int:
    """Return the size of a field as RFC 7541, 4.1 counts it."""
    return len(field[0]) + len(field[1]) + ENTRY_OVERHEAD


class _Editor:
    """
    The table while a block is decoded.

    Attributes:
        fields: As in `Table`, mutable.
        changed: Whether anything differs from the original.
    """

    __slots__ = ("_max_size", "_required", "_size", "_table", "changed", "fields")

    def __init__(self, table: Table) -> None:
        self.fields: Sequence[Field] = table.fields
        self.changed = False
        self._table = table
        self._size = table.size
        self._max_size = table.max_size
        self._required = table.required

    def _edit(self) -> list[Field]:
        """Return the fields as a list, copied before the first change."""
        if isinstance(self.fields, list):
            return self.fields
        self.changed = True
        copy = list(self.fields)
        self.fields = copy
        return copy

    def resize(self, max_size: int) -> None:
        """Follow a dynamic table size update (RFC 7541, 6.3)."""
        if max_size > self._table.limit:
            raise HpackError(f"invalid table size {max_size}: expected at most the setting")
        if self._required is not None:
            if max_size > self._required:
                raise HpackError(f"invalid table size {max_size}: expected a reduction")
            self._required = None
            self.changed = True
        if max_size != self._max_size:
            self.changed = True
            self._max_size = max_size
            if self._size > max_size:
                self._evict(self._edit(), max_size)

    def check_required(self) -> None:
        """Check before the first field that a required size update was present."""
        if self._required is not None:
            raise HpackError("missing dynamic table size update")

    def insert(self, field: Field) -> None:
        """Insert an entry; an entry larger than the table empties it (RFC 7541, 4.4)."""
        fields = self._edit()
        size = field_size(field)
        if self._size + size > self._max_size:
            self._evict(fields, self._max_size - size)
            if size > self._max_size:
                return
        fields.insert(FIRST_DYNAMIC, field)
        self._size += size

    def _evict(self, fields: list[Field], size: int) -> None:
        """Remove the oldest entries until the table has at most `size` bytes."""
        while self._size > size and len(fields) > FIRST_DYNAMIC:
            self._size -= field_size(fields.pop())

    def finish(self) -> Table:
        """Return the table for the next block."""
        if not self.changed:
            return self._table
        return Table(
            tuple(self.fields), self._size, self._max_size, self._table.limit, self._required
        )


def _literal(
    block: bytes, position: int, mask: int, fields: Sequence[Field]
) -> tuple[Field, int, int]:
    """Decode a literal field; return it, where its value starts, and where it ends."""
    index, position = decode_integer(block, position, mask)
    if index == 0:
        name, position = decode_string(block, position)
    elif index < len(fields):
        name = fields[index][0]
    else:
        raise HpackError(f"invalid index {index}: expected at most {len(fields) - 1}")
    start = position
    value, position = decode_string(block, position)
    return (name, value), start, position


def decode_block(block: bytes, table: Table, limits: HeaderLimits) -> DecodedBlock:
    """
    Decode a complete header block.

    Raises:
        HpackError: The block is invalid.
    """
    editor = _Editor(table)
    known = editor.fields
    decoded: list[Field] = []
    list_size = path_start = path_end = paths = 0
    max_decoded = _MAX_EXCESS * limits.max_fields
    sensitive = False
    position = _size_updates(block, editor)
    if block:
        editor.check_required()
    known = editor.fields
    end = len(block)
    while position < end:
        byte = block[position]
        start = position
        if byte >= 0x80:
            index, position = decode_integer(block, position, 0x7F)
            if not 0 < index < len(known):
                raise HpackError(f"invalid index {index}: expected 1 to {len(known) - 1}")
            field = known[index]
        elif byte >= 0x40:
            field, _, position = _literal(block, position, 0x3F, known)
            editor.insert(field)
            known = editor.fields
        elif byte >= 0x20:
            # RFC 7541, 4.2: it "MUST occur at the beginning of the first header block".
            raise HpackError("dynamic table size update after a field")
        else:
            field, _, position = _literal(block, position, 0x0F, known)
            if byte & PATH_LITERAL_MASK == PATH_LITERAL:
                path_start, path_end = start, position
            elif byte & 0x10:
                sensitive = True
        name = field[0]
        if name in SENSITIVE_NAMES:
            sensitive = True
        elif name == b":path":
            paths += 1
        list_size += len(name) + len(field[1]) + ENTRY_OVERHEAD
        decoded.append(field)
        if len(decoded) > max_decoded:
            raise HeaderFlood("far more fields than accepted")
    if paths != 1 and path_end:
        # Malformed, so the path is not worth a look-up; it may be one never indexed.
        sensitive = True
        path_start = path_end = 0
    within_limits = list_size <= limits.max_list_size and len(decoded) <= limits.max_fields
    return DecodedBlock(
        decoded if within_limits else None,
        *(list_size, editor.finish(), sensitive, path_start, path_end),
    )


def _size_updates(block: bytes, editor: _Editor) -> int:
    """Follow the size updates at the start of a block; return where they end."""
    position = updates = 0
    while position < len(block) and 0x20 <= block[position] < 0x40:
        updates += 1
        if updates > _MAX_SIZE_UPDATES:
            raise HpackError("too many dynamic table size updates")
        max_size, position = decode_integer(block, position, 0x1F)
        editor.resize(max_size)
    return position
