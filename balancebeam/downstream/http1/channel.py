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

from balancebeam.core.errors import RequestRefused
from balancebeam.core.ip import pack_client
from balancebeam.downstream.http1.exchange import HttpExchange
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.transport import tune
from balancebeam.protocols.http1 import local_reply as answers
from balancebeam.protocols.http1.body import (
    BodyError,
    ChunkedReader,
    LengthReader,
    chunk,
    last_chunk,
)
from balancebeam.protocols.http1.grammar import CRLF, HEAD_END
from balancebeam.protocols.http1.request_head import MAX_HEAD, check_part
from balancebeam.protocols.http1.request_rules import NO_EXTRAS, RequestHead
from balancebeam.protocols.proxy_protocol import ProxiedConnection
from balancebeam.proxy.exchange import BUFFER, Fields
from balancebeam.proxy.forwarding import Forwarder
from balancebeam.proxy.rejected import UnreadRequest, first_line

if TYPE_CHECKING:
    from balancebeam.downstream.http1.factory import BalancerSite
    from balancebeam.proxy.dispatcher import BalancerResource

HEADS, BODY, DISCARDING, ANSWERING, TUNNEL, LINGERING, CLOSING, CLOSED = range(8)


@implementer(IHalfCloseableProtocol, IPushProducer)
class HttpChannel(Protocol):
    """
    One client's connection.

    `state` says what arriving bytes are: `HEADS` a request's head, `BODY` its
    body, `DISCARDING` the rest of one that was answered already, `ANSWERING`
    requests that have to wait, `TUNNEL` anything, `LINGERING` nothing any
    more. `quiet_since` and `head_since` are on the
    ticker; `head_since` is when the head that is being read began, `None`
    between requests. `half_over` is a tunnel of which one side has ended;
    `flushed` tells that all is out when lingering; `outstanding` is what was
    not, at the last sweep.
    """

    transport: StreamTransport  # type: ignore[assignment]
    # The connection of which a PROXY header told.
    came_by: ProxiedConnection | None = None

    def __init__(self, site: BalancerSite, peer: str, trusted: bool) -> None:
        self.site = site
        self.client = peer
        self.client_key = pack_client(peer)
        self.exchange: HttpExchange | None = None
        self.state = HEADS
        self.half_closed = False
        self.backlogged = False
        self.reading = True
        self.quiet_since = site.ticker.now
        self._ticker = site.ticker
        self._heads = site.heads
        self._forwarder = Forwarder(peer, trusted, site.onward)
        self._buffer = b""
        self.head_since: float | None = site.ticker.now
        self._advancing = False
        # How far the beginning of a head in `_buffer` has been checked.
        self._checked = 0
        self.half_over = False
        self.flushed = False
        self.outstanding: int | None = None
        self._body: LengthReader | ChunkedReader | None = None
        self._received = 0

    def connectionMade(self) -> None:
        tune(self.transport)
        self.transport.registerProducer(self, True)
        self.site.channels.add(self)

    def meet(self, trusted: bool) -> None:
        """What is known of the client, and told of it, may have changed."""
        self._forwarder = Forwarder(self.client, trusted, self.site.onward)

    # Bytes from the client.

    def dataReceived(self, data: bytes) -> None:
        state = self.state
        if state != LINGERING:
            self.quiet_since = self._ticker.now
        if state == HEADS:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            self._read_heads(data)
        elif state == BODY:
            self._read_body(data)
        elif state == ANSWERING:
            self._buffer += data
            if len(self._buffer) > BUFFER:
                self.pause_reading()
        elif state == TUNNEL:
            exchange = self.exchange
            if exchange is not None and exchange.connection is not None:
                exchange.connection.send_body(data)
        elif state == DISCARDING:
            self._discard(data)

    def _read_heads(self, data: bytes) -> None:
        """Take requests from `data` for as long as they can be answered at once."""
        if self.backlogged:
            # The client does not read its answers; it gets no new ones.
            self._buffer = data
            if len(data) > BUFFER:
                self.pause_reading()
            return
        self._advancing = True
        forwarder, site = self._forwarder, self.site
        while True:
            end = data.find(HEAD_END)
            if end < 0 or end > MAX_HEAD:
                self._read_part_of_head(data)
                break
            try:
                head = self._heads.read(data[: end + 2])
            except RequestRefused as refused:
                if data.startswith(CRLF) and data[2:4] != CRLF:
                    # RFC 9112, 2.2: "a server that is expecting to receive and
                    # parse a request-line SHOULD ignore at least one empty line".
                    data = data[2:]
                    continue
                self._refuse(refused, data)
                break
            self.head_since = None
            self._checked = 0
            table = site.table
            route = site.default if table is None else table.find(head.host, head.target)
            if head.extras is NO_EXTRAS and head.length >= 0 and head.minor and forwarder.usual:
                if head.host is not forwarder.host:
                    forwarder.address(head.host)
                exchange = HttpExchange(self, route.spine, head, head.wire + forwarder.plain)
            else:
                exchange = self._unusual_exchange(route.spine, head)
            self.exchange = exchange
            if head.length == 0:
                self.state = ANSWERING
                self._buffer = data[end + 4 :]
            elif not self._begin_body(exchange, head, data[end + 4 :]):
                break
            route.entry.forward(exchange, route.limiter)
            if self.state != HEADS or self.backlogged:
                break
            data, self._buffer = self._buffer, b""
            if not data:
                self._await_request()
                break
        self._advancing = False

    def _unusual_exchange(self, spine: BalancerResource, head: RequestHead) -> HttpExchange:
        forwarder, site = self._forwarder, self.site
        exchange = HttpExchange(self, spine, head, forwarder.unusual(head, self.transport))
        exchange.last_hop = head.last_hop
        if forwarder.trusted:
            exchange.client = site.trusted.client_of(self.client, head)
        return exchange

    def _read_part_of_head(self, data: bytes) -> None:
        """Keep the beginning of a head, unless it can no longer become one."""
        try:
            self._checked = check_part(data, self._checked)
        except RequestRefused as refused:
            self._refuse(refused, data)
            return
        if self.half_closed:
            self.lose()
            return
        self._buffer = data
        if self.head_since is None and data not in (b"\r", CRLF):
            self.head_since = self._ticker.now

    # Bodies of requests.

    def _begin_body(self, exchange: HttpExchange, head: RequestHead, data: bytes) -> bool:
        """Read what of the body came with the head; false if it was refused."""
        limit = self.site.max_body
        if limit is not None and head.length > limit:
            self.exchange = None
            line = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor)
            self._refuse(RequestRefused(413, "the request body is too large"), line)
            return False
        self._body = ChunkedReader() if head.length < 0 else LengthReader(head.length)
        self._received = 0
        self.state = BODY
        exchange.expect_body()
        if data:
            self._read_body(data)
        return self.state in (BODY, ANSWERING)

    def _read_body(self, data: bytes) -> None:
        body, exchange = self._body, self.exchange
        assert body is not None and exchange is not None
        try:
            content = body.feed(data)
        except BodyError as error:
            self._break_off(exchange, RequestRefused(400, str(error)))
            return
        self._received += len(content)
        limit = self.site.max_body
        if limit is not None and self._received > limit:
            self._break_off(exchange, RequestRefused(413, "the request body is too large"))
            return
        if exchange.head.length < 0:
            wire = chunk(content) if content else b""
            if body.complete:
                wire += last_chunk(body.trailers)
        else:
            wire = content
        if body.complete:
            self.state = ANSWERING
            self._buffer = body.excess
            self._body = None
        exchange.upload(wire, body.complete)

    def _break_off(self, exchange: HttpExchange, refused: RequestRefused) -> None:
        """The body cannot be read to its end: neither server nor client go on."""
        self.exchange = None
        responded = exchange.responded
        if not responded:
            # What the client gets, for who keeps count.
            exchange.status = refused.status
        exchange.client_gone()
        if responded:
            self.abort()
        else:
            self._say_why(refused, exchange.method == b"HEAD")
            self._linger()

    def may_discard(self) -> bool:
        """Whether what is left of the body is so little that it can be read for nothing."""
        body = self._body
        if self.state != BODY or body is None:
            return False
        return isinstance(body, ChunkedReader) or body.remaining <= BUFFER

    def _discard(self, data: bytes) -> None:
        """Read on to the end of a body that nobody wants, where the next request begins."""
        body = self._body
        assert body is not None
        try:
            body.feed(data)
        except BodyError:
            self._linger()
            return
        self._received += len(data)
        if body.complete:
            self.state = HEADS
            self.head_since = None
            self._buffer = body.excess
            self._body = None
            self._continue()
        elif self._received > BUFFER:
            self._linger()

    # Answers.

    def say(
        self, status: int, body: bytes, fields: Fields, bodyless: bool, persistent: bool
    ) -> None:
        """Write an answer of the proxy's own."""
        now = self._ticker.time()
        self.transport.write(answers.own_answer(status, body, fields, bodyless, persistent, now))

    def _refuse(self, refused: RequestRefused, data: bytes) -> None:
        """Answer a request that could not be read from `data`, and read no other."""
        octets = self._say_why(refused, _asks_for_head(data))
        status, reason = refused.status, refused.reason
        self.site.refused(UnreadRequest(self.client, first_line(data), status, reason, octets))
        self._linger()

    def _say_why(self, refused: RequestRefused, bodyless: bool) -> int:
        """Answer what goes no further; returns the length of the body."""
        body = answers.error_body(refused.reason)
        self.say(refused.status, body, (), bodyless, persistent=False)
        return 0 if bodyless else len(body)

    def exchange_done(self, persistent: bool) -> None:
        """The exchange's response has been written; go on with what comes next."""
        self.exchange = None
        if persistent and self.state == BODY:
            self.state = DISCARDING
            self._received = 0
            self.head_since = self._ticker.now
            self.resume_reading()
            return
        if not persistent:
            if self.state == ANSWERING and not self._buffer:
                self.lose()
            else:
                self._linger()
            return
        self.state = HEADS
        self.quiet_since = self._ticker.now
        if not self._advancing and (self._buffer or self.half_closed or not self.reading):
            self._continue()

    def _continue(self) -> None:
        """Read the requests that had to wait, if any."""
        if not self.reading:
            self.resume_reading()
        data, self._buffer = self._buffer, b""
        if data:
            self._read_heads(data)
        else:
            self._await_request()

    def _await_request(self) -> None:
        if self.half_closed:
            self.lose()

    def open_tunnel(self) -> None:
        """From here on bytes pass both ways as they are."""
        self.state = TUNNEL
        data, self._buffer = self._buffer, b""
        if not self.reading:
            self.resume_reading()
        if data:
            self.dataReceived(data)
        if self.half_closed:
            self._end_upstream()

    def _end_upstream(self) -> None:
        """Tell the server that the client sends no more through the tunnel."""
        self.half_over = True
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.end_tunnel()

    def end_tunnel(self) -> None:
        """The server sends no more; the client may still."""
        over, self.half_over = self.half_over, True
        self.transport.unregisterProducer()
        if over:
            self.lose()
        else:
            self.transport.loseWriteConnection()

    # Ends.

    def lose(self) -> None:
        """Close when everything that was written is out."""
        if self.state not in (CLOSING, CLOSED):
            self.state = CLOSING
            self.quiet_since = self._ticker.now
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def _linger(self) -> None:
        """Say that nothing more comes, and listen a little longer."""
        if self.state in (CLOSING, CLOSED):
            return
        if self.half_closed:
            self.lose()
            return
        self.state = LINGERING
        self._buffer = b""
        self.quiet_since = self._ticker.now
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
            exchange.client_gone()
        self.state = CLOSED
        self.transport.abortConnection()

    def readConnectionLost(self) -> None:
        self.half_closed = True
        self.quiet_since = self._ticker.now
        state = self.state
        if state in (HEADS, LINGERING, DISCARDING):
            if not (state == HEADS and self._buffer and self.backlogged):
                self.lose()
        elif state == BODY:
            self.abort()
        elif state == TUNNEL:
            over = self.half_over
            self._end_upstream()
            if over:
                self.lose()

    def writeConnectionLost(self) -> None:
        """Everything we had to say is out; the client may still speak."""
        self.flushed = True
        self.backlogged = False
        self.quiet_since = self._ticker.now

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.state = CLOSED
        self.site.channels.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    @property
    def silent(self) -> bool:
        """Whether nothing has come of the next request."""
        return self._buffer in (b"", b"\r", CRLF)

    @property
    def responded(self) -> bool:
        """Whether the response to the request in progress has begun."""
        return self.exchange is not None and self.exchange.responded

    # Too slow, says the sweep.

    def head_too_slow(self) -> None:
        """The head that is being read takes too long."""
        if not self.silent:
            self._refuse(RequestRefused(408, "the request head is too slow"), self._buffer)
        else:
            # Browsers open connections ahead of need. One that never said
            # anything is owed no answer.
            self.lose()

    def body_too_slow(self) -> None:
        """Nothing has come of the body for too long."""
        exchange = self.exchange
        if exchange is not None and not exchange.awaits_continue:
            self._break_off(exchange, RequestRefused(408, "the request body is too slow"))

    # Backpressure. As a producer, this is paused while the client takes no more.

    def pauseProducing(self) -> None:
        if not self.backlogged:
            self.backlogged = True
            self.quiet_since = self._ticker.now
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.pause_reading()

    def resumeProducing(self) -> None:
        self.backlogged = False
        self.quiet_since = self._ticker.now
        exchange = self.exchange
        if exchange is not None:
            if exchange.connection is not None:
                exchange.connection.resume_reading()
        elif self.state == HEADS:
            self._continue()

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
            self.quiet_since = self._ticker.now
            self.transport.resumeProducing()


def _asks_for_head(data: bytes) -> bool:
    """Whether a request that could not be read is a HEAD, which gets no body."""
    return data[:7].lstrip(CRLF).startswith(b"HEAD ")
