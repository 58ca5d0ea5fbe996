"""
One HTTP/1.1 connection to a server, used by one request after the other.
"""

from __future__ import annotations

from typing import Union

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.errors import ResponseError
from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.ticker import Ticker
from balancebeam.net.transport import set_socket_options
from balancebeam.protocols.http1.body import (
    CHUNKED,
    CLOSE_DELIMITED,
    BodyError,
    ChunkedReader,
    CloseDelimitedReader,
    ContentLengthReader,
)
from balancebeam.protocols.http1.grammar import CRLF, HEAD_END, list_items
from balancebeam.protocols.http1.response_head import (
    MAX_RESPONSE_HEAD,
    ResponseHead,
    ResponseHeadParser,
    has_body,
)
from balancebeam.upstream.interfaces import ConnectionOwner, UpstreamRequest
from balancebeam.upstream.server_set import Server

Body = Union[ContentLengthReader, ChunkedReader, CloseDelimitedReader]

# RFC 9110, 15.2: a client must be able to parse any number of them, but a
# server that sends more than these is not answering.
MAX_INFORMATIONAL_RESPONSES = 100

OK = 200


IDLE, AWAITING_RESPONSE, READING_BODY, TUNNEL, CLOSED = range(5)


@implementer(IHalfCloseableProtocol, IPushProducer)
class UpstreamConnection(Protocol):
    """
    Sends a request, reads one response, and is then idle or closed.

    `last_activity` is when bytes last went either way, on the ticker. `reused`
    tells that it has been idle, so that the server may have closed it.
    """

    transport: StreamTransport  # type: ignore[assignment]
    # Whether it began with a client's address, and so is for no other.
    single_use = False
    # Whether the kernel finds out if the server is gone.
    keepalive_enabled = False

    def __init__(
        self, server: Server, owner: ConnectionOwner, parser: ResponseHeadParser, ticker: Ticker
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

    # What an exchange does with it.

    def send(self, exchange: UpstreamRequest) -> None:
        """Send the request; the exchange hears what becomes of it."""
        self.exchange = exchange
        exchange.connection = self
        self.state = AWAITING_RESPONSE
        self.last_activity = self._ticker.now
        if exchange.pending_body:
            pending, exchange.pending_body = exchange.pending_body, ()
            self.transport.write(exchange.upstream_head + b"".join(pending))
            if not self._write_blocked:
                exchange.resume_upload()
        else:
            self.transport.write(exchange.upstream_head)

    def send_body(self, data: bytes) -> None:
        """Send more of the request's body, or bytes through the tunnel."""
        self.last_activity = self._ticker.now
        self.transport.write(data)

    def half_close(self) -> None:
        """The client sends no more through the tunnel."""
        self._write_closed = True
        self.transport.unregisterProducer()
        if self._read_closed:
            self._detach_tunnel()
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def pause_reading(self) -> None:
        """The client takes no more for now."""
        if not self.paused:
            self.paused = True
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        """The client takes more."""
        if self.paused:
            self.paused = False
            self.last_activity = self._ticker.now
            self.transport.resumeProducing()

    def abandon(self) -> None:
        """Nobody waits for the answer any more."""
        self.exchange = None
        if self.state == TUNNEL and self._write_closed:
            # What the client said before it left is still on its way.
            self.transport.loseConnection()
        else:
            self.close()

    def write_progressed(self, now: float) -> bool:
        """Whether the server has taken something since this was asked last."""
        outstanding = self.transport.unacked_bytes()
        if outstanding == self._unacked_bytes:
            return False
        self._unacked_bytes = outstanding
        self.last_activity = now
        return True

    def time_out(self) -> None:
        """The server was silent for too long."""
        self._fail(FailureKind.TIMEOUT)

    def client_stalled(self) -> None:
        """The client took nothing of its answer for too long."""
        self._fail(FailureKind.CLIENT_STALLED)

    def shutdown(self) -> None:
        """The balancer is stopping."""
        self._fail(FailureKind.STOPPING)

    def close_idle(self) -> None:
        """End an idle connection, which nobody can take from now on."""
        self.server.idle_connections.pop(self, None)
        self.close()

    def close(self) -> None:
        """End the connection at once, whatever it is doing."""
        if self.state != CLOSED:
            self.state = CLOSED
            self.transport.abortConnection()

    # What the transport does with it.

    def dataReceived(self, data: bytes) -> None:
        self.last_activity = self._ticker.now
        state = self.state
        if state == AWAITING_RESPONSE:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_head(data)
        elif state == READING_BODY:
            self._read_body(data)
        elif state == TUNNEL:
            if self.exchange is not None:
                self.exchange.tunnel_data(data)
        elif state == IDLE:
            # A response before any request; whose it would be nobody can say.
            self.close_idle()

    def readConnectionLost(self) -> None:
        self._server_closed(clean=True)

    def writeConnectionLost(self) -> None:
        """Half of a tunnel has ended; the other half goes on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server_closed(clean=False)
        self._owner.connection_closed(self)

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
        """The transport is going away, which `connectionLost` deals with."""

    # Reading responses.

    def _read_head(self, data: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        end = data.find(HEAD_END)
        if end < 0:
            self._read_partial_head(data)
            return
        try:
            if end > MAX_RESPONSE_HEAD:
                raise ResponseError("a head that is too large")
            head = self._parser.parse(data[: end + 2])
        except ResponseError as refused:
            self._fail(FailureKind.MALFORMED, str(refused))
            return
        if head.status < 200:
            self._read_informational(head, data[end + 4 :])
            return
        length = head.length
        if (head.status != OK or exchange.method == b"HEAD") and not has_body(
            exchange.method, head.status
        ):
            length = 0
        excess = len(data) - end - 4 - length
        if excess == 0 and length >= 0 and exchange.body_complete:
            # The whole of it at once, as most responses are.
            self._persistent = head.persistent
            self._complete_response(exchange)
            exchange.response_received(head, data[end + 4 :])
            return
        self._start_body(exchange, head, length, data[end + 4 :])

    def _read_partial_head(self, data: bytes) -> None:
        if len(data) > MAX_RESPONSE_HEAD:
            self._fail(FailureKind.MALFORMED, "a head that is too large")
        elif not data.startswith(b"HTTP/1."[: len(data)]) or b"\n" in data.replace(CRLF, b""):
            self._fail(FailureKind.MALFORMED, "bytes that are no head")
        else:
            self._buffer = data

    def _read_informational(self, head: ResponseHead, rest: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._informational_count += 1
        if head.status == 101:
            offered = list_items(exchange.upgrade)
            agreed = list_items(head.upgrade)
            if not agreed or not all(protocol in offered for protocol in agreed):
                self._fail(FailureKind.MALFORMED, "a 101 that nobody asked for")
                return
            self.state = TUNNEL
            exchange.upgraded(head)
            if rest and self.exchange is not None:
                exchange.tunnel_data(rest)
        elif self._informational_count > MAX_INFORMATIONAL_RESPONSES:
            self._fail(FailureKind.MALFORMED, "too many informational responses")
        else:
            exchange.informational_received(head)
            if rest and self.state == AWAITING_RESPONSE:
                self._read_head(rest)

    def _start_body(
        self, exchange: UpstreamRequest, head: ResponseHead, length: int, rest: bytes
    ) -> None:
        self.state = READING_BODY
        self._persistent = head.persistent and length != CLOSE_DELIMITED
        if length == CHUNKED:
            self._body = ChunkedReader()
        elif length == CLOSE_DELIMITED:
            self._body = CloseDelimitedReader()
        else:
            self._body = ContentLengthReader(length)
        exchange.response_started(head, length)
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
                # RFC 9112, 9.3: nothing after the end of a response is one.
                self._persistent = False
            self._complete_response(exchange)
            exchange.response_finished(content, body.trailers)
        elif content:
            exchange.response_data(content)

    def _complete_response(self, exchange: UpstreamRequest) -> None:
        """Part from the exchange, whose response has been read to its end."""
        self.exchange = None
        exchange.connection = None
        self._body = None
        self._informational_count = 0
        if self._persistent and self.transport.nothing_buffered:
            # `nothing_buffered`: nothing of a request is left to be sent.
            self.state = IDLE
            if self.paused:
                self.resume_reading()
            self._owner.release(self)
        else:
            self.close()

    # Ends.

    def _fail(self, kind: FailureKind, detail: str = "") -> None:
        """Close, and tell the exchange that its response will not come (or end)."""
        exchange, state = self.exchange, self.state
        self.exchange = None
        self.close()
        if exchange is None:
            return
        exchange.connection = None
        text = f"{self.server.name} {kind.value}"
        failure = UpstreamFailure(kind, f"{text}: {detail}" if detail else text)
        if state == AWAITING_RESPONSE:
            exchange.upstream_failed(failure)
        else:
            exchange.response_aborted(failure)

    def _server_closed(self, clean: bool) -> None:
        """The server sends no more; `clean` if it said so in order."""
        state = self.state
        if state == TUNNEL:
            self._tunnel_ended(clean)
        elif state == AWAITING_RESPONSE:
            stale = self.reused and not self._buffer and not self._informational_count
            self._fail(FailureKind.STALE if stale else FailureKind.CLOSED)
        elif state == READING_BODY:
            exchange = self.exchange
            if clean and isinstance(self._body, CloseDelimitedReader) and exchange is not None:
                self._persistent = False
                self._complete_response(exchange)
                exchange.response_finished(b"", b"")
            else:
                self._fail(FailureKind.CLOSED)
        elif state == IDLE:
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
        """Both ways are over for the exchange; what was written may still go out."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.connection = None
