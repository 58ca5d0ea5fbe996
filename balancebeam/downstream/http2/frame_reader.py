"""Splits the input of an HTTP/2 connection into frames, and processes the control frames."""

from __future__ import annotations

import typing

from balancebeam.downstream.http2.context import Http2Context
from balancebeam.downstream.http2.interfaces import RequestChannel
from balancebeam.downstream.http2.request_reader import RequestReader
from balancebeam.protocols.http2.abuse import MAX_CONTINUATIONS, AbuseBudget
from balancebeam.protocols.http2.errors import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    SETTINGS_TIMEOUT,
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
    PREFACE,
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
    priority_dependency,
    split_headers,
)
from balancebeam.protocols.http2.settings import (
    DEFAULT_HEADER_TABLE_SIZE,
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    MAX_FRAME_SIZE,
    SETTINGS_ACK,
    parse_settings,
)
from balancebeam.proxy.forwarding import Forwarder

# Bytes of a header block in all its frames: no more than the fields that it is decoded to may
# have, as the encodings of this proxy's peers do not lengthen them.
MAX_BLOCK = 64 * 1024

# The flags of HEADERS that the fast path does not handle, and END_HEADERS.
_HEADERS_FLAGS = END_HEADERS | PADDED | PRIORITY_FLAG

_unpack = FRAME_HEADER.unpack_from


class FrameChannel(RequestChannel, typing.Protocol):
    """
    The interface of the connection that a `FrameReader` reads from.

    Attributes:
        closing: Whether input is ignored.
    """

    closing: bool


class FrameReader:
    """
    Reads the frames of one connection.

    Args:
        context: The shared state of the frontend.
        forwarder: Builds the forwarding headers for this client.
        secure: The connection uses TLS.

    Attributes:
        requests: Reads the frames of requests.
        incomplete_since: When the connection began, until the preface and SETTINGS are received,
            or when the current header block began; on the ticker. `None` between.
    """

    __slots__ = (
        "_block",
        "_block_flags",
        "_block_invalid",
        "_block_stream",
        "_buffer",
        "_context",
        "_continuations",
        "_frame_since",
        "_preface_length",
        "_settings_acked",
        "_special",
        "_started_at",
        "incomplete_since",
        "requests",
    )

    def __init__(self, context: Http2Context, forwarder: Forwarder, secure: bool) -> None:
        now = context.ticker.now
        self._context = context
        self.requests = RequestReader(context, forwarder, AbuseBudget(now), secure)
        self.incomplete_since: float | None = now
        self._buffer = b""
        # Bytes of the preface that were received.
        self._preface_length = 0
        # Whether only SETTINGS, or only CONTINUATION, may come next.
        self._special = True
        self._block: bytes | None = None
        self._block_flags = self._block_stream = self._continuations = 0
        self._block_invalid = False
        self._started_at = now
        self._settings_acked = False
        # When the incomplete frame in the buffer began, unless it is DATA.
        self._frame_since: float | None = None

    def read(self, channel: FrameChannel, data: bytes) -> None:
        """
        Process the frames in `data`, and keep an incomplete frame.

        Raises:
            Http2ConnectionError: The connection cannot continue.
        """
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        offset, end = 0, len(data)
        if self._preface_length < len(PREFACE):
            offset = self._read_preface(data)
        requests = self.requests
        while end - offset >= FRAME_HEADER_SIZE:
            word, flags, stream_id = _unpack(data, offset)
            size = word >> 8
            if size > DEFAULT_MAX_FRAME_SIZE:
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
                    self._read_special(channel, kind, flags, stream_id, payload)
                elif kind == HEADERS and flags & _HEADERS_FLAGS == END_HEADERS:
                    requests.read_headers(channel, flags, stream_id, payload)
                elif kind == DATA:
                    requests.read_data(channel, flags, stream_id, payload)
                else:
                    self._read_other(channel, kind, flags, stream_id, payload)
            except Http2StreamError as error:
                requests.fail_stream(channel, error)
            if channel.closing:
                return
        requests.dispatch_deferred()
        if offset < end:
            self._buffer = data[offset:]
            if offset or self._frame_since is None:
                self._frame_since = self._context.ticker.now
        else:
            self._frame_since = None

    def check_timeouts(self, now: float, header: float) -> bool:
        """
        Whether a frame, or a header block, has been incomplete for the header timeout.

        Raises:
            Http2ConnectionError: SETTINGS was not acknowledged for as long.
        """
        since = self.incomplete_since
        if since is None and self._frame_since is not None and self._buffer[3:4] != b"\0":
            # An incomplete DATA frame is progress of a body, which has another timeout.
            since = self._frame_since
        if since is not None and now - since >= header:
            return True
        if not self._settings_acked and now - self._started_at >= header:
            raise Http2ConnectionError(SETTINGS_TIMEOUT, "SETTINGS not acknowledged")
        return False

    def _read_preface(self, data: bytes) -> int:
        """Check the preface; return where the frames begin."""
        start = self._preface_length
        part = data[: len(PREFACE) - start]
        if part != PREFACE[start : start + len(part)]:
            raise Http2ConnectionError(PROTOCOL_ERROR, "no connection preface")
        self._preface_length += len(part)
        return len(part)

    def _read_special(
        self, channel: FrameChannel, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process the first SETTINGS, or a frame within a header block."""
        if self._block is None:
            # RFC 9113, 3.4: the preface "MUST be followed by a SETTINGS frame".
            if kind != SETTINGS or flags & ACK:
                raise Http2ConnectionError(PROTOCOL_ERROR, "preface without SETTINGS")
            self._special = False
            self.incomplete_since = None
            self._read_settings(channel, flags, stream_id, payload)
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
            self.incomplete_since = None
            self._finish_block(channel, self._block_flags, stream_id, block)

    def _read_other(
        self, channel: FrameChannel, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process a frame that is neither DATA nor a simple HEADERS."""
        if kind == HEADERS:
            self._read_headers(channel, flags, stream_id, payload)
            return
        if kind == RST_STREAM:
            self.requests.check_not_idle(stream_id)
            parse_rst_stream(payload)
            self.requests.client_reset(channel, stream_id)
        # RST_STREAM too: of a stream that is closed, it is counted here only.
        self.requests.spend_glitch(channel)
        if kind == WINDOW_UPDATE:
            self._read_window_update(channel, stream_id, payload)
        elif kind == SETTINGS:
            self._read_settings(channel, flags, stream_id, payload)
        elif kind == PING:
            _check_connection_frame(stream_id)
            if not flags & ACK:
                channel.output.append(encode_ping(parse_ping(payload), ack=True))
            else:
                parse_ping(payload)
        elif kind == PRIORITY:
            self._read_priority(channel, stream_id, payload)
        elif kind == GOAWAY:
            # The client opens no stream any more; its streams continue.
            _check_connection_frame(stream_id)
            parse_goaway(payload)
        elif kind in (PUSH_PROMISE, CONTINUATION):
            raise Http2ConnectionError(PROTOCOL_ERROR, "frame that a client must not send")
        # RFC 9113, 4.1: frames of unknown types are ignored.

    def _read_headers(
        self, channel: FrameChannel, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """Process HEADERS with padding or priority, or the beginning of a longer header block."""
        fragment, dependency = split_headers(flags, payload)
        # RFC 7540, 5.3.1; RFC 9113, 5.3.2 deprecates priorities, and keeps the frames.
        self._block_invalid = bool(dependency) and dependency == stream_id
        if flags & END_HEADERS:
            self._finish_block(channel, flags, stream_id, fragment)
        else:
            self._block, self._block_flags, self._block_stream = fragment, flags, stream_id
            self._continuations = 0
            self._special = True
            self.incomplete_since = self._context.ticker.now

    def _finish_block(
        self, channel: FrameChannel, flags: int, stream_id: int, block: bytes
    ) -> None:
        """Process a complete header block."""
        if self._block_invalid:
            self.requests.discard_headers(channel, stream_id, block)
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "stream that depends on itself")
        self.requests.read_headers(channel, flags, stream_id, block)

    def _read_window_update(self, channel: FrameChannel, stream_id: int, payload: bytes) -> None:
        increment = parse_window_update(payload)
        if not stream_id:
            if not increment:
                raise Http2ConnectionError(PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            channel.output.widen_connection(increment)
            return
        self.requests.check_not_idle(stream_id)
        exchange = channel.streams.get(stream_id)
        if exchange is None:
            # RFC 9113, 5.1: it may arrive for a short time after END_STREAM or RST_STREAM.
            return
        if not increment:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        window = widen(exchange.send_window, increment)
        if window is None:
            raise Http2StreamError(stream_id, FLOW_CONTROL_ERROR, "stream window above 2^31-1")
        exchange.send_window = window
        channel.output.stream_widened(exchange)

    def _read_settings(
        self, channel: FrameChannel, flags: int, stream_id: int, payload: bytes
    ) -> None:
        _check_connection_frame(stream_id)
        settings = parse_settings(flags, payload)
        if flags & ACK:
            self._settings_acked = True
            return
        output = channel.output
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
            self._change_window(channel, initial_window)
        # Before content for windows that have become larger: the client counts with the new
        # values from the acknowledgement on.
        output.append(SETTINGS_ACK)
        for exchange in list(channel.streams.values()):
            output.stream_widened(exchange)

    def _change_window(self, channel: FrameChannel, size: int) -> None:
        """Apply SETTINGS_INITIAL_WINDOW_SIZE to all streams (RFC 9113, 6.9.2)."""
        output = channel.output
        change = size - output.initial_window
        output.initial_window = size
        for exchange in channel.streams.values():
            window = widen(exchange.send_window, change)
            if window is None:
                raise Http2ConnectionError(FLOW_CONTROL_ERROR, "stream window above 2^31-1")
            exchange.send_window = window

    def _read_priority(self, channel: FrameChannel, stream_id: int, payload: bytes) -> None:
        """Validate PRIORITY, which has no effect."""
        code, reason = 0, ""
        if not stream_id:
            raise Http2ConnectionError(PROTOCOL_ERROR, "PRIORITY on stream 0")
        if not is_priority_size(payload):
            code, reason = FRAME_SIZE_ERROR, "PRIORITY without five bytes"
        elif priority_dependency(payload) == stream_id:
            code, reason = PROTOCOL_ERROR, "stream that depends on itself"
        if code:
            if stream_id not in channel.streams:
                # RST_STREAM must not be sent for an idle stream.
                raise Http2ConnectionError(code, reason)
            raise Http2StreamError(stream_id, code, reason)


def _check_connection_frame(stream_id: int) -> None:
    """Raise an error for a frame on a stream that concerns the connection."""
    if stream_id:
        raise Http2ConnectionError(PROTOCOL_ERROR, "connection frame on a stream")
