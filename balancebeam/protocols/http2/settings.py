"""SETTINGS (RFC 9113, 6.5): encoding, parsing and validation."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct

from attrs import define

from balancebeam.protocols.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    Http2ConnectionError,
)
from balancebeam.protocols.http2.frames import (
    ACK,
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_WINDOW_SIZE,
    MAX_WINDOW_SIZE,
    SETTINGS,
    encode_frame,
)

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6
# RFC 8441, 3.
ENABLE_CONNECT_PROTOCOL = 0x8

# RFC 9113, 6.5.2: the dynamic table of HPACK before any SETTINGS.
DEFAULT_HEADER_TABLE_SIZE = 4096

# RFC 9113, 6.5.2: the largest value of SETTINGS_MAX_FRAME_SIZE.
_LARGEST_MAX_FRAME_SIZE = 2**24 - 1

_SETTING = Struct(">HL")

# Settings in one frame: eight are defined, and clients add a few unknown ones. nghttp2 has the
# same limit.
MAX_SETTINGS = 32

SETTINGS_ACK = encode_frame(SETTINGS, ACK, 0, b"")


@define
class PeerSettings:
    """
    The settings of the peer, which limit what may be sent to it.

    Attributes:
        header_table_size: The largest dynamic table for the blocks that the peer decodes, in
            bytes.
        enable_push: Whether the peer accepts PUSH_PROMISE.
        max_concurrent_streams: How many streams may be open at once; `None` for no limit.
        initial_window_size: The window of a new stream in bytes.
        max_frame_size: The largest payload of a frame in bytes.
        max_header_list_size: The largest list of fields in bytes; `None` for no limit.
        enable_connect_protocol: Whether the peer accepts extended CONNECT (RFC 8441).
    """

    header_table_size: int = DEFAULT_HEADER_TABLE_SIZE
    enable_push: bool = True
    max_concurrent_streams: int | None = None
    initial_window_size: int = DEFAULT_WINDOW_SIZE
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE
    max_header_list_size: int | None = None
    enable_connect_protocol: bool = False

    def apply(self, settings: Iterable[tuple[int, int]]) -> None:
        """Apply valid settings, in order; unknown ones are ignored."""
        for identifier, value in settings:
            if identifier == INITIAL_WINDOW_SIZE:
                self.initial_window_size = value
            elif identifier == MAX_FRAME_SIZE:
                self.max_frame_size = value
            elif identifier == MAX_CONCURRENT_STREAMS:
                self.max_concurrent_streams = value
            elif identifier == HEADER_TABLE_SIZE:
                self.header_table_size = value
            elif identifier == MAX_HEADER_LIST_SIZE:
                self.max_header_list_size = value
            elif identifier == ENABLE_PUSH:
                self.enable_push = bool(value)
            elif identifier == ENABLE_CONNECT_PROTOCOL:
                self.enable_connect_protocol = bool(value)


def encode_settings(settings: Iterable[tuple[int, int]]) -> bytes:
    """Encode a SETTINGS frame with identifiers and values."""
    return encode_frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings))


def parse_settings(flags: int, payload: bytes) -> list[tuple[int, int]]:
    """
    Parse and validate a SETTINGS frame.

    Args:
        flags: The flags of the frame.
        payload: Its payload.

    Returns:
        The identifiers and values in order; none for an acknowledgement.

    Raises:
        Http2ConnectionError: The size or a value is invalid.
    """
    if flags & ACK:
        if payload:
            raise Http2ConnectionError(FRAME_SIZE_ERROR, "SETTINGS acknowledgement with a payload")
        return []
    if len(payload) % _SETTING.size:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "SETTINGS not a multiple of six bytes")
    settings = list(_SETTING.iter_unpack(payload))
    if len(settings) > MAX_SETTINGS:
        raise Http2ConnectionError(ENHANCE_YOUR_CALM, "too many settings in one frame")
    for identifier, value in settings:
        _validate(identifier, value)
    return settings


def _validate(identifier: int, value: int) -> None:
    """Raise an error for a value that RFC 9113, 6.5.2 or RFC 8441, 3 does not allow."""
    if identifier == INITIAL_WINDOW_SIZE:
        if value > MAX_WINDOW_SIZE:
            raise Http2ConnectionError(
                FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE {value} above 2^31-1"
            )
    elif identifier == MAX_FRAME_SIZE:
        if not DEFAULT_MAX_FRAME_SIZE <= value <= _LARGEST_MAX_FRAME_SIZE:
            raise Http2ConnectionError(
                PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE {value} not from 2^14 to 2^24-1"
            )
    elif identifier in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
        name = "ENABLE_PUSH" if identifier == ENABLE_PUSH else "ENABLE_CONNECT_PROTOCOL"
        raise Http2ConnectionError(PROTOCOL_ERROR, f"SETTINGS_{name} {value}, not 0 or 1")
