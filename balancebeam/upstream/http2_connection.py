"""
One HTTP/2 connection to a server, shared by many exchanges.

Each exchange has an `Http2Stream`. The connection owns the transport and the frames; it is among
the idle connections of its server while it has a stream free for another exchange.
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.failures import FailureKind
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.socket_options import set_socket_options
from balancebeam.net.ticker import Ticker
from balancebeam.net.transport import batch_scheduler
from balancebeam.protocols.http1.grammar import list_items
from balancebeam.protocols.http2.errors import (
    CANCEL,
    NO_ERROR,
    REFUSED_STREAM,
    Http2ConnectionError,
    error_name,
)
from balancebeam.protocols.http2.frames import (
    MAX_STREAM_ID,
    encode_goaway,
    encode_ping,
    encode_rst_stream,
)
from balancebeam.protocols.http2.output import FrameOutput
from balancebeam.upstream.failure_reasons import tls_error_text
from balancebeam.upstream.http2_input import ResponseReader
from balancebeam.upstream.http2_shared import (
    CLIENT_PREFACE,
    Http2HandshakeError,
    Http2Shared,
    PendingAttempt,
)
from balancebeam.upstream.http2_stream import Http2Stream
from balancebeam.upstream.http2_tunnel import WEBSOCKET
from balancebeam.upstream.interfaces import ConnectionOwner, UpstreamRequest
from balancebeam.upstream.server import Server
from balancebeam.upstream.tls_handshake import tls_of

# Bytes of control frames (acknowledgements of PING and SETTINGS) that may wait while the server
# does not read; above it, the connection is closed.
MAX_CONTROL_BYTES = 16 * 1024


@implementer(IHalfCloseableProtocol, IPushProducer)
class Http2Connection(Protocol):
    """
    A connection to a server.

    Attributes:
        server: The server.
        streams: The streams that are not closed, by identifier.
        next_id: The identifier of the next stream.
        output: Sends frames.
        closing: The connection is closed, or about to be: input is ignored.
        leaving: No further stream may be opened.
        reused: A stream has ended before, so the server may close the connection meanwhile.
        single_use: See `Connection`.
        keepalive_enabled: See `Connection`.
        session_saved: The session of TLS was kept for further connections.
        last_received: When bytes were last received, on the ticker.
        unacked_bytes: The output that the server had not acknowledged when it was last measured.
        ping_sent_at: When the PING was sent that was not followed by any bytes; `None` without it.
    """

    log = Logger()
    # Twisted declares ITransport, which lacks what StreamTransport adds.
    transport: StreamTransport  # type: ignore[assignment]
    output: FrameOutput
    single_use = False
    keepalive_enabled = False
    closing = False
    leaving = False
    reused = False
    ping_sent_at: float | None = None
    session_saved = False
    # The reason of a failed TLS connection, or of the server's GOAWAY.
    _detail = ""
    unacked_bytes = 0

    def __init__(
        self,
        server: Server,
        owner: ConnectionOwner[Http2Connection],
        shared: Http2Shared,
        ticker: Ticker,
        attempt: PendingAttempt,
    ) -> None:
        self.server = server
        self.streams: dict[int, Http2Stream] = {}
        self._owner = owner
        self._shared = shared
        self._encoder = shared.encoder
        self._ticker = ticker
        self._attempt: PendingAttempt | None = attempt
        self.next_id = 1
        self._input = ResponseReader(ticker.now, shared.tables)
        self.last_received = ticker.now
        # Batches of input, which distinguish streams sent before and after them.
        self._batch = 0
        # Streams whose response began in this batch.
        self._delayed: list[Http2Stream] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} to {self.server.name} with {len(self.streams)} streams>"

    @property
    def now(self) -> float:
        """The time on the ticker."""
        return self._ticker.now

    @property
    def available(self) -> bool:
        """Whether another stream may be opened."""
        return (
            not self.leaving
            and self.ping_sent_at is None
            and len(self.streams) < self._input.max_streams
        )

    def connectionMade(self) -> None:
        transport, attempt = self.transport, self._attempt
        assert attempt is not None
        set_socket_options(transport)
        transport.registerProducer(self, True)
        self.output = FrameOutput(transport.write, batch_scheduler(transport))
        header = b""
        if tls_of(transport) is None:
            header = attempt.encode_proxy_header()
        else:
            self._encoder = self._shared.secure_encoder
        transport.write(header + CLIENT_PREFACE)
        attempt.preface_sent(self)

    # PooledConnection

    def send(self, exchange: UpstreamRequest) -> None:
        """Open a stream for `exchange`, and report to it."""
        stream_id, streams = self.next_id, self.streams
        stream = Http2Stream(self, exchange, stream_id, self._batch)
        upgrade = bool(exchange.upgrade) and list_items(exchange.upgrade) == [WEBSOCKET]
        if upgrade and not self._input.accepts_tunnels:
            self._list()
            stream.fail(FailureKind.NO_UPGRADE, "", self.server.name, nothing_sent=True)
            return
        self.next_id = stream_id + 2
        if not streams:
            # The time without streams is no silence of the server.
            self.last_received = self._ticker.now
        streams[stream_id] = stream
        exchange.connection = stream
        if self.single_use or self.next_id > MAX_STREAM_ID:
            self.leaving = True
        self._list()
        if upgrade:
            stream.start_tunnel(*self._encoder.encode_connect(exchange.upstream_head, WEBSOCKET))
        else:
            stream.start(self._encoder.encode(exchange.upstream_head))

    def _list(self) -> None:
        """Be among the idle connections of the server while a stream is free."""
        if self.available:
            self.server.idle_connections[self] = None
        else:
            self.server.idle_connections.pop(self, None)

    def close_idle(self) -> None:
        """Open no further stream, and close once the streams have ended."""
        self.leaving = True
        self.server.idle_connections.pop(self, None)
        if not self.streams:
            self.close()

    # StreamOwner

    def stream_ended(self, stream: Http2Stream) -> None:
        if not stream.local_closed:
            # RFC 9113, 8.1: the server needs no more of the request.
            self._reset(stream, CANCEL)
        self._forget(stream)

    def cancel_stream(self, stream: Http2Stream) -> None:
        self._reset(stream, CANCEL)
        self._forget(stream)

    def delay_response(self, stream: Http2Stream) -> None:
        self._delayed.append(stream)

    def _reset(self, stream: Http2Stream, code: int) -> None:
        self.output.drop_queue(stream)
        if stream.stream_id in self.streams:
            self.output.append(encode_rst_stream(stream.stream_id, code))

    def _forget(self, stream: Http2Stream) -> None:
        """Remove a stream, and offer its place to the next exchange."""
        if self.streams.pop(stream.stream_id, None) is None or self.closing:
            return
        self.reused = True
        if self.leaving:
            if not self.streams:
                self.close()
        elif not self.streams or self not in self.server.idle_connections:
            self._owner.release(self)

    # ResponseConnection

    def settings_changed(self) -> None:
        if self._attempt is None and self.server.max_idle:
            if self.available and self not in self.server.idle_connections:
                self._owner.release(self)
            else:
                self._list()

    def fail_stream(self, stream: Http2Stream, code: int, reason: str) -> None:
        self._reset(stream, code)
        self._forget(stream)
        stream.fail(FailureKind.MALFORMED, reason, self.server.name)

    def stream_reset(self, stream: Http2Stream, code: int) -> None:
        self.output.drop_queue(stream)
        self._forget(stream)
        if code == REFUSED_STREAM and not stream.begun:
            self._refuse((stream,), "")
        else:
            stream.fail(FailureKind.STREAM_RESET, error_name(code), self.server.name)

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        self.leaving = True
        self.server.idle_connections.pop(self, None)
        if code != NO_ERROR:
            self._detail = f"GOAWAY: {error_name(code)}"
        # RFC 9113, 6.8: the server "might not have processed" none of them.
        refused = [stream for number, stream in self.streams.items() if number > last_stream_id]
        self._refuse(refused, "GOAWAY")
        if not self.streams and self._attempt is None:
            self.close()

    def _refuse(self, refused: Sequence[Http2Stream], detail: str) -> None:
        """Fail requests that the server has not processed."""
        for stream in refused:
            self.output.drop_queue(stream)
            self.streams.pop(stream.stream_id, None)
        for stream in refused:
            stream.fail(FailureKind.REFUSED, detail, self.server.name, nothing_sent=True)

    # Protocol, IHalfCloseableProtocol

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        self.last_received = self._ticker.now
        self._batch += 1
        if self.ping_sent_at is not None:
            self.ping_sent_at = None
            self._list()
        try:
            self._input.read(self, data)
        except Http2ConnectionError as error:
            self._fail_connection(error)
            return
        if self._delayed:
            delayed, self._delayed = self._delayed, []
            for stream in delayed:
                stream.deliver()
        if self._input.settings is not None and self._attempt is not None and not self.closing:
            attempt, self._attempt = self._attempt, None
            attempt.connected(self)
        if self.output.blocked and self.output.control_bytes > MAX_CONTROL_BYTES:
            self.fail(FailureKind.MALFORMED, "too many control frames")

    def _fail_connection(self, error: Http2ConnectionError) -> None:
        """Close for an error of the server, which fails all exchanges."""
        self.log.debug(
            "connection to {server} closed: {error}", server=self.server.name, error=error
        )
        self._close_with(error.code, error.reason)
        if self._attempt is not None:
            self._fail_handshake(f"no HTTP/2 connection: {error.reason}")
        self._fail_all(FailureKind.MALFORMED, str(error))

    def readConnectionLost(self) -> None:
        self._server_closed(clean=True, detail=self._detail)
        if not self.closing:
            self.close()

    def writeConnectionLost(self) -> None:
        """Do nothing: this side is never half-closed."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._server_closed(clean=False, detail=tls_error_text(reason) or self._detail)
        self.closing = True
        self._owner.connection_closed(self)

    def _server_closed(self, clean: bool, detail: str) -> None:
        """The server has closed its side; `clean` with a FIN, not with a reset or an error."""
        self.leaving = True
        self.server.idle_connections.pop(self, None)
        if self._attempt is not None:
            self._fail_handshake("connection closed before SETTINGS")
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            kind = FailureKind.CLOSED if stream.begun or clean else FailureKind.RESET
            if self.reused and not stream.begun and stream.batch == self._batch:
                # Nothing was received since the request was sent: the server may have closed
                # the connection before it was.
                kind = FailureKind.STALE
            self.output.drop_queue(stream)
            stream.fail(kind, detail, self.server.name)

    # The end of the connection

    def _fail_handshake(self, text: str) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.handshake_failed(Http2HandshakeError(text))

    def abort_handshake(self, text: str) -> None:
        """Close before the server has sent SETTINGS; the attempt fails with `text`."""
        self.abort()
        self._fail_handshake(text)

    def _fail_all(self, kind: FailureKind, detail: str) -> None:
        streams = list(self.streams.values())
        self.streams.clear()
        for stream in streams:
            self.output.drop_queue(stream)
        for stream in streams:
            stream.fail(kind, detail, self.server.name)

    def shutdown(self) -> None:
        """Fail all requests: the balancer stops."""
        self.fail(FailureKind.STOPPING, "")

    def cancel(self, stream: Http2Stream, kind: FailureKind) -> None:
        """Fail a request whose timeout has expired; the connection stays."""
        self._reset(stream, CANCEL)
        self._forget(stream)
        stream.fail(kind, "", self.server.name)

    def ping(self) -> None:
        """Send PING; until the server responds, other exchanges get another connection."""
        self.ping_sent_at = self._ticker.now
        self.output.append(encode_ping(b"liveness"))
        self.server.idle_connections.pop(self, None)

    def fail(self, kind: FailureKind, detail: str) -> None:
        """Fail all requests, and reset the connection."""
        self.leaving = True
        self._fail_all(kind, detail)
        self.abort()

    def close(self) -> None:
        """Send GOAWAY, and close once everything is written; no stream is open."""
        self._close_with(NO_ERROR, "")

    def _close_with(self, code: int, text: str) -> None:
        if self.closing:
            return
        self.leaving = self.closing = True
        self.server.idle_connections.pop(self, None)
        # The server opens no streams, so the last one is 0.
        self.output.append(encode_goaway(0, code, text.encode()))
        self.output.flush()
        if self.output.blocked or code:
            self.transport.abortConnection()
        else:
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Reset the connection; its streams have ended."""
        self.leaving = self.closing = True
        self.server.idle_connections.pop(self, None)
        self.transport.abortConnection()

    # IPushProducer

    def pauseProducing(self) -> None:
        self.unacked_bytes = self.transport.unacked_bytes()
        self.output.block()

    def resumeProducing(self) -> None:
        self.output.unblock()

    def stopProducing(self) -> None:
        """Do nothing: the transport is closed, and `connectionLost` follows."""
