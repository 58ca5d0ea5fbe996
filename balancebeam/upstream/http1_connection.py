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
    BodyError,
    ChunkedReader,
    ContentLengthReader,
    CloseDelimitedReader,
)
from balancebeam.protocols.http1.grammar import CRLF, HEAD_END, list_items
from balancebeam.protocols.http1.response_head import (
    CHUNKED,
    MAX_RESPONSE_HEAD,
    CLOSE_DELIMITED,
    ResponseHead,
    ResponseHeadParser,
    has_body,
)
from balancebeam.upstream.interfaces import Asker, Keeper
from balancebeam.upstream.server_set import Server

Body = Union[ContentLengthReader, ChunkedReader, CloseDelimitedReader]

# RFC 9110, 15.2: a client must be able to parse any number of them, but a
# server that sends more than these is not answering.
MAX_INFORMATIONAL = 100

OK = 200


IDLE, WAITING, BODY, TUNNEL, CLOSED = range(5)


@implementer(IHalfCloseableProtocol, IPushProducer)
class UpstreamConnection(Protocol):
    """
    Sends a request, reads one response, and is then idle or closed.

    `last_activity` is when bytes last went either way, on the ticker. `pooled`
    tells that it has been idle, so that the server may have closed it.
    """

    transport: StreamTransport  # type: ignore[assignment]
    # Whether it began with a client's address, and so is for no other.
    for_one = False
    # Whether the kernel finds out if the server is gone.
    kept_alive = False

    def __init__(
        self, server: Server, keeper: Keeper, parser: ResponseHeadParser, ticker: Ticker
    ) -> None:
        self.server = server
        self.exchange: Asker | None = None
        self.state = IDLE
        self.last_activity = ticker.now
        self.pooled = False
        self.paused = False
        self._keeper = keeper
        self._parser = parser
        self._ticker = ticker
        self._buffer = b""
        self._persistent = True
        self._informational = 0
        self._backlogged = False
        self._outstanding = 0
        self._read_ended = False
        self._write_ended = False
        self._body: Body | None = None

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)

    # What an exchange does with it.

    def send(self, exchange: Asker) -> None:
        """Send the request; the exchange hears what becomes of it."""
        self.exchange = exchange
        exchange.connection = self
        self.state = WAITING
        self.last_activity = self._ticker.now
        if exchange.pending:
            pending, exchange.pending = exchange.pending, ()
            self.transport.write(exchange.wire + b"".join(pending))
            if not self._backlogged:
                exchange.resume_upload()
        else:
            self.transport.write(exchange.wire)

    def send_body(self, data: bytes) -> None:
        """Send more of the request's body, or bytes through the tunnel."""
        self.last_activity = self._ticker.now
        self.transport.write(data)

    def end_tunnel(self) -> None:
        """The client sends no more through the tunnel."""
        self._write_ended = True
        self.transport.unregisterProducer()
        if self._read_ended:
            self._leave_tunnel()
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
        if self.state == TUNNEL and self._write_ended:
            # What the client said before it left is still on its way.
            self.transport.loseConnection()
        else:
            self.close()

    def progressed(self, now: float) -> bool:
        """Whether the server has taken something since this was asked last."""
        outstanding = self.transport.unacked_bytes()
        if outstanding == self._outstanding:
            return False
        self._outstanding = outstanding
        self.last_activity = now
        return True

    def time_out(self) -> None:
        """The server was silent for too long."""
        self._fail(FailureKind.TIMEOUT)

    def give_up_client(self) -> None:
        """The client took nothing of its answer for too long."""
        self._fail(FailureKind.CLIENT_STALLED)

    def shut_down(self) -> None:
        """The balancer is stopping."""
        self._fail(FailureKind.STOPPING)

    def leave_pool(self) -> None:
        """End an idle connection, which nobody can take from now on."""
        self.server.idle.pop(self, None)
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
        if state == WAITING:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_head(data)
        elif state == BODY:
            self._read_body(data)
        elif state == TUNNEL:
            if self.exchange is not None:
                self.exchange.tunnel_data(data)
        elif state == IDLE:
            # A response before any request; whose it would be nobody can say.
            self.leave_pool()

    def readConnectionLost(self) -> None:
        self._ended(clean=True)

    def writeConnectionLost(self) -> None:
        """Half of a tunnel has ended; the other half goes on."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended(clean=False)
        self._keeper.gone(self)

    def pauseProducing(self) -> None:
        self._backlogged = True
        self._outstanding = self.transport.unacked_bytes()
        if self.exchange is not None:
            self.exchange.pause_upload()

    def resumeProducing(self) -> None:
        self._backlogged = False
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
            self._read_part_of_head(data)
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
            self._release(exchange)
            exchange.respond_whole(head, data[end + 4 :])
            return
        self._begin_body(exchange, head, length, data[end + 4 :])

    def _read_part_of_head(self, data: bytes) -> None:
        if len(data) > MAX_RESPONSE_HEAD:
            self._fail(FailureKind.MALFORMED, "a head that is too large")
        elif not data.startswith(b"HTTP/1."[: len(data)]) or b"\n" in data.replace(CRLF, b""):
            self._fail(FailureKind.MALFORMED, "bytes that are no head")
        else:
            self._buffer = data

    def _read_informational(self, head: ResponseHead, rest: bytes) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._informational += 1
        if head.status == 101:
            offered = list_items(exchange.upgrade)
            agreed = list_items(head.upgrade)
            if not agreed or not all(protocol in offered for protocol in agreed):
                self._fail(FailureKind.MALFORMED, "a 101 that nobody asked for")
                return
            self.state = TUNNEL
            exchange.switch(head)
            if rest and self.exchange is not None:
                exchange.tunnel_data(rest)
        elif self._informational > MAX_INFORMATIONAL:
            self._fail(FailureKind.MALFORMED, "too many informational responses")
        else:
            exchange.informational(head)
            if rest and self.state == WAITING:
                self._read_head(rest)

    def _begin_body(self, exchange: Asker, head: ResponseHead, length: int, rest: bytes) -> None:
        self.state = BODY
        self._persistent = head.persistent and length != CLOSE_DELIMITED
        if length == CHUNKED:
            self._body = ChunkedReader()
        elif length == CLOSE_DELIMITED:
            self._body = CloseDelimitedReader()
        else:
            self._body = ContentLengthReader(length)
        exchange.respond(head, length)
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
            self._release(exchange)
            exchange.finish(content, body.trailers)
        elif content:
            exchange.relay(content)

    def _release(self, exchange: Asker) -> None:
        """Part from the exchange, whose response has been read to its end."""
        self.exchange = None
        exchange.connection = None
        self._body = None
        self._informational = 0
        if self._persistent and self.transport.nothing_buffered:
            # `nothing_buffered`: nothing of a request is left to be sent.
            self.state = IDLE
            if self.paused:
                self.resume_reading()
            self._keeper.keep(self)
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
        if state == WAITING:
            exchange.upstream_failed(failure)
        else:
            exchange.cut(failure)

    def _ended(self, clean: bool) -> None:
        """The server sends no more; `clean` if it said so in order."""
        state = self.state
        if state == TUNNEL:
            self._tunnel_ended(clean)
        elif state == WAITING:
            stale = self.pooled and not self._buffer and not self._informational
            self._fail(FailureKind.STALE if stale else FailureKind.CLOSED)
        elif state == BODY:
            exchange = self.exchange
            if clean and isinstance(self._body, CloseDelimitedReader) and exchange is not None:
                self._persistent = False
                self._release(exchange)
                exchange.finish(b"", b"")
            else:
                self._fail(FailureKind.CLOSED)
        elif state == IDLE:
            self.leave_pool()

    def _tunnel_ended(self, clean: bool) -> None:
        self._read_ended = True
        exchange = self.exchange
        if not clean or self._write_ended:
            self._leave_tunnel()
            if clean:
                self.transport.loseConnection()
            else:
                self.state = CLOSED
        if exchange is not None:
            exchange.tunnel_ended(clean)

    def _leave_tunnel(self) -> None:
        """Both ways are over for the exchange; what was written may still go out."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.connection = None
