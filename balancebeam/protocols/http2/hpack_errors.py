"""Errors of header decompression."""

from __future__ import annotations

from balancebeam.core.errors import ProtocolError
from balancebeam.protocols.http2.errors import COMPRESSION_ERROR, ENHANCE_YOUR_CALM


class HpackError(ProtocolError):
    """
    A header block that cannot be decoded.

    The dynamic table is undefined afterwards, so RFC 9113, 4.3 makes it a connection
    error of type COMPRESSION_ERROR.

    Attributes:
        code: The error code for GOAWAY.
    """

    code = COMPRESSION_ERROR


class HeaderFlood(HpackError):
    """A header block whose fields exceed a limit so far that decoding it was stopped."""

    code = ENHANCE_YOUR_CALM


class HeaderListTooLarge(ProtocolError):
    """
    A header block that was decoded, but whose fields exceed a limit.

    The dynamic table is valid: only the stream is rejected (RFC 9113, 10.5.1).
    """
