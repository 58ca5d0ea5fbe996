"""
Input of an HTTP/2 connection: splits it into frames, and processes the frames of the connection.

It serves either role. What frames of streams mean is up to the `FrameHandler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from balancebeam.protocols.http2.abuse import MAX_CONTINUATIONS
from balancebeam.protocols.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    Http2ConnectionError,
    Http2StreamError,
)
from balancebeam.protocols.http2.flow_control import widen
from balancebeam.protocols.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    DEFAULT_MAX_FRAME_SIZE,
    END_HEADERS,
    FRAME_HEADER,
    FRAME_HEADER_SIZE,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MASK,
    WINDOW_UPDATE,
    encode_ping,
    is_priority_size,
    parse_goaway,
    parse_ping,
    parse_rst_stream,
    parse_window_update,
    split_headers,
)
from balancebeam.protocols.http2.output import FrameOutput, OutputStream
from balancebeam.protocols.http2.settings import (
    DEFAULT_HEADER_TABLE_SIZE,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    SETTINGS_ACK,
    parse_settings,
)

# Bytes of a header block in all its frames: no more than the fields that it is decoded to may
# have, as the encodings of this proxy's peers do not lengthen them.
MAX_BLOCK = 64 * 1024

# The flags of HEADERS that the fast path does not handle, and END_HEADERS.
_HEADERS_FLAGS = END_HEADERS | PADDED | PRIORITY_FLAG

_unpack = FRAME_HEADER.unpack_from


class FrameHandler(Protocol):
    """The connection, as far as its input is concerned. All methods may raise both errors."""

    @property
    def output(self) -> FrameOutput:
        """Sends frames."""

    @property
    def closing(self) -> bool:
        """Whether input is ignored."""

    @property
    def streams(self) -> Mapping[int, OutputStream]:
        """The streams that are not closed, by identifier."""

    def read_headers(self, flags: int, stream_id: int, block: bytes) -> None:
        """Process a complete header block."""

    def read_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Process a DATA frame, padding included."""

    def read_reset(self, stream_id: int, code: int) -> None:
        """Process RST_STREAM."""

    def read_goaway(self, last_stream_id: int, code: int, text: bytes) -> None:
        """Process GOAWAY."""

    def read_settings(self, settings: list[tuple[int, int]]) -> None:
        """Process valid SETTINGS, which are applied to the output already."""

    def check_not_idle(self, stream_id: int) -> None:
        """Raise a connection error for a stream that was not opened."""

    def fail_stream(self, error: Http2StreamError) -> None:
        """Reset a stream for an error of the peer."""

    def spend_glitch(self) -> None:
        """Count a frame that carries nothing for a stream; see `AbuseBudget`."""


class FrameReader:
    """
    Reads the frames of one connection.

    Args:
        handler: Processes the frames of streams.
    """

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_stream",
        "_buffer",
        "_continuations",
        "_handler",
        "_special",
    )

    def __init__(self, handler: FrameHandler) -> None:
        self._handler = handler
        self._buffer = b""
        # Whether only SETTINGS, or only CONTINUATION, may come next.
        self._special = True
        self._block: bytes | None = None
        self._block_flags = self._block_stream = self._continuations = 0

    def read(self, data: bytes) -> None:
        """
        Process the frames in `data`, and keep an incomplete frame.

        Raises:
            Http2ConnectionError: The connection cannot continue.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        handler = self._handler
        offset, end = 0, len(data)
        while end - offset >= FRAME_HEADER_SIZE:
            word, flags, stream_id = _unpack(data, offset)
            size = word >> 8
            if size > DEFAULT_MAX_FRAME_SIZE:
                # What a server without HTTP/2 responds to the preface is the usual cause.
                if data.startswith(b"HTTP/1.", offset):
                    raise Http2ConnectionError(PROTOCOL_ERROR, "HTTP/1 response to the preface")
                raise Http2ConnectionError(FRAME_SIZE_ERROR, "frame larger than 2^14 bytes")
            start = offset + FRAME_HEADER_SIZE
            if start + size > end:
                break
            offset = start + size
            payload = data[start:offset]
            stream_id &= STREAM_ID_MASK
            kind = word & 0xFF
            try:
                if self._special:
                    self._read_special(kind, flags, stream_id, payload)
                elif kind == HEADERS and flags & _HEADERS_FLAGS == END_HEADERS:
                    handler.read_headers(flags, stream_id, payload)
                elif kind == DATA:
                    handler.read_data(flags, stream_id, payload)
                else:
                    self._read_other(kind, flags, stream_id, payload)
            except Http2StreamError as error:
                handler.fail_stream(error)
            if handler.closing:
                return
        if offset < end:
            self._buffer = data[offset:]

    def _read_special(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Process the first SETTINGS, or a frame within a header block."""
        if self._block is None:
            # RFC 9113, 3.4: SETTINGS "MUST be the first frame" of either preface.
            if kind != SETTINGS or flags & ACK:
                raise Http2ConnectionError(PROTOCOL_ERROR, "preface without SETTINGS")
            self._special = False
            self._read_settings(flags, stream_id, payload)
            return
        # RFC 9113, 6.10: any other frame "MUST be treated as a connection error".
        if kind != CONTINUATION or stream_id != self._block_stream:
            raise Http2ConnectionError(PROTOCOL_ERROR, "header block without CONTINUATION")
        self._continuations += 1
        self._block += payload
        if self._continuations > MAX_CONTINUATIONS or len(self._block) > MAX_BLOCK:
            raise Http2ConnectionError(ENHANCE_YOUR_CALM, "header block too large")
        if flags & END_HEADERS:
            block, self._block = self._block, None
            self._special = False
            self._handler.read_headers(self._block_flags, stream_id, block)

    def _read_other(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        """Process a frame that is neither DATA nor a simple HEADERS."""
        handler = self._handler
        if kind == HEADERS:
            self._read_headers(flags, stream_id, payload)
        elif kind == RST_STREAM:
            handler.check_not_idle(stream_id)
            handler.read_reset(stream_id, parse_rst_stream(payload))
        elif kind == GOAWAY:
            _check_connection_frame(stream_id)
            handler.read_goaway(*parse_goaway(payload))
        else:
            handler.spend_glitch()
            if kind == WINDOW_UPDATE:
                self._read_window_update(stream_id, payload)
            elif kind == SETTINGS:
                self._read_settings(flags, stream_id, payload)
            elif kind == PING:
                _check_connection_frame(stream_id)
                data = parse_ping(payload)
                if not flags & ACK:
                    handler.output.append(encode_ping(data, ack=True))
            elif kind == PRIORITY:
                if not stream_id:
                    raise Http2ConnectionError(PROTOCOL_ERROR, "PRIORITY on stream 0")
                if not is_priority_size(payload):
                    raise Http2ConnectionError(FRAME_SIZE_ERROR, "PRIORITY without five bytes")
            elif kind in (PUSH_PROMISE, CONTINUATION):
                # Neither role accepts pushed responses.
                raise Http2ConnectionError(PROTOCOL_ERROR, "unexpected frame")
        # RFC 9113, 4.1: frames of unknown types are ignored.

    def _read_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        """Process HEADERS with padding or priority, or the beginning of a longer header block."""
        fragment, _ = split_headers(flags, payload)
        if flags & END_HEADERS:
            self._handler.read_headers(flags, stream_id, fragment)
        else:
            self._block, self._block_flags, self._block_stream = fragment, flags, stream_id
            self._continuations = 0
            self._special = True

    def _read_window_update(self, stream_id: int, payload: bytes) -> None:
        handler = self._handler
        increment = parse_window_update(payload)
        if not stream_id:
            if not increment:
                raise Http2ConnectionError(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            handler.output.widen_connection(increment)
            return
        handler.check_not_idle(stream_id)
        stream = handler.streams.get(stream_id)
        if stream is None:
            # RFC 9113, 5.1: it may arrive for a short time after END_STREAM or RST_STREAM.
            return
        if not increment:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        window = widen(stream.send_window, increment)
        if window is None:
            raise Http2StreamError(stream_id, FLOW_CONTROL_ERROR, "stream window above 2^31-1")
        stream.send_window = window
        handler.output.stream_widened(stream)

    def _read_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        _check_connection_frame(stream_id)
        settings = parse_settings(flags, payload)
        if flags & ACK:
            return
        output = self._handler.output
        for identifier, value in settings:
            if identifier == INITIAL_WINDOW_SIZE:
                self._change_window(value)
            elif identifier == MAX_FRAME_SIZE:
                output.max_frame_size = value
            elif identifier == HEADER_TABLE_SIZE and value < DEFAULT_HEADER_TABLE_SIZE:
                output.reduce_table()
        output.append(SETTINGS_ACK)
        self._handler.read_settings(settings)

    def _change_window(self, size: int) -> None:
        """Apply SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC 9113, 6.9.2)."""
        output = self._handler.output
        change = size - output.initial_window
        output.initial_window = size
        for stream in list(self._handler.streams.values()):
            window = widen(stream.send_window, change)
            if window is None:
                raise Http2ConnectionError(FLOW_CONTROL_ERROR, "stream window above 2^31-1")
            stream.send_window = window
            if change > 0:
                output.stream_widened(stream)


def _check_connection_frame(stream_id: int) -> None:
    """Raise an error for a frame on a stream that concerns the connection."""
    if stream_id:
        raise Http2ConnectionError(PROTOCOL_ERROR, "connection frame on a stream")
