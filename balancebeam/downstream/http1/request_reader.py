"""
Reads requests from an HTTP/1.1 client connection: heads, bodies, and bodies to discard.

The reader parses and routes; the channel owns the transport, the state and the buffer. The
channel is an argument of every method instead of an attribute, because two objects that refer
to each other would leave each closed connection to the garbage collector.
"""

from __future__ import annotations

import typing

from balancebeam.core.errors import RequestError
from balancebeam.downstream.http1.channel_state import (
    AWAITING_RESPONSE,
    READING_BODY,
    READING_HEAD,
    ChannelState,
)
from balancebeam.downstream.http1.context import Http1Context
from balancebeam.downstream.http1.custom_via import CustomViaExchange
from balancebeam.downstream.http1.exchange import ClientStream, Http1Exchange
from balancebeam.protocols.http1.body import (
    CHUNKED,
    BodyError,
    ChunkedReader,
    ContentLengthReader,
)
from balancebeam.protocols.http1.grammar import CRLF, HEAD_END
from balancebeam.protocols.http1.request_head import MAX_REQUEST_HEAD, check_partial_head
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from balancebeam.proxy.exchange import BUFFER_SIZE, Exchange
from balancebeam.proxy.forwarding import Forwarder
from balancebeam.proxy.interfaces import Pipeline


class RequestChannel(ClientStream, typing.Protocol):
    """
    The interface of the connection that a `RequestReader` reads from.

    Attributes:
        state: See `channel_state`.
        exchange: The exchange in progress.
        buffer: Bytes that have been received and not parsed.
        half_closed: Whether the client has sent EOF.
        head_started_at: When reading of the current head began, on the ticker; `None` between
            requests.
        in_read_loop: Whether `read_heads` is running, which then continues with the next
            pipelined request itself.
    """

    state: ChannelState
    exchange: Http1Exchange | None
    buffer: bytes
    half_closed: bool
    head_started_at: float | None
    in_read_loop: bool

    def reject(self, error: RequestError, data: bytes) -> None:
        """Respond to the unreadable request in `data`, and read no other one."""

    def abort_request(self, exchange: Http1Exchange, error: RequestError) -> None:
        """End the exchange because its body is unreadable; see `Http1Channel`."""

    def process_buffered(self) -> None:
        """Parse `buffer` as request heads, or close after the client's EOF."""

    def close(self) -> None:
        """Close when everything has been written."""

    def start_lingering_close(self) -> None:
        """Send EOF, and read and ignore what the client still sends."""


class RequestReader:
    """
    Parses the requests of one connection and dispatches them.

    Args:
        context: The shared state of the frontend.
        secure: The connection uses TLS.

    Attributes:
        forwarder: Builds the forwarding headers for this client.
    """

    __slots__ = ("_body", "_body_bytes", "_context", "_parser", "_scan_offset", "forwarder")

    def __init__(self, context: Http1Context, forwarder: Forwarder, secure: bool = False) -> None:
        self.forwarder = forwarder
        self._context = context
        self._parser = context.secure_parser if secure else context.parser
        # Offset up to which the partial head in the channel's buffer has been checked.
        self._scan_offset = 0
        self._body: ContentLengthReader | ChunkedReader | None = None
        # Bytes of the current body received so far.
        self._body_bytes = 0

    def read_heads(self, channel: RequestChannel, data: bytes) -> None:
        """Parse and dispatch requests from `data` while each is answered immediately."""
        if channel.write_blocked:
            # The client does not read its responses: start no new request.
            channel.buffer = data
            if len(data) > BUFFER_SIZE:
                channel.pause_reading()
            return
        channel.in_read_loop = True
        forwarder, context, parser = self.forwarder, self._context, self._parser
        while True:
            end = data.find(HEAD_END)
            if end < 0 or end > MAX_REQUEST_HEAD:
                self._buffer_partial_head(channel, data)
                break
            try:
                head = parser.parse(data[: end + 2])
            except RequestError as error:
                if data.startswith(CRLF) and data[2:4] != CRLF:
                    # RFC 9112, 2.2: "a server that is expecting to receive and
                    # parse a request-line SHOULD ignore at least one empty line".
                    data = data[2:]
                    continue
                channel.reject(error, data)
                break
            channel.head_started_at = None
            self._scan_offset = 0
            table = context.route_table
            route = context.default_route if table is None else table.find(head.host, head.target)
            if (
                head.rare_fields is NO_RARE_FIELDS
                and head.length >= 0
                and head.minor
                and forwarder.has_fast_path
            ):
                if head.host is not forwarder.host:
                    forwarder.set_host(head.host)
                exchange = Http1Exchange(
                    channel, route.dispatcher, head, head.forward_bytes + forwarder.fast_suffix
                )
            else:
                exchange = self._build_slow_path_exchange(channel, route.dispatcher, head)
            channel.exchange = exchange
            exchange.route = route
            if head.length == 0:
                channel.state = AWAITING_RESPONSE
                channel.buffer = data[end + 4 :]
            elif not self._start_body(channel, exchange, data[end + 4 :]):
                break
            route.handler.dispatch(exchange, route.admission)
            if channel.state is not READING_HEAD or channel.write_blocked:
                break
            data, channel.buffer = channel.buffer, b""
            if not data:
                if channel.half_closed:
                    channel.close()
                break
        channel.in_read_loop = False

    def _build_slow_path_exchange(
        self, channel: RequestChannel, dispatcher: Pipeline[Exchange], head: RequestHead
    ) -> Http1Exchange:
        """The exchange of a request with rare fields, a chunked body, tracing, or a policy."""
        forwarder = self.forwarder
        upstream_head, trace = forwarder.build_traced_head(head, channel.transport)
        if forwarder.via is None:
            exchange = Http1Exchange(channel, dispatcher, head, upstream_head)
        else:
            exchange = CustomViaExchange(channel, dispatcher, head, upstream_head)
            exchange.via = forwarder.via
        if trace is not None:
            exchange.start_trace(trace)
        if not head.minor:
            exchange.http_version = "1.0"
        exchange.max_forwards_exhausted = head.max_forwards_exhausted
        if forwarder.trusted:
            exchange.client = self._context.trusted_proxies.client_ip(channel.client, head)
        return exchange

    def _buffer_partial_head(self, channel: RequestChannel, data: bytes) -> None:
        """Keep the beginning of a head, or reject it if no valid head can begin so."""
        try:
            self._scan_offset = check_partial_head(data, self._scan_offset)
        except RequestError as error:
            channel.reject(error, data)
            return
        if channel.half_closed:
            channel.close()
            return
        channel.buffer = data
        if channel.head_started_at is None and data not in (b"\r", CRLF):
            channel.head_started_at = self._context.ticker.now

    def _start_body(self, channel: RequestChannel, exchange: Http1Exchange, data: bytes) -> bool:
        """
        Start reading a body, of which `data` came with the head.

        Returns:
            Whether the request can be dispatched; false if the body was rejected, or is cut.
        """
        head = exchange.head
        limit = self._context.max_body
        if limit is not None and head.length > limit:
            channel.exchange = None
            line = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor)
            channel.reject(_body_too_large(), line)
            return False
        self._body = ChunkedReader() if head.length == CHUNKED else ContentLengthReader(head.length)
        self._body_bytes = 0
        channel.state = READING_BODY
        exchange.expect_body()
        if data:
            self.read_body(channel, data)
        if channel.half_closed and channel.state is READING_BODY:
            # The client's EOF was received while the request waited in the pipeline.
            channel.exchange = None
            channel.abort()
        return channel.state in (READING_BODY, AWAITING_RESPONSE)

    def read_body(self, channel: RequestChannel, data: bytes) -> None:
        """Parse `data` as part of the body and pass it to the exchange."""
        body, exchange = self._body, channel.exchange
        assert body is not None and exchange is not None
        try:
            content = body.feed(data)
        except BodyError as error:
            channel.abort_request(exchange, RequestError(400, str(error)))
            return
        self._body_bytes += len(content)
        limit = self._context.max_body
        if limit is not None and self._body_bytes > limit:
            exchange.body_bytes_received = self._body_bytes
            channel.abort_request(exchange, _body_too_large())
            return
        if body.complete:
            channel.state = AWAITING_RESPONSE
            channel.buffer = body.trailing_data
            self._body = None
        exchange.upload(content, body.complete, body.trailers)

    def can_discard_body(self) -> bool:
        """Whether the rest of the body is short enough to read and drop it."""
        body = self._body
        if body is None:
            return False
        return isinstance(body, ChunkedReader) or body.remaining <= BUFFER_SIZE

    def start_discarding(self) -> None:
        """Count the bytes of the body anew, for the limit of `discard_body`."""
        self._body_bytes = 0

    def discard_body(self, channel: RequestChannel, data: bytes) -> None:
        """Drop `data` up to the end of the body, where the next request begins."""
        body = self._body
        assert body is not None
        try:
            body.feed(data)
        except BodyError:
            channel.start_lingering_close()
            return
        self._body_bytes += len(data)
        if body.complete:
            channel.state = READING_HEAD
            channel.head_started_at = None
            channel.buffer = body.trailing_data
            self._body = None
            channel.process_buffered()
        elif self._body_bytes > BUFFER_SIZE:
            channel.start_lingering_close()


def _body_too_large() -> RequestError:
    return RequestError(413, "request body too large")
