"""Header decoders of connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Generic, TypeVar

from balancebeam.protocols.http2.hpack import (
    Field,
    HeaderLimits,
    Table,
    decode_block,
    lower_limit,
)
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge

T = TypeVar("T")


class SharedTables(Generic[T]):
    """
    What the decoders of all connections of a frontend share.

    Attributes:
        interpret: Turns the fields of a block into a result. The result is shared by
            connections, so it must be immutable.
        with_path: Returns the result for the same fields with another :path, or `None`
            if the fields are to be interpreted. It must not raise.
    """

    def __init__(
        self,
        interpret: Callable[[Sequence[Field]], T],
        with_path: Callable[[T, bytes], T | None] | None = None,
    ) -> None:
        self.interpret = interpret
        self.with_path = with_path


class HeaderDecoder(Generic[T]):
    """Decodes the header blocks of one direction of a connection."""

    def __init__(self, shared: SharedTables[T], limits: HeaderLimits) -> None:
        self._shared = shared
        self._limits = limits
        self._table = Table()

    def set_max_table_size(self, size: int) -> None:
        """
        Set the limit of the dynamic table, once the peer has acknowledged it.

        Args:
            size: SETTINGS_HEADER_TABLE_SIZE, in bytes.
        """
        self._table = lower_limit(self._table, size)

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
        decoded = decode_block(block, self._table, self._limits)
        self._table = decoded.table
        if decoded.fields is None:
            raise HeaderListTooLarge("header list exceeds the limit")
        return self._shared.interpret(decoded.fields)
