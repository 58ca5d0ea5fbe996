"""
Output of an HTTP/2 connection: frames in batches, and content within the windows of the client.

The frames of one batch of events leave in one write. Content that does not fit into a window, or
that the transport does not accept, waits with its stream; streams that wait for the connection
take turns, one frame each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from balancebeam.protocols.http2.errors import FLOW_CONTROL_ERROR, Http2ConnectionError
from balancebeam.protocols.http2.flow_control import widen
from balancebeam.protocols.http2.frames import (
    DATA,
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_WINDOW_SIZE,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADERS,
    encode_data,
    encode_headers,
)
from balancebeam.protocols.http2.hpack_encoder import EMPTY_TABLE

# Bytes of frames that are collected before they are written without waiting for the end of the
# batch: as many as a transport buffers before it pauses its producer.
MAX_BATCH = 64 * 1024

# Bytes that wait with a stream: above the first number, reading from its server is paused, and
# below the second it continues.
MAX_QUEUED = 32 * 1024
RESUME_QUEUED = 16 * 1024

_pack = FRAME_HEADER.pack


class OutputStream(Protocol):
    """
    A stream, as far as its output is concerned.

    Attributes:
        stream_id: The identifier.
        send_window: Bytes of content that the client accepts on this stream.
        queue: Content that waits, first part first; `None` if nothing has waited yet.
        queued_bytes: The size of all parts together.
        end_queued: Whether the stream ends after the queued content.
        trailer_block: The header block that ends the stream; empty without trailers.
    """

    stream_id: int
    send_window: int
    queue: deque[bytes] | None
    queued_bytes: int
    end_queued: bool
    trailer_block: bytes

    def end_sent(self) -> None:
        """END_STREAM has been sent."""

    def queue_grown(self) -> None:
        """More than `MAX_QUEUED` bytes are waiting."""

    def queue_shrunk(self) -> None:
        """Content that has waited was sent."""


class FrameOutput:
    """
    Sends frames to one peer.

    Args:
        write: Writes bytes to the transport.
        schedule: Calls a function once the current batch of events is handled.

    Attributes:
        blocked: Whether the transport accepts no more; content waits.
        window: Bytes of content that the client accepts on all streams together.
        granted: Bytes by which the client has widened `window` so far.
        initial_window: The `send_window` of new streams.
        max_frame_size: The largest payload that the client accepts.
        control_bytes: Bytes of control frames and header blocks since `blocked` was set: what no
            window limits.
        data_frames: DATA frames that were sent, without the ones of responses in one piece.
    """

    __slots__ = (
        "_frames",
        "_ready",
        "_schedule",
        "_size",
        "_update_table",
        "_write",
        "blocked",
        "control_bytes",
        "data_frames",
        "granted",
        "initial_window",
        "max_frame_size",
        "window",
    )

    def __init__(
        self,
        write: Callable[[bytes], object],
        schedule: Callable[[Callable[[], object]], object],
    ) -> None:
        self._write = write
        self._schedule = schedule
        self._frames: list[bytes] = []
        self._size = 0
        # Streams with content that waits for the connection, in the order of their turns.
        self._ready: dict[OutputStream, None] | None = None
        # The next header block has to begin with a table size update, see `EMPTY_TABLE`.
        self._update_table = False
        self.blocked = False
        self.control_bytes = 0
        self.data_frames = 0
        self.window = DEFAULT_WINDOW_SIZE
        self.granted = 0
        self.initial_window = DEFAULT_WINDOW_SIZE
        self.max_frame_size = DEFAULT_MAX_FRAME_SIZE

    @property
    def bytes_sent(self) -> int:
        """Bytes of content that were sent so far."""
        return DEFAULT_WINDOW_SIZE + self.granted - self.window

    def reduce_table(self) -> None:
        """Begin the next header block with a reduction of the table, which is never used."""
        self._update_table = True

    def begin_block(self) -> bytes:
        """Return what the next header block has to begin with."""
        update, self._update_table = self._update_table, False
        return EMPTY_TABLE if update else b""

    # Frames

    def append(self, frame: bytes) -> None:
        """Send a control frame with the current batch."""
        frames = self._frames
        frames.append(frame)
        if self.blocked:
            self.control_bytes += len(frame)
        if len(frames) == 1:
            self._schedule(self.flush)

    def _append_content(self, frame: bytes) -> None:
        """Send a frame with content; write at once if the batch is large."""
        frames = self._frames
        frames.append(frame)
        self._size += len(frame)
        if self._size > MAX_BATCH:
            self.flush()
        elif len(frames) == 1:
            self._schedule(self.flush)

    def flush(self) -> None:
        """Write the frames of the batch."""
        frames = self._frames
        if frames:
            self._frames = []
            self._size = 0
            self._write(frames[0] if len(frames) == 1 else b"".join(frames))

    def send_headers(self, stream: OutputStream, block: bytes, end: bool = False) -> None:
        """
        Send a header block.

        Args:
            stream: The stream, on which no content waits.
            block: The encoded fields.
            end: Whether the stream ends with it; `end_sent` is not called.
        """
        if self._update_table:
            block = self.begin_block() + block
        frames = encode_headers(stream.stream_id, block, end, self.max_frame_size)
        if self.blocked:
            # Responses without content end their streams, so the client may request more.
            self.control_bytes += len(frames)
        self._append_content(frames)

    # Content

    def send_response(self, stream: OutputStream, block: bytes, body: bytes) -> bool:
        """
        Send a complete response.

        Returns:
            Whether all of it was sent. Otherwise the stream calls `end_sent` later.
        """
        size = len(body)
        if (
            self.blocked
            or size > self.window
            or size > stream.send_window
            or size + len(block) > DEFAULT_MAX_FRAME_SIZE
            or self._update_table
        ):
            self.send_headers(stream, block, not body)
            return not body or self.send_content(stream, body, True)
        stream_id = stream.stream_id
        if size:
            self.window -= size
            stream.send_window -= size
            frame = b"%b%b%b%b" % (
                _pack(len(block) << 8 | HEADERS, END_HEADERS, stream_id),
                block,
                _pack(size << 8 | DATA, END_STREAM, stream_id),
                body,
            )
        else:
            flags = END_HEADERS | END_STREAM
            frame = _pack(len(block) << 8 | HEADERS, flags, stream_id) + block
        self._append_content(frame)
        return True

    def send_content(self, stream: OutputStream, content: bytes, end: bool) -> bool:
        """
        Send content as far as the windows allow, and let the rest wait.

        Args:
            stream: The stream.
            content: The next part; empty only with `end`.
            end: Whether the stream ends with it.

        Returns:
            Whether END_STREAM was sent; `end_sent` is then not called.
        """
        size = len(content)
        if not stream.queued_bytes and (
            size == 0
            or (
                not self.blocked
                and size <= self.window
                and size <= stream.send_window
                and size <= self.max_frame_size
            )
        ):
            self.window -= size
            stream.send_window -= size
            self.data_frames += 1
            self._append_content(encode_data(stream.stream_id, content, end))
            return end
        self._enqueue(stream, content, end)
        return stream.end_queued and not stream.queued_bytes

    def send_trailers(self, stream: OutputStream, block: bytes) -> bool:
        """End a stream by trailers, after its content; returns as `send_content`."""
        if stream.queued_bytes:
            stream.trailer_block = block
            stream.end_queued = True
            return False
        self.send_headers(stream, block, True)
        return True

    def _enqueue(self, stream: OutputStream, content: bytes, end: bool) -> None:
        """Let content wait, and send what the windows allow."""
        queue = stream.queue
        if queue is None:
            queue = stream.queue = deque()
        if queue and len(queue[-1]) + len(content) <= DEFAULT_MAX_FRAME_SIZE:
            # Not a frame, and the memory of an object, for every small part.
            queue[-1] += content
        elif content:
            queue.append(content)
        stream.queued_bytes += len(content)
        stream.end_queued = end
        while stream.queued_bytes and self._can_send(stream) and not self._ready:
            self._send_frame(stream)
            stream.queue_shrunk()
        if stream.queued_bytes:
            if stream.send_window > 0:
                self._add_ready(stream)
            if stream.queued_bytes > MAX_QUEUED:
                stream.queue_grown()

    def _can_send(self, stream: OutputStream) -> bool:
        return not self.blocked and self.window > 0 and stream.send_window > 0

    def _add_ready(self, stream: OutputStream) -> None:
        if self._ready is None:
            self._ready = {}
        self._ready[stream] = None

    def _send_frame(self, stream: OutputStream) -> None:
        """Send one frame of the content that waits; the windows are open."""
        queue = stream.queue
        assert queue is not None
        content = queue[0]
        size = min(len(content), self.window, stream.send_window, self.max_frame_size)
        # Other streams take turns with frames of this size, whatever the client accepts.
        size = min(size, DEFAULT_MAX_FRAME_SIZE)
        if size < len(content):
            queue[0] = content[size:]
            content = content[:size]
        else:
            # Not the parts that a small window makes of it: a client would earn by opening it.
            self.data_frames += 1
            queue.popleft()
        self.window -= size
        stream.send_window -= size
        stream.queued_bytes -= size
        last = stream.end_queued and not stream.queued_bytes
        self._append_content(
            encode_data(stream.stream_id, content, last and not stream.trailer_block)
        )
        if last and stream.trailer_block:
            self.send_headers(stream, stream.trailer_block, True)

    def pump(self) -> None:
        """Send content that waits, one frame of each stream in turn."""
        ready = self._ready
        while ready and not self.blocked and self.window > 0:
            stream = next(iter(ready))
            del ready[stream]
            if not stream.queued_bytes or stream.send_window <= 0:
                continue
            self._send_frame(stream)
            if stream.queued_bytes:
                if stream.send_window > 0:
                    ready[stream] = None
            elif stream.end_queued:
                stream.end_sent()
                continue
            stream.queue_shrunk()

    def drop_queue(self, stream: OutputStream) -> None:
        """Drop the content that waits: the stream was reset."""
        stream.queue = None
        stream.queued_bytes = 0
        if self._ready is not None:
            self._ready.pop(stream, None)

    # Flow control and backpressure

    def widen_connection(self, increment: int) -> None:
        """
        Apply a WINDOW_UPDATE for the connection.

        Raises:
            Http2ConnectionError: The window exceeds 2^31-1.
        """
        window = widen(self.window, increment)
        if window is None:
            raise Http2ConnectionError(FLOW_CONTROL_ERROR, "connection window above 2^31-1")
        self.window = window
        self.granted += increment
        if self._ready:
            self.pump()

    def stream_widened(self, stream: OutputStream) -> None:
        """Send content that has waited for the window of its stream."""
        if stream.queued_bytes and stream.send_window > 0:
            self._add_ready(stream)
            self.pump()

    def block(self) -> None:
        """Stop sending content: the transport accepts no more."""
        self.blocked = True
        self.control_bytes = 0

    def unblock(self) -> None:
        """Send content again."""
        self.blocked = False
        if self._ready:
            self.pump()
