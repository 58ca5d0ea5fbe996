"""
Reads requests from an HTTP/2 connection: HEADERS, DATA, trailers, and the ends of streams.

As in HTTP/1.1, the channel is an argument of the methods instead of an attribute.
"""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from functools import partial
from os import urandom

from attrs import evolve

from balancebeam.downstream.http2.context import HEADER_LIMITS, Http2Context
from balancebeam.downstream.http2.error_responses import (
    abort_request,
    body_too_large,
    reject_request,
)
from balancebeam.downstream.http2.exchange import Http2Exchange
from balancebeam.downstream.http2.grpc_exchange import build_exchange
from balancebeam.downstream.http2.interfaces import RequestChannel
from balancebeam.downstream.http2.tunnel_exchange import Http2TunnelExchange
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from balancebeam.protocols.http2.abuse import AbuseBudget
from balancebeam.protocols.http2.errors import (
    FLOW_CONTROL_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Http2ConnectionError,
    Http2StreamError,
)
from balancebeam.protocols.http2.flow_control import UPDATE_THRESHOLD
from balancebeam.protocols.http2.frame_reader import FrameReader
from balancebeam.protocols.http2.frames import (
    END_STREAM,
    PADDED,
    encode_rst_stream,
    encode_window_update,
    remove_padding,
)
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.request_fields import (
    ExtendedConnect,
    FieldSection,
    RequestFieldsError,
    TrailerSection,
)
from balancebeam.protocols.http2.table_state import HeaderDecoder
from balancebeam.proxy.forwarding import Forwarder
from balancebeam.proxy.route_target import RouteTarget

# SETTINGS_MAX_CONCURRENT_STREAMS; nginx has the same (http2_max_concurrent_streams).
MAX_CONCURRENT_STREAMS = 128


class RequestReader(FrameReader[RequestChannel]):
    """
    Decodes the requests of one connection and dispatches them.

    Args:
        context: The shared state of the frontend.
        forwarder: See the attribute.
        secure: The connection uses TLS.

    Attributes:
        forwarder: Builds the forwarding headers for this client.
        last_stream_id: The highest stream that the client has opened.
        data_frames: DATA frames with content that were received.
    """

    __slots__ = (
        "_budget",
        "_context",
        "_decoder",
        "_deferred",
        "_unacked",
        "data_frames",
        "forwarder",
        "last_stream_id",
    )

    def __init__(self, context: Http2Context, forwarder: Forwarder, secure: bool) -> None:
        super().__init__()
        self.forwarder = forwarder
        self.last_stream_id = 0
        self._context = context
        self._budget = AbuseBudget(context.ticker.now)
        tables = context.secure_tables if secure else context.tables
        self._decoder: HeaderDecoder[FieldSection] = HeaderDecoder(tables, HEADER_LIMITS)
        # Bytes of content for which the window of the connection was not opened again.
        self._unacked = 0
        self.data_frames = 0
        # The requests of the current batch of input, once a stream was reset; `None` before.
        self._deferred: list[tuple[Http2Exchange, RouteTarget]] | None = None

    @property
    def stream_count(self) -> int:
        """The number of streams that the client has opened, at most."""
        return (self.last_stream_id + 1) // 2

    # Heads and trailers

    def read_headers(
        self, channel: RequestChannel, flags: int, stream_id: int, block: bytes
    ) -> None:
        """
        Process a complete header block: a request, or trailers.

        Raises:
            Http2ConnectionError: The block cannot be decoded, or the stream is closed.
            Http2StreamError: The request is malformed.
        """
        if stream_id <= self.last_stream_id or not stream_id & 1:
            self._read_trailers(channel, flags, stream_id, block)
            return
        self.last_stream_id = stream_id
        try:
            section = self._decoder.decode(block)
        except HpackError as error:
            raise Http2ConnectionError(error.code, str(error)) from None
        except HeaderListTooLarge:
            too_large = RequestFieldsError(431, "request head too large", b"", malformed=False)
            self._reject(channel, stream_id, too_large, bool(flags & END_STREAM))
            return
        except RequestFieldsError as error:
            self._reject(channel, stream_id, error, bool(flags & END_STREAM))
            return
        if channel.refusing or len(channel.streams) >= MAX_CONCURRENT_STREAMS:
            channel.remember_reset(stream_id)
            channel.output.append(encode_rst_stream(stream_id, REFUSED_STREAM))
            self._spend_reset()
            return
        if (
            flags & END_STREAM
            and type(section) is RequestHead
            and not section.length
            and section.rare_fields is NO_RARE_FIELDS
            and self.forwarder.has_fast_path
        ):
            head = section
            forwarder = self.forwarder
            if head.host is not forwarder.host:
                forwarder.set_host(head.host)
            self._dispatch(channel, stream_id, head, head.forward_bytes + forwarder.fast_suffix)
        else:
            self._start_slow_path(channel, flags, stream_id, section)

    def _dispatch(
        self, channel: RequestChannel, stream_id: int, head: RequestHead, upstream_head: bytes
    ) -> None:
        """Dispatch a request without a body, and without rare fields."""
        context = self._context
        table = context.route_table
        route = context.default_route if table is None else table.find(head.host, head.target)
        exchange = Http2Exchange(channel, stream_id, route.dispatcher, head, upstream_head)
        exchange.route = route
        channel.streams[stream_id] = exchange
        if self._deferred is None:
            route.handler.dispatch(exchange, route.admission)
        else:
            self._deferred.append((exchange, route))

    def finish_batch(self) -> None:
        """
        Dispatch the requests of a batch of input that were not reset within it.

        After the first reset on a connection, requests are not dispatched before the whole batch
        is read. So a flood of requests with their resets (CVE-2023-44487) costs no server
        anything, and connections without resets no time.
        """
        deferred = self._deferred
        if deferred:
            self._deferred = []
            for exchange, route in deferred:
                if not exchange.finished:
                    route.handler.dispatch(exchange, route.admission)

    def discard_headers(self, channel: RequestChannel, stream_id: int, block: bytes) -> None:
        """Decode a header block for the state of the table only: its frame is invalid."""
        if stream_id > self.last_stream_id and stream_id & 1:
            self.last_stream_id = stream_id
        elif stream_id not in channel.streams and not channel.is_recently_reset(stream_id):
            raise Http2ConnectionError(STREAM_CLOSED, "HEADERS on a closed stream")
        with suppress(Http2StreamError):
            self._decode(stream_id, block)

    def _decode(self, stream_id: int, block: bytes) -> FieldSection:
        """Decode a header block that is not a request."""
        try:
            return self._decoder.decode(block)
        except HpackError as error:
            raise Http2ConnectionError(error.code, str(error)) from None
        except (HeaderListTooLarge, RequestFieldsError) as error:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, str(error)) from None

    def _start_slow_path(
        self, channel: RequestChannel, flags: int, stream_id: int, section: FieldSection
    ) -> None:
        """Dispatch any other request, whose body may follow."""
        end = bool(flags & END_STREAM)
        if isinstance(section, TrailerSection):
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "request without pseudo-headers")
        key = b""
        if isinstance(section, ExtendedConnect):
            # Extended CONNECT has no Sec-WebSocket-Key.
            key = b64encode(urandom(16))
            line = b"sec-websocket-key: %b\r\n" % key
            head = evolve(section.head, forward_bytes=section.head.forward_bytes + line)
        else:
            head = section
        has_length = head.length or b"\r\nContent-Length: " in head.forward_bytes
        if end and head.length:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "Content-Length without content")
        limit = self._context.max_body
        if limit is not None and head.length > limit:
            self._reject(channel, stream_id, body_too_large(head), end)
            return
        if not end and not has_length and not key:
            head = evolve(head, length=CHUNKED)
        forwarder, context = self.forwarder, self._context
        table = context.route_table
        route = context.default_route if table is None else table.find(head.host, head.target)
        upstream_head, trace = forwarder.build_traced_head(head, channel.transport)
        build = partial(Http2TunnelExchange, key) if key else build_exchange
        exchange = build(channel, stream_id, route.dispatcher, head, upstream_head)
        if trace is not None:
            exchange.start_trace(trace)
        if forwarder.via is not None:
            exchange.via = forwarder.via
        exchange.max_forwards_exhausted = head.max_forwards_exhausted
        if forwarder.trusted:
            exchange.client = context.trusted_proxies.client_ip(channel.client, head)
        exchange.route = route
        exchange.progress_at = context.ticker.now
        if not end:
            exchange.remote_closed = False
            if not key:
                if has_length:
                    exchange.remaining = head.length
                exchange.expect_body()
        channel.streams[stream_id] = exchange
        if self._deferred is None:
            route.handler.dispatch(exchange, route.admission)
        else:
            self._deferred.append((exchange, route))

    def _read_trailers(
        self, channel: RequestChannel, flags: int, stream_id: int, block: bytes
    ) -> None:
        """Process a header block on a stream that the client has opened before."""
        exchange = channel.streams.get(stream_id)
        if not stream_id & 1:
            raise Http2ConnectionError(PROTOCOL_ERROR, "HEADERS on a stream of the server")
        if exchange is None and not channel.is_recently_reset(stream_id):
            raise Http2ConnectionError(STREAM_CLOSED, "HEADERS on a closed stream")
        section = self._decode(stream_id, block)
        if exchange is None:
            return
        if exchange.remote_closed:
            raise Http2StreamError(stream_id, STREAM_CLOSED, "HEADERS after END_STREAM")
        if not isinstance(section, TrailerSection) or not flags & END_STREAM or exchange.tunnel:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "HEADERS that are no trailers")
        if exchange.remaining > 0:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "less content than declared")
        exchange.remote_closed = True
        if not exchange.finished:
            exchange.upload(b"", True, section.text)
        elif exchange.local_closed:
            channel.response_sent(exchange)

    # Content

    def read_data(
        self, channel: RequestChannel, flags: int, stream_id: int, payload: bytes
    ) -> None:
        """
        Process a DATA frame.

        Raises:
            Http2ConnectionError: The stream is idle or closed.
            Http2StreamError: The content exceeds the window or the declared length.
        """
        size = len(payload)
        # Opened again at once, so that a stream whose server is slow stops no other stream.
        self._unacked += size
        if self._unacked >= UPDATE_THRESHOLD:
            channel.output.append(encode_window_update(0, self._unacked))
            self._unacked = 0
        content = remove_padding(flags, payload) if flags & PADDED else payload
        exchange = channel.streams.get(stream_id)
        last = bool(flags & END_STREAM)
        if exchange is None:
            self._discard_data(channel, stream_id)
            return
        if exchange.remote_closed:
            raise Http2StreamError(stream_id, STREAM_CLOSED, "DATA after END_STREAM")
        exchange.receive_window -= size
        exchange.unacked += size
        if exchange.receive_window < 0:
            raise Http2StreamError(stream_id, FLOW_CONTROL_ERROR, "DATA beyond the window")
        if content:
            self.data_frames += 1
        elif not last:
            self.spend_glitch(channel)
        if exchange.remaining >= 0:
            exchange.remaining -= len(content)
            if exchange.remaining < 0 or (last and exchange.remaining):
                raise Http2StreamError(stream_id, PROTOCOL_ERROR, "content of another length")
        exchange.remote_closed = last
        if exchange.finished:
            # The response is complete: the rest of the body is discarded.
            if last and exchange.local_closed:
                channel.response_sent(exchange)
            return
        exchange.progress_at = self._context.ticker.now
        if exchange.tunnel:
            exchange.tunnel_received(content, last)
        else:
            limit = self._context.max_body
            if limit is not None and exchange.body_bytes_received + len(content) > limit:
                abort_request(channel, exchange, body_too_large(exchange.head))
                self._spend_reset()
                return
            exchange.upload(content, last)
        if not last:
            exchange.acknowledge()

    def _discard_data(self, channel: RequestChannel, stream_id: int) -> None:
        """Check that DATA on a stream without an exchange was on its way when that was reset."""
        self.check_not_idle(channel, stream_id)
        if not channel.is_recently_reset(stream_id):
            raise Http2ConnectionError(STREAM_CLOSED, "DATA on a closed stream")
        # A window at most; more is a flood.
        self.spend_glitch(channel)

    def check_not_idle(self, channel: RequestChannel, stream_id: int) -> None:
        """Raise an error for a stream that the client has not opened."""
        if stream_id > self.last_stream_id or not stream_id & 1:
            raise Http2ConnectionError(PROTOCOL_ERROR, "frame on an idle stream")

    # Errors

    def spend_glitch(self, channel: RequestChannel) -> None:
        """Count a frame that carries nothing for a stream."""
        output = channel.output
        self._budget.spend_glitch(
            self._context.ticker.now,
            self.stream_count,
            output.bytes_sent,
            output.data_frames,
            self.data_frames,
        )

    def _spend_reset(self) -> None:
        if self._deferred is None:
            self._deferred = []
        self._budget.spend_reset(self._context.ticker.now, self.stream_count)

    def client_reset(self, channel: RequestChannel, stream_id: int) -> None:
        """Abandon a request that the client has cancelled."""
        exchange = channel.streams.pop(stream_id, None)
        if exchange is not None:
            channel.output.drop_queue(exchange)
            exchange.client_disconnected()
            if not exchange.local_closed:
                # Otherwise it has the response, and does not send the rest of the body.
                self._spend_reset()

    def fail_stream(self, channel: RequestChannel, error: Http2StreamError) -> None:
        """Reset a stream for an error of the client."""
        exchange = channel.streams.get(error.stream_id)
        if exchange is None:
            channel.remember_reset(error.stream_id)
            channel.output.append(encode_rst_stream(error.stream_id, error.code))
        else:
            if not exchange.downstream_response_started:
                # As in HTTP/1.1, for logs.
                exchange.status = 400
            exchange.client_disconnected()
            channel.reset_stream(exchange, error.code)
        self._spend_reset()

    def _reject(
        self, channel: RequestChannel, stream_id: int, error: RequestFieldsError, end: bool
    ) -> None:
        """Respond to a request that cannot be forwarded, and count it."""
        reject_request(channel, stream_id, error, end)
        self._spend_reset()
