"""One HTTP/2 stream to a server: a request that is sent, and its response."""

from __future__ import annotations

import typing
from collections import deque

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.response_head import (
    MAX_INFORMATIONAL_RESPONSES,
    ResponseHead,
    has_body,
)
from balancebeam.protocols.http2.errors import (
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    Http2StreamError,
)
from balancebeam.protocols.http2.flow_control import UPDATE_THRESHOLD
from balancebeam.protocols.http2.frames import DEFAULT_WINDOW_SIZE, encode_window_update
from balancebeam.protocols.http2.output import RESUME_QUEUED, FrameOutput
from balancebeam.protocols.http2.response_block import encode_trailers
from balancebeam.upstream.http2_tunnel import switching_protocols
from balancebeam.upstream.interfaces import UpstreamRequest


class StreamOwner(typing.Protocol):
    """
    The connection of a stream.

    Attributes:
        output: Sends frames.
        now: The time on the ticker.
    """

    output: FrameOutput

    @property
    def now(self) -> float: ...

    def stream_ended(self, stream: Http2Stream) -> None:
        """The response is complete: forget the stream, or reset it if its request continues."""

    def cancel_stream(self, stream: Http2Stream) -> None:
        """Send RST_STREAM(CANCEL), and forget the stream."""

    def delay_response(self, stream: Http2Stream) -> None:
        """Call `deliver` at the end of the batch: more of the response may be in it."""


class Http2Stream:
    """
    One stream. It implements `RequestSender` for its exchange, and `OutputStream`.

    Attributes:
        exchange: The request; `None` once the stream has ended.
        stream_id: The identifier.
        send_window: See `OutputStream`, as `queue`, `queued_bytes`, `end_queued` and
            `trailer_block`.
        local_closed: END_STREAM was sent.
        paused: The client does not read: the window of the stream is not opened again.
        begun: Anything of a response was received.
        started: The exchange has got the beginning of the response.
        tunnel: The request was an extended CONNECT (RFC 8441).
        last_activity: When the stream last made progress in either direction, on the ticker.
        batch: The number of batches that the connection had received when the stream was opened.
    """

    __slots__ = (
        "_connection",
        "_content",
        "_head",
        "_informational_count",
        "_length",
        "_receive_window",
        "_remaining",
        "_remote_closed",
        "_tunnel_key",
        "_unacked",
        "batch",
        "begun",
        "end_queued",
        "exchange",
        "last_activity",
        "local_closed",
        "paused",
        "queue",
        "queued_bytes",
        "send_window",
        "started",
        "stream_id",
        "trailer_block",
        "tunnel",
    )

    def __init__(
        self, connection: StreamOwner, exchange: UpstreamRequest, stream_id: int, batch: int
    ) -> None:
        self._connection = connection
        self.exchange: UpstreamRequest | None = exchange
        self.stream_id = stream_id
        self.batch = batch
        self.send_window = connection.output.initial_window
        self.queue: deque[bytes] | None = None
        self.queued_bytes = 0
        self.end_queued = False
        self.trailer_block = b""
        self.local_closed = False
        self.paused = self.begun = self.started = self.tunnel = False
        self.last_activity = connection.now
        self._tunnel_key = b""
        # The head of the response, and the content that came in the same batch.
        self._head: ResponseHead | None = None
        self._content: list[bytes] = []
        self._informational_count = 0
        self._receive_window = DEFAULT_WINDOW_SIZE
        # Bytes of content that were received, and for which the window was not opened again.
        self._unacked = 0
        # Bytes of the response's content, and how many of them are to come; `CHUNKED` if unknown.
        self._length = self._remaining = CHUNKED
        # The server has sent END_STREAM through the tunnel.
        self._remote_closed = False

    # The request

    def start(self, block: bytes) -> None:
        """Send the head, and the body received so far."""
        exchange = self.exchange
        assert exchange is not None
        output = self._connection.output
        complete = exchange.body_complete
        if not exchange.pending_body:
            output.send_headers(self, block, complete)
            self.local_closed = complete
            return
        content, exchange.pending_body = b"".join(exchange.pending_body), ()
        if complete and not exchange.trailers:
            self.local_closed = output.send_response(self, block, content)
        else:
            output.send_headers(self, block)
            self.send_body(content, complete, exchange.trailers)
        if self.queued_bytes < RESUME_QUEUED:
            exchange.resume_upload()

    def start_tunnel(self, block: bytes, key: bytes) -> None:
        """Send extended CONNECT; `key` is the value of Sec-WebSocket-Key of the client."""
        self.tunnel = True
        self._tunnel_key = key
        self._connection.output.send_headers(self, block)

    def send_body(self, content: bytes, last: bool, trailers: bytes) -> None:
        """Send more of the request body."""
        output = self._connection.output
        self.last_activity = self._connection.now
        block = encode_trailers(trailers) if trailers else b""
        if not block:
            if content or last:
                self.local_closed = output.send_content(self, content, last)
            return
        if content:
            output.send_content(self, content, False)
        self.local_closed = output.send_trailers(self, block)

    def send_tunnel_data(self, data: bytes) -> None:
        """Send bytes through the tunnel."""
        self.last_activity = self._connection.now
        self._connection.output.send_content(self, data, False)

    def half_close(self) -> None:
        """Send END_STREAM through the tunnel: the client has closed its sending side."""
        if self._connection.output.send_content(self, b"", True):
            self.end_sent()

    # OutputStream

    def end_sent(self) -> None:
        self.local_closed = True
        self.last_activity = self._connection.now
        if self._remote_closed and self.exchange is not None:
            self._detach(self.exchange)

    def queue_grown(self) -> None:
        if self.exchange is not None:
            self.exchange.pause_upload()

    def queue_shrunk(self) -> None:
        self.last_activity = self._connection.now
        if self.queued_bytes < RESUME_QUEUED and self.exchange is not None:
            self.exchange.resume_upload()

    # The client of the exchange

    def pause_reading(self) -> None:
        """Let the window of the stream close: the client does not read."""
        self.paused = True

    def resume_reading(self) -> None:
        """Open the window again."""
        if self.paused:
            self.paused = False
            self.last_activity = self._connection.now
            self._open_window()

    def abandon(self) -> None:
        """Reset the stream: the client has disconnected."""
        self.exchange = None
        self._connection.cancel_stream(self)

    def _open_window(self) -> None:
        unacked = self._unacked
        if unacked >= UPDATE_THRESHOLD and not self.paused:
            self._unacked = 0
            self._receive_window += unacked
            self._connection.output.append(encode_window_update(self.stream_id, unacked))

    # The response

    def read_head(self, head: ResponseHead, end: bool) -> None:
        """
        Process the head of a response.

        Raises:
            Http2StreamError: The response is malformed.
        """
        exchange = self.exchange
        if exchange is None:
            return
        self.last_activity = self._connection.now
        self.begun = True
        status = head.status
        if status < 200:
            if end:
                raise self._error("informational response with END_STREAM")
            self._informational_count += 1
            if self._informational_count > MAX_INFORMATIONAL_RESPONSES:
                raise self._error("too many informational responses")
            exchange.informational_received(head)
            return
        self._head = head
        if self.tunnel and status < 300:
            self._open_tunnel(exchange, head, end)
            return
        if not has_body(exchange.method, status):
            self._length = 0
        elif head.length >= 0:
            self._length = head.length
        self._remaining = self._length
        if end:
            self._end(exchange, b"")
        else:
            self._connection.delay_response(self)

    def _open_tunnel(self, exchange: UpstreamRequest, head: ResponseHead, end: bool) -> None:
        self.started = True
        exchange.upgraded(switching_protocols(head, self._tunnel_key))
        if end:
            self._tunnel_ended()

    def read_data(self, content: bytes, size: int, end: bool) -> None:
        """
        Process a DATA frame.

        Args:
            content: Its content.
            size: The length of its payload, padding included.
            end: Whether the stream ends with it.

        Raises:
            Http2StreamError: The frame is not allowed here.
        """
        exchange = self.exchange
        if exchange is None:
            return
        self.last_activity = self._connection.now
        self._receive_window -= size
        if self._receive_window < 0:
            raise Http2StreamError(self.stream_id, FLOW_CONTROL_ERROR, "DATA beyond the window")
        if self._head is None:
            raise self._error("DATA before HEADERS")
        if self._remaining >= 0:
            self._remaining -= len(content)
            if self._remaining < 0:
                raise self._error("more content than declared")
        if end:
            self._end(exchange, content)
            return
        self._unacked += size
        if not self.started:
            self._content.append(content)
        elif content:
            if self.tunnel:
                exchange.tunnel_data(content)
            else:
                exchange.response_data(content)
        if self.exchange is not None:
            self._open_window()

    def read_trailers(self, text: bytes) -> None:
        """
        End the response by trailers.

        Raises:
            Http2StreamError: They are not allowed here.
        """
        exchange = self.exchange
        if exchange is None:
            return
        if self._head is None or (self.tunnel and self.started):
            raise self._error("trailers without a response")
        self._end(exchange, b"", text)

    @property
    def has_head(self) -> bool:
        """Whether the head of the final response was received."""
        return self._head is not None

    def _end(self, exchange: UpstreamRequest, content: bytes, trailers: bytes = b"") -> None:
        """Deliver the rest of the response."""
        if self._remaining > 0:
            raise self._error("less content than declared")
        if self.tunnel and self.started:
            if content:
                exchange.tunnel_data(content)
            self._tunnel_ended()
            return
        head = self._head
        assert head is not None
        if self._content:
            content, self._content = b"".join([*self._content, content]), []
        # Until it is detached: an early response ends connections of HTTP/1.1 clients.
        early = not exchange.body_complete
        if self._length >= 0 and not (self.started or early or trailers):
            # Fast path: the response arrived together, and has its length in the head.
            self._detach(exchange)
            exchange.response_received(head, content)
            return
        if not self.started:
            self.started = True
            exchange.response_started(head, self._length)
            if self.exchange is None:
                # The client has disconnected.
                return
        self._detach(exchange)
        exchange.response_finished(content, trailers)

    def _detach(self, exchange: UpstreamRequest) -> None:
        self.exchange = None
        exchange.connection = None
        self._connection.stream_ended(self)

    def _tunnel_ended(self) -> None:
        self._remote_closed = True
        exchange = self.exchange
        if exchange is None:
            return
        if self.local_closed:
            self._detach(exchange)
        exchange.tunnel_ended(True)

    def deliver(self) -> None:
        """Deliver the beginning of the response: the batch has ended, and it is not complete."""
        exchange, head = self.exchange, self._head
        if exchange is None or head is None or self.started:
            return
        self.started = True
        exchange.response_started(head, self._length)
        content, self._content = b"".join(self._content), []
        if content and self.exchange is not None:
            exchange.response_data(content)
        if self.exchange is not None:
            exchange.flush()

    def _error(self, reason: str) -> Http2StreamError:
        return Http2StreamError(self.stream_id, PROTOCOL_ERROR, reason)

    def fail(self, kind: FailureKind, detail: str, server: str, nothing_sent: bool = False) -> None:
        """Report a failure to the exchange; the connection has forgotten the stream."""
        exchange, self.exchange = self.exchange, None
        if exchange is None:
            return
        exchange.connection = None
        if self.started and self.tunnel:
            exchange.tunnel_ended(False)
            return
        failure = UpstreamFailure(kind, detail, nothing_sent, server)
        if self.started:
            exchange.response_aborted(failure)
        else:
            exchange.upstream_failed(failure)
