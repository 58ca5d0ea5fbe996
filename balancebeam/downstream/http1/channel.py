"""
One client's HTTP/1.1 connection.

It reads one request at a time, streams bodies both ways, and answers in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IPushProducer,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.errors import RequestError
from balancebeam.core.ip import pack_address
from balancebeam.downstream.http1.exchange import Http1Exchange
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.socket_options import set_socket_options
from balancebeam.protocols.http1 import local_reply as answers
from balancebeam.protocols.http1.body import (
    BodyError,
    ChunkedReader,
    ContentLengthReader,
    encode_chunk,
    encode_last_chunk,
)
from balancebeam.protocols.http1.grammar import CRLF, HEAD_END
from balancebeam.protocols.http1.request_head import MAX_REQUEST_HEAD, check_partial_head
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import BUFFER_SIZE, Fields
from balancebeam.proxy.forwarding import Forwarder
from balancebeam.proxy.rejected import RejectedRequest, first_line

if TYPE_CHECKING:
    from balancebeam.downstream.http1.factory import Http1Factory
    from balancebeam.proxy.dispatcher import BalancerResource

(
    READING_HEAD,
    READING_BODY,
    DISCARDING_BODY,
    AWAITING_RESPONSE,
    TUNNEL,
    LINGERING_CLOSE,
    CLOSING,
    CLOSED,
) = range(8)


@implementer(IHalfCloseableProtocol, IPushProducer)
class Http1Channel(Protocol):
    """
    One client's connection.

    `state` says what arriving bytes are: `READING_HEAD` a request's head, `READING_BODY` its
    body, `DISCARDING_BODY` the rest of one that was answered already, `AWAITING_RESPONSE`
    requests that have to wait, `TUNNEL` anything, `LINGERING_CLOSE` nothing any
    more. `last_activity` and `head_started_at` are on the
    ticker; `head_started_at` is when the head that is being read began, `None`
    between requests. `tunnel_half_closed` is a tunnel of which one side has ended;
    `output_flushed` tells that all is out when lingering; `last_unacked_bytes` is what was
    not, at the last sweep.
    """

    transport: StreamTransport  # type: ignore[assignment]
    # The connection of which a PROXY header told.
    proxy_info: ProxyInfo | None = None

    def __init__(self, site: Http1Factory, peer: str, trusted: bool) -> None:
        self.site = site
        self.client = peer
        self.client_key = pack_address(peer)
        self.exchange: Http1Exchange | None = None
        self.state = READING_HEAD
        self.half_closed = False
        self.write_blocked = False
        self.reading = True
        self.last_activity = site.ticker.now
        self._ticker = site.ticker
        self._parser = site.parser
        self._forwarder = Forwarder(peer, trusted, site.forwarding)
        self._buffer = b""
        self.head_started_at: float | None = site.ticker.now
        self._in_read_loop = False
        # How far the beginning of a head in `_buffer` has been checked.
        self._scan_offset = 0
        self.tunnel_half_closed = False
        self.output_flushed = False
        self.last_unacked_bytes: int | None = None
        self._body_reader: ContentLengthReader | ChunkedReader | None = None
        self._body_bytes_received = 0

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)
        self.site.channels.add(self)

    def update_trust(self, trusted: bool) -> None:
        """What is known of the client, and told of it, may have changed."""
        self._forwarder = Forwarder(self.client, trusted, self.site.forwarding)

    # Bytes from the client.

    def dataReceived(self, data: bytes) -> None:
        state = self.state
        if state != LINGERING_CLOSE:
            self.last_activity = self._ticker.now
        if state == READING_HEAD:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_heads(data)
        elif state == READING_BODY:
            self._read_body(data)
        elif state == AWAITING_RESPONSE:
            self._buffer += data
            if len(self._buffer) > BUFFER_SIZE:
                self.pause_reading()
        elif state == TUNNEL:
            exchange = self.exchange
            if exchange is not None and exchange.connection is not None:
                exchange.connection.send_body(data)
        elif state == DISCARDING_BODY:
            self._discard_body(data)

    def _read_heads(self, data: bytes) -> None:
        """Take requests from `data` for as long as they can be answered at once."""
        if self.write_blocked:
            # The client does not read its answers; it gets no new ones.
            self._buffer = data
            if len(data) > BUFFER_SIZE:
                self.pause_reading()
            return
        self._in_read_loop = True
        forwarder, site = self._forwarder, self.site
        while True:
            end = data.find(HEAD_END)
            if end < 0 or end > MAX_REQUEST_HEAD:
                self._buffer_partial_head(data)
                break
            try:
                head = self._parser.parse(data[: end + 2])
            except RequestError as refused:
                if data.startswith(CRLF) and data[2:4] != CRLF:
                    # RFC 9112, 2.2: "a server that is expecting to receive and
                    # parse a request-line SHOULD ignore at least one empty line".
                    data = data[2:]
                    continue
                self._reject(refused, data)
                break
            self.head_started_at = None
            self._scan_offset = 0
            table = site.table
            route = site.default if table is None else table.find(head.host, head.target)
            if (
                head.rare_fields is NO_RARE_FIELDS
                and head.length >= 0
                and head.minor
                and forwarder.has_fast_path
            ):
                if head.host is not forwarder.host:
                    forwarder.set_host(head.host)
                exchange = Http1Exchange(
                    self, route.dispatcher, head, head.forward_bytes + forwarder.fast_suffix
                )
            else:
                exchange = self._build_slow_path_exchange(route.dispatcher, head)
            self.exchange = exchange
            if head.length == 0:
                self.state = AWAITING_RESPONSE
                self._buffer = data[end + 4 :]
            elif not self._start_body(exchange, head, data[end + 4 :]):
                break
            route.handler.dispatch(exchange, route.admission)
            if self.state != READING_HEAD or self.write_blocked:
                break
            data, self._buffer = self._buffer, b""
            if not data:
                self._close_if_half_closed()
                break
        self._in_read_loop = False

    def _build_slow_path_exchange(
        self, dispatcher: BalancerResource, head: RequestHead
    ) -> Http1Exchange:
        forwarder, site = self._forwarder, self.site
        exchange = Http1Exchange(self, dispatcher, head, forwarder.build_head(head, self.transport))
        exchange.max_forwards_exhausted = head.max_forwards_exhausted
        if forwarder.trusted:
            exchange.client = site.trusted_proxies.client_ip(self.client, head)
        return exchange

    def _buffer_partial_head(self, data: bytes) -> None:
        """Keep the beginning of a head, unless it can no longer become one."""
        try:
            self._scan_offset = check_partial_head(data, self._scan_offset)
        except RequestError as refused:
            self._reject(refused, data)
            return
        if self.half_closed:
            self.close()
            return
        self._buffer = data
        if self.head_started_at is None and data not in (b"\r", CRLF):
            self.head_started_at = self._ticker.now

    # Bodies of requests.

    def _start_body(self, exchange: Http1Exchange, head: RequestHead, data: bytes) -> bool:
        """Read what of the body came with the head; false if it was refused."""
        limit = self.site.max_body
        if limit is not None and head.length > limit:
            self.exchange = None
            line = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor)
            self._reject(RequestError(413, "the request body is too large"), line)
            return False
        self._body_reader = ChunkedReader() if head.length < 0 else ContentLengthReader(head.length)
        self._body_bytes_received = 0
        self.state = READING_BODY
        exchange.expect_body()
        if data:
            self._read_body(data)
        return self.state in (READING_BODY, AWAITING_RESPONSE)

    def _read_body(self, data: bytes) -> None:
        body, exchange = self._body_reader, self.exchange
        assert body is not None and exchange is not None
        try:
            content = body.feed(data)
        except BodyError as error:
            self._abort_request(exchange, RequestError(400, str(error)))
            return
        self._body_bytes_received += len(content)
        limit = self.site.max_body
        if limit is not None and self._body_bytes_received > limit:
            self._abort_request(exchange, RequestError(413, "the request body is too large"))
            return
        if exchange.head.length < 0:
            wire = encode_chunk(content) if content else b""
            if body.complete:
                wire += encode_last_chunk(body.trailers)
        else:
            wire = content
        if body.complete:
            self.state = AWAITING_RESPONSE
            self._buffer = body.trailing_data
            self._body_reader = None
        exchange.upload(wire, body.complete)

    def _abort_request(self, exchange: Http1Exchange, error: RequestError) -> None:
        """The body cannot be read to its end: neither server nor client go on."""
        self.exchange = None
        responded = exchange.downstream_response_started
        if not responded:
            # What the client gets, for who keeps count.
            exchange.status = error.status
        exchange.client_disconnected()
        if responded:
            self.abort()
        else:
            self._write_error(error, exchange.method == b"HEAD")
            self._start_lingering_close()

    def can_discard_body(self) -> bool:
        """Whether what is left of the body is so little that it can be read for nothing."""
        body = self._body_reader
        if self.state != READING_BODY or body is None:
            return False
        return isinstance(body, ChunkedReader) or body.remaining <= BUFFER_SIZE

    def _discard_body(self, data: bytes) -> None:
        """Read on to the end of a body that nobody wants, where the next request begins."""
        body = self._body_reader
        assert body is not None
        try:
            body.feed(data)
        except BodyError:
            self._start_lingering_close()
            return
        self._body_bytes_received += len(data)
        if body.complete:
            self.state = READING_HEAD
            self.head_started_at = None
            self._buffer = body.trailing_data
            self._body_reader = None
            self._process_buffered()
        elif self._body_bytes_received > BUFFER_SIZE:
            self._start_lingering_close()

    # Answers.

    def write_local_reply(
        self, status: int, body: bytes, fields: Fields, bodyless: bool, persistent: bool
    ) -> None:
        """Write an answer of the proxy's own."""
        now = self._ticker.wall_time()
        self.transport.write(answers.local_reply(status, body, fields, bodyless, persistent, now))

    def _reject(self, error: RequestError, data: bytes) -> None:
        """Answer a request that could not be read from `data`, and read no other."""
        octets = self._write_error(error, _is_head_request(data))
        status, reason = error.status, error.reason
        self.site.count_rejected(
            RejectedRequest(self.client, first_line(data), status, reason, octets)
        )
        self._start_lingering_close()

    def _write_error(self, error: RequestError, bodyless: bool) -> int:
        """Answer what goes no further; returns the length of the body."""
        body = answers.jsend_error(error.reason)
        self.write_local_reply(error.status, body, (), bodyless, persistent=False)
        return 0 if bodyless else len(body)

    def response_finished(self, persistent: bool) -> None:
        """The exchange's response has been written; go on with what comes next."""
        self.exchange = None
        if persistent and self.state == READING_BODY:
            self.state = DISCARDING_BODY
            self._body_bytes_received = 0
            self.head_started_at = self._ticker.now
            self.resume_reading()
            return
        if not persistent:
            if self.state == AWAITING_RESPONSE and not self._buffer:
                self.close()
            else:
                self._start_lingering_close()
            return
        self.state = READING_HEAD
        self.last_activity = self._ticker.now
        if not self._in_read_loop and (self._buffer or self.half_closed or not self.reading):
            self._process_buffered()

    def _process_buffered(self) -> None:
        """Read the requests that had to wait, if any."""
        if not self.reading:
            self.resume_reading()
        data, self._buffer = self._buffer, b""
        if data:
            self._read_heads(data)
        else:
            self._close_if_half_closed()

    def _close_if_half_closed(self) -> None:
        if self.half_closed:
            self.close()

    def start_tunnel(self) -> None:
        """From here on bytes pass both ways as they are."""
        self.state = TUNNEL
        data, self._buffer = self._buffer, b""
        if not self.reading:
            self.resume_reading()
        if data:
            self.dataReceived(data)
        if self.half_closed:
            self._half_close_upstream()

    def _half_close_upstream(self) -> None:
        """Tell the server that the client sends no more through the tunnel."""
        self.tunnel_half_closed = True
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.half_close()

    def half_close_client(self) -> None:
        """The server sends no more; the client may still."""
        over, self.tunnel_half_closed = self.tunnel_half_closed, True
        self.transport.unregisterProducer()
        if over:
            self.close()
        else:
            self.transport.loseWriteConnection()

    # Ends.

    def close(self) -> None:
        """Close when everything that was written is out."""
        if self.state not in (CLOSING, CLOSED):
            self.state = CLOSING
            self.last_activity = self._ticker.now
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _start_lingering_close(self) -> None:
        """Say that nothing more comes, and listen a little longer."""
        if self.state in (CLOSING, CLOSED):
            return
        if self.half_closed:
            self.close()
            return
        self.state = LINGERING_CLOSE
        self._buffer = b""
        self.last_activity = self._ticker.now
        self.transport.unregisterProducer()
        self.resume_reading()
        self.transport.loseWriteConnection()

    def drain(self) -> None:
        """Close after the answer; sweeps see to those who ask for nothing more."""
        if self.exchange is not None and self.state != TUNNEL:
            self.exchange.persistent = False

    def abort(self) -> None:
        """Close at once, in a way that no client takes for a regular end."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_disconnected()
        self.state = CLOSED
        self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        self.half_closed = True
        self.last_activity = self._ticker.now
        state = self.state
        if state in (READING_HEAD, LINGERING_CLOSE, DISCARDING_BODY):
            if not (state == READING_HEAD and self._buffer and self.write_blocked):
                self.close()
        elif state == READING_BODY:
            self.abort()
        elif state == TUNNEL:
            over = self.tunnel_half_closed
            self._half_close_upstream()
            if over:
                self.close()

    def writeConnectionLost(self) -> None:
        """Everything we had to say is out; the client may still speak."""
        self.output_flushed = True
        self.write_blocked = False
        self.last_activity = self._ticker.now

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.state = CLOSED
        self.site.channels.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_disconnected()

    @property
    def no_input(self) -> bool:
        """Whether nothing has come of the next request."""
        return self._buffer in (b"", b"\r", CRLF)

    @property
    def downstream_response_started(self) -> bool:
        """Whether the response to the request in progress has begun."""
        return self.exchange is not None and self.exchange.downstream_response_started

    # Too slow, says the sweep.

    def header_timeout_expired(self) -> None:
        """The head that is being read takes too long."""
        if not self.no_input:
            self._reject(RequestError(408, "the request head is too slow"), self._buffer)
        else:
            # Browsers open connections ahead of need. One that never said
            # anything is owed no answer.
            self.close()

    def body_timeout_expired(self) -> None:
        """Nothing has come of the body for too long."""
        exchange = self.exchange
        if exchange is not None and not exchange.awaiting_100_continue:
            self._abort_request(exchange, RequestError(408, "the request body is too slow"))

    # Backpressure. As a producer, this is paused while the client takes no more.

    def pauseProducing(self) -> None:
        if not self.write_blocked:
            self.write_blocked = True
            self.last_activity = self._ticker.now
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.pause_reading()

    def resumeProducing(self) -> None:
        self.write_blocked = False
        self.last_activity = self._ticker.now
        exchange = self.exchange
        if exchange is not None:
            if exchange.connection is not None:
                exchange.connection.resume_reading()
        elif self.state == READING_HEAD:
            self._process_buffered()

    def stopProducing(self) -> None:
        """The transport is going away, which `connectionLost` deals with."""

    def pause_reading(self) -> None:
        """Take no more from the client for now."""
        if self.reading:
            self.reading = False
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Take more from the client."""
        if not self.reading:
            self.reading = True
            self.last_activity = self._ticker.now
            self.transport.resumeProducing()


def _is_head_request(data: bytes) -> bool:
    """Whether a request that could not be read is a HEAD, which gets no body."""
    return data[:7].lstrip(CRLF).startswith(b"HEAD ")
