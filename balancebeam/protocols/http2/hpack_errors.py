"""Errors of header decompression."""

from __future__ import annotations

from balancebeam.core.errors import ProtocolError


class HpackError(ProtocolError):
    """
    A header block that cannot be decoded.

    The dynamic table is undefined afterwards, so RFC 9113, 4.3 makes it a connection
    error of type COMPRESSION_ERROR.
    """


class HeaderListTooLarge(ProtocolError):
    """
    A header block that was decoded, but whose fields exceed a limit.

    The dynamic table is valid: only the stream is rejected (RFC 9113, 10.5.1).
    """
