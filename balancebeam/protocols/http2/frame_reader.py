"""
Input of an HTTP/2 connection: splits it into frames, and processes the frames of the connection.

It serves either role. What frames of streams mean is up to the subclass for the role.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

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


class FrameConnection(Protocol):
    """The connection, as far as its input is concerned."""

    @property
    def output(self) -> FrameOutput:
        """Sends frames."""

    @property
    def closing(self) -> bool:
        """Whether input is ignored."""

    @property
    def streams(self) -> Mapping[int, OutputStream]:
        """The streams that are not closed, by identifier."""


ConnectionT = TypeVar("ConnectionT", bound=FrameConnection)


class FrameReader(ABC, Generic[ConnectionT]):
    """
    Reads the frames of one connection.

    The connection is an argument of the methods instead of an attribute, because two objects that
    refer to each other would leave each closed connection to the garbage collector.
    """

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_invalid",
        "_block_stream",
        "_buffer",
        "_continuations",
        "_special",
    )

    def __init__(self) -> None:
        self._buffer = b""
        # Whether only SETTINGS, or only CONTINUATION, may come next.
        self._special = True
        self._block: bytes | None = None
        self._block_flags = self._block_stream = self._continuations = 0
        # Whether the stream of the block depends on itself.
        self._block_invalid = False

    def read(self, connection: ConnectionT, data: bytes) -> None:
        """
        Process the frames in `data`, and keep an incomplete frame.

        Raises:
            Http2ConnectionError: The connection cannot continue.
        """
        rest = self._buffer
        if rest:
            data = rest + data
            self._buffer = b""
        offset, end = 0, len(data)
        if self._special:
            offset = self.read_preface(data)
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
                    self._read_special(connection, kind, flags, stream_id, payload)
                elif kind == HEADERS and flags & _HEADERS_FLAGS == END_HEADERS:
                    self.read_headers(connection, flags, stream_id, payload)
                elif kind == DATA:
                    self.read_data(connection, flags, stream_id, payload)
                else:
                    self._read_other(connection, kind, flags, stream_id, payload)
            except Http2StreamError as error:
                self.fail_stream(connection, error)
            if connection.closing:
                return
        self.finish_batch()
        if offset < end:
            self._buffer = data[offset:]
            if offset or not rest:
                self.frame_started()

    # Frames of streams, and of the role. All methods that process frames may raise both errors.

    @abstractmethod
    def read_headers(
        self, connection: ConnectionT, flags: int, stream_id: int, block: bytes
    ) -> None:
        """Process a complete header block."""

    @abstractmethod
    def read_data(
        self, connection: ConnectionT, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process a DATA frame, padding included."""

    @abstractmethod
    def read_reset(self, connection: ConnectionT, stream_id: int, code: int) -> None:
        """Process RST_STREAM."""

    @abstractmethod
    def read_goaway(self, connection: ConnectionT, last_stream_id: int, code: int) -> None:
        """Process GOAWAY."""

    @abstractmethod
    def settings_applied(
        self, connection: ConnectionT, settings: Sequence[tuple[int, int]]
    ) -> None:
        """Process valid SETTINGS, which are applied to the output already."""

    @abstractmethod
    def check_not_idle(self, connection: ConnectionT, stream_id: int) -> None:
        """Raise a connection error for a stream that was not opened."""

    @abstractmethod
    def fail_stream(self, connection: ConnectionT, error: Http2StreamError) -> None:
        """Reset a stream for an error of the peer."""

    @abstractmethod
    def spend_glitch(self, connection: ConnectionT) -> None:
        """Count a frame that carries nothing for a stream; see `AbuseBudget`."""

    def read_dependent_headers(
        self, connection: ConnectionT, flags: int, stream_id: int, block: bytes
    ) -> None:
        """Process a complete header block of a stream that depends on itself."""
        self.read_headers(connection, flags, stream_id, block)

    def read_priority(self, connection: ConnectionT, stream_id: int, payload: bytes) -> None:
        """Validate PRIORITY, which has no effect."""
        if not stream_id:
            raise Http2ConnectionError(PROTOCOL_ERROR, "PRIORITY on stream 0")
        if not is_priority_size(payload):
            raise Http2ConnectionError(FRAME_SIZE_ERROR, "PRIORITY without five bytes")

    # Progress of the input, for a role that limits its time. By default nothing is done.

    def read_preface(self, data: bytes) -> int:
        """Process the bytes before the first frame, if any; return where the frames begin."""
        return 0

    def finish_batch(self) -> None:
        """All complete frames of a batch of input are processed."""

    def frame_started(self) -> None:
        """The incomplete frame that is kept has begun in this batch."""

    def block_started(self) -> None:
        """A header block has begun that continues in CONTINUATION."""

    def block_finished(self) -> None:
        """The header block that has continued in CONTINUATION is complete."""

    def settings_acknowledged(self) -> None:
        """The peer has acknowledged SETTINGS."""

    # Control frames, and header blocks of several frames

    def _read_special(
        self, connection: ConnectionT, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process the first SETTINGS, or a frame within a header block."""
        if self._block is None:
            # RFC 9113, 3.4: SETTINGS "MUST be the first frame" of either preface.
            if kind != SETTINGS or flags & ACK:
                raise Http2ConnectionError(PROTOCOL_ERROR, "preface without SETTINGS")
            self._special = False
            self._read_settings(connection, flags, stream_id, payload)
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
            self.block_finished()
            self._finish_block(connection, self._block_flags, stream_id, block)

    def _read_other(
        self, connection: ConnectionT, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process a frame that is neither DATA nor a simple HEADERS."""
        if kind == HEADERS:
            self._read_headers(connection, flags, stream_id, payload)
        elif kind == RST_STREAM:
            self.check_not_idle(connection, stream_id)
            self.read_reset(connection, stream_id, parse_rst_stream(payload))
        elif kind == GOAWAY:
            _check_connection_frame(stream_id)
            last_stream_id, code, _ = parse_goaway(payload)
            self.read_goaway(connection, last_stream_id, code)
        else:
            self.spend_glitch(connection)
            if kind == WINDOW_UPDATE:
                self._read_window_update(connection, stream_id, payload)
            elif kind == SETTINGS:
                self._read_settings(connection, flags, stream_id, payload)
            elif kind == PING:
                _check_connection_frame(stream_id)
                data = parse_ping(payload)
                if not flags & ACK:
                    connection.output.append(encode_ping(data, ack=True))
            elif kind == PRIORITY:
                self.read_priority(connection, stream_id, payload)
            elif kind in (PUSH_PROMISE, CONTINUATION):
                # Neither role accepts pushed responses.
                raise Http2ConnectionError(PROTOCOL_ERROR, "unexpected frame")
        # RFC 9113, 4.1: frames of unknown types are ignored.

    def _read_headers(
        self, connection: ConnectionT, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process HEADERS with padding or priority, or the beginning of a longer header block."""
        fragment, dependency = split_headers(flags, payload)
        # RFC 7540, 5.3.1; RFC 9113, 5.3.2 deprecates priorities, and keeps the frames.
        self._block_invalid = bool(dependency) and dependency == stream_id
        if flags & END_HEADERS:
            self._finish_block(connection, flags, stream_id, fragment)
        else:
            self._block, self._block_flags, self._block_stream = fragment, flags, stream_id
            self._continuations = 0
            self._special = True
            self.block_started()

    def _finish_block(
        self, connection: ConnectionT, flags: int, stream_id: int, block: bytes
    ) -> None:
        """Process a complete header block."""
        if self._block_invalid:
            self.read_dependent_headers(connection, flags, stream_id, block)
        else:
            self.read_headers(connection, flags, stream_id, block)

    def _read_window_update(self, connection: ConnectionT, stream_id: int, payload: bytes) -> None:
        increment = parse_window_update(payload)
        if not stream_id:
            if not increment:
                raise Http2ConnectionError(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            connection.output.widen_connection(increment)
            return
        self.check_not_idle(connection, stream_id)
        stream = connection.streams.get(stream_id)
        if stream is None:
            # RFC 9113, 5.1: it may arrive for a short time after END_STREAM or RST_STREAM.
            return
        if not increment:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        window = widen(stream.send_window, increment)
        if window is None:
            raise Http2StreamError(stream_id, FLOW_CONTROL_ERROR, "stream window above 2^31-1")
        stream.send_window = window
        connection.output.stream_widened(stream)

    def _read_settings(
        self, connection: ConnectionT, flags: int, stream_id: int, payload: bytes
    ) -> None:
        _check_connection_frame(stream_id)
        settings = parse_settings(flags, payload)
        if flags & ACK:
            self.settings_acknowledged()
            return
        output = connection.output
        initial_window = output.initial_window
        for identifier, value in settings:
            if identifier == INITIAL_WINDOW_SIZE:
                initial_window = value
            elif identifier == MAX_FRAME_SIZE:
                output.max_frame_size = value
            elif identifier == HEADER_TABLE_SIZE and value < DEFAULT_HEADER_TABLE_SIZE:
                output.reduce_table()
        if initial_window != output.initial_window:
            # Once per frame: each change costs time for each stream.
            _change_window(connection, initial_window)
        # Before content for windows that have become larger: the peer counts with the new values
        # from the acknowledgement on.
        output.append(SETTINGS_ACK)
        for stream in list(connection.streams.values()):
            output.stream_widened(stream)
        self.settings_applied(connection, settings)


def _change_window(connection: FrameConnection, size: int) -> None:
    """Apply SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC 9113, 6.9.2)."""
    output = connection.output
    change = size - output.initial_window
    output.initial_window = size
    for stream in connection.streams.values():
        window = widen(stream.send_window, change)
        if window is None:
            raise Http2ConnectionError(FLOW_CONTROL_ERROR, "stream window above 2^31-1")
        stream.send_window = window


def _check_connection_frame(stream_id: int) -> None:
    """Raise an error for a frame on a stream that concerns the connection."""
    if stream_id:
        raise Http2ConnectionError(PROTOCOL_ERROR, "connection frame on a stream")
