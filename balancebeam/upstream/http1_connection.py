"""
One HTTP/1.1 connection to a server, used by one request after another.

The connection parses the response and reports it through `UpstreamRequest`. Its pool
applies the timeouts, from the attributes `state`, `last_activity` and `paused`.
"""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.errors import ResponseError
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.socket_options import set_socket_options
from balancebeam.net.ticker import Ticker
from balancebeam.protocols.http1.body import (
    CHUNKED,
    CLOSE_DELIMITED,
    Body,
    BodyError,
    CloseDelimitedReader,
    build_body_reader,
    encode_chunked,
)
from balancebeam.protocols.http1.grammar import HEAD_END
from balancebeam.protocols.http1.response_head import (
    MAX_INFORMATIONAL_RESPONSES,
    MAX_RESPONSE_HEAD,
    ResponseHead,
    ResponseHeadParser,
    check_partial_head,
    has_body,
)
from balancebeam.upstream.connection_state import (
    AWAITING_RESPONSE,
    CLOSED,
    IDLE,
    READING_BODY,
    TUNNEL,
)
from balancebeam.upstream.failure_reasons import tls_error_text
from balancebeam.upstream.interfaces import ConnectionOwner, UpstreamRequest
from balancebeam.upstream.server import Server


@implementer(IHalfCloseableProtocol, IPushProducer)
class UpstreamConnection(Protocol):
    """
    Sends a request, reads its response, and is then idle or closed; see `UpstreamState`.

    Attributes:
        exchange: The request in progress; `None` when idle or detached.
        state: What is expected from the server.
        last_activity: When bytes were last sent or received, on the ticker.
        reused: The connection has been idle, so the server may have closed it meanwhile.
        paused: Reading is paused, because the client's write buffer is full.
        single_use: See `Connection`.
        keepalive_enabled: See `Connection`.
    """

    # Twisted declares ITransport, which lacks what StreamTransport adds.
    transport: StreamTransport  # type: ignore[assignment]
    single_use = False
    keepalive_enabled = False

    def __init__(
        self,
        server: Server,
        owner: ConnectionOwner[UpstreamConnection],
        parser: ResponseHeadParser,
        ticker: Ticker,
    ) -> None:
        self.server = server
        self.exchange: UpstreamRequest | None = None
        self.state = IDLE
        self.last_activity = ticker.now
        self.reused = False
        self.paused = False
        self._owner = owner
        self._parser = parser
        self._ticker = ticker
        self._buffer = b""
        self._persistent = True
        self._informational_count = 0
        self._write_blocked = False
        self._unacked_bytes = 0
        self._read_closed = False
        self._write_closed = False
        self._body: Body | None = None

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.server.name} {self.state.name}>"

    # PooledConnection, RequestSender

    def send(self, exchange: UpstreamRequest) -> None:
        """Send the request head and the body received so far; report to `exchange`."""
        self.exchange = exchange
        exchange.connection = self
        self.state = AWAITING_RESPONSE
        self.last_activity = self._ticker.now
        if exchange.pending_body:
            content, exchange.pending_body = b"".join(exchange.pending_body), ()
            if exchange.body_length == CHUNKED:
                content = encode_chunked(content, exchange.body_complete, exchange.trailers)
            self.transport.write(exchange.upstream_head + content)
            if not self._write_blocked:
                exchange.resume_upload()
        else:
            self.transport.write(exchange.upstream_head)

    def send_body(self, content: bytes, last: bool, trailers: bytes) -> None:
        """Send more of the request body, in chunks if its length is not declared."""
        exchange = self.exchange
        assert exchange is not None
        self.last_activity = self._ticker.now
        if exchange.body_length == CHUNKED:
            content = encode_chunked(content, last, trailers)
        if content:
            self.transport.write(content)

    def send_tunnel_data(self, data: bytes) -> None:
        """Send bytes through the tunnel."""
        self.last_activity = self._ticker.now
        self.transport.write(data)

    def half_close(self) -> None:
        """Send a FIN through the tunnel: the client has closed its sending side."""
        self._write_closed = True
        self.transport.unregisterProducer()
        if self._read_closed:
            self._detach_tunnel()
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def pause_reading(self) -> None:
        """Stop reading: the client's write buffer is full."""
        if not self.paused:
            self.paused = True
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """Read again: the client's write buffer has drained."""
        if self.paused:
            self.paused = False
            self.last_activity = self._ticker.now
            self.transport.resumeProducing()

    def abandon(self) -> None:
        """Detach the request, whose client has disconnected, and close the connection."""
        self.exchange = None
        if self.state is TUNNEL and self._write_closed:
            # Flush what the client sent before its FIN.
            self.transport.loseConnection()
        else:
            self.close()

    def write_progressed(self, now: float) -> bool:
        """Whether the server has acknowledged bytes since the previous call."""
        outstanding = self.transport.unacked_bytes()
        if outstanding == self._unacked_bytes:
            return False
        self._unacked_bytes = outstanding
        self.last_activity = now
        return True

    def time_out(self) -> None:
        """Fail the request: the response timeout has expired."""
        begun = self.state is READING_BODY or self._buffer or self._informational_count
        self._fail(FailureKind.STALLED if begun else FailureKind.TIMEOUT)

    def fail_client_stalled(self) -> None:
        """Fail the request: its client has read nothing for its idle timeout."""
        self._fail(FailureKind.CLIENT_STALLED)

    def shutdown(self) -> None:
        """Fail the request: the balancer stops."""
        self._fail(FailureKind.STOPPING)

    def close_idle(self) -> None:
        """Close the connection and remove it from the idle connections of its server."""
        self.server.idle_connections.pop(self, None)
        self.close()

    def close(self) -> None:
        """Close the connection immediately, in any state."""
        if self.state is not CLOSED:
            self.state = CLOSED
            self.transport.abortConnection()

    # Protocol, IHalfCloseableProtocol

    def dataReceived(self, data: bytes) -> None:
        self.last_activity = self._ticker.now
        state = self.state
        if state is AWAITING_RESPONSE:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_head(data)
        elif state is READING_BODY:
            self._read_body(data)
        elif state is TUNNEL:
            if self.exchange is not None:
                self.exchange.tunnel_data(data)
        elif state is IDLE:
            # RFC 9112, 9.2: data without an outstanding request is no valid response.
            self.close_idle()

    def readConnectionLost(self) -> None:
        self._server_closed(clean=True)

    def writeConnectionLost(self) -> None:
        """The FIN towards the server is sent; its half of the tunnel stays open."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server_closed(clean=False, detail=tls_error_text(reason))
        self._owner.connection_closed(self)

    # IPushProducer

    def pauseProducing(self) -> None:
        self._write_blocked = True
        self._unacked_bytes = self.transport.unacked_bytes()
        if self.exchange is not None:
            self.exchange.pause_upload()

    def resumeProducing(self) -> None:
        self._write_blocked = False
        self.last_activity = self._ticker.now
        if self.exchange is not None:
            self.exchange.resume_upload()

    def stopProducing(self) -> None:
        """Do nothing: the transport is closed, and `connectionLost` follows."""

    def _read_head(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        end = data.find(HEAD_END)
        try:
            if end < 0:
                check_partial_head(data)
                self._buffer = data
                return
            if end > MAX_RESPONSE_HEAD:
                raise ResponseError("response head too large")
            head = self._parser.parse(data[: end + 2])
        except ResponseError as error:
            self._fail(FailureKind.MALFORMED, str(error))
            return
        if head.status < 200:
            self._read_informational(exchange, head, data[end + 4 :])
            return
        length = head.length
        if (head.status != 200 or exchange.method == b"HEAD") and not has_body(
            exchange.method, head.status
        ):
            length = 0
        trailing = len(data) - end - 4 - length
        if trailing == 0 and length >= 0 and exchange.body_complete:
            # Fast path: head and body arrived together, as most responses do.
            self._persistent = head.persistent
            self._complete_response(exchange)
            exchange.response_received(head, data[end + 4 :])
            return
        self._start_body(exchange, head, length, data[end + 4 :])

    def _read_informational(
        self, exchange: UpstreamRequest, head: ResponseHead, rest: bytes
    ) -> None:
        self._informational_count += 1
        if head.status == 101:
            error = exchange.upgrade_error(head)
            if error:
                self._fail(FailureKind.MALFORMED, error)
                return
            self.state = TUNNEL
            exchange.upgraded(head)
            if rest and self.exchange is not None:
                exchange.tunnel_data(rest)
        elif self._informational_count > MAX_INFORMATIONAL_RESPONSES:
            self._fail(FailureKind.MALFORMED, "too many informational responses")
        else:
            exchange.informational_received(head)
            if rest and self.state is AWAITING_RESPONSE:
                self._read_head(rest)

    def _start_body(
        self, exchange: UpstreamRequest, head: ResponseHead, length: int, rest: bytes
    ) -> None:
        self.state = READING_BODY
        self._persistent = head.persistent and length != CLOSE_DELIMITED
        self._body = build_body_reader(length)
        exchange.response_started(head, length)
        if self.exchange is not exchange:
            # The response was not accepted, and the connection is closed.
            return
        if rest or length == 0:
            self._read_body(rest)
        if self.exchange is exchange:
            exchange.flush()

    def _read_body(self, data: bytes) -> None:
        body, exchange = self._body, self.exchange
        assert body is not None and exchange is not None
        try:
            content = body.feed(data)
        except BodyError as error:
            self._fail(FailureKind.MALFORMED, str(error))
            return
        if body.complete:
            if body.trailing_data or not exchange.body_complete:
                # RFC 9112, 6.3: extra data is not "a separate response". And after an early
                # response, the rest of the request body would look like the next request.
                self._persistent = False
            self._complete_response(exchange)
            exchange.response_finished(content, body.trailers)
        elif content:
            exchange.response_data(content)

    def _complete_response(self, exchange: UpstreamRequest) -> None:
        """Detach the exchange, whose response is complete, and release or close."""
        self.exchange = None
        exchange.connection = None
        self._body = None
        self._informational_count = 0
        if self._persistent and self.transport.nothing_buffered:
            # `nothing_buffered`: the request has been sent completely.
            self.state = IDLE
            if self.paused:
                self.resume_reading()
            self._owner.release(self)
        else:
            self.close()

    def _fail(self, kind: FailureKind, detail: str = "") -> None:
        """Close, and report the failure: before the response started, or within it."""
        exchange, state = self.exchange, self.state
        self.exchange = None
        self.close()
        if exchange is None:
            return
        exchange.connection = None
        failure = UpstreamFailure(kind, detail, server=self.server.name)
        if state is AWAITING_RESPONSE:
            exchange.upstream_failed(failure)
        else:
            exchange.response_aborted(failure)

    def _server_closed(self, clean: bool, detail: str = "") -> None:
        """The server closed its sending side; `clean` with a FIN, not with a reset or an error."""
        state = self.state
        if state is TUNNEL:
            self._tunnel_ended(clean)
        elif state is AWAITING_RESPONSE:
            begun = self._buffer or self._informational_count
            closed = FailureKind.CLOSED if clean or begun else FailureKind.RESET
            self._fail(FailureKind.STALE if self.reused and not begun else closed, detail)
        elif state is READING_BODY:
            exchange = self.exchange
            if not clean or not isinstance(self._body, CloseDelimitedReader) or exchange is None:
                self._fail(FailureKind.CLOSED, detail)
            elif self.transport.eof_truncated:
                # RFC 9112, 9.8: such a response "is incomplete" without a closure alert.
                self._fail(FailureKind.CLOSED, "response truncated: no TLS close_notify")
            else:
                self._persistent = False
                self._complete_response(exchange)
                exchange.response_finished(b"", b"")
        elif state is IDLE:
            self.close_idle()

    def _tunnel_ended(self, clean: bool) -> None:
        self._read_closed = True
        exchange = self.exchange
        if not clean or self._write_closed:
            self._detach_tunnel()
            if clean:
                self.transport.loseConnection()
            else:
                self.state = CLOSED
        if exchange is not None:
            exchange.tunnel_ended(clean)

    def _detach_tunnel(self) -> None:
        """Detach the exchange of a tunnel that is closed; written bytes are still sent."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.connection = None
