"""
An HTTP/2 connection from a client.

The channel owns the transport, the streams and the end of the connection: GOAWAY, drain, timeouts.
`ClientFrameReader` processes the input, `FrameOutput` the output, and each stream is an
`Http2Exchange`.
"""

from __future__ import annotations

from collections.abc import Collection

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.ip import pack_address
from balancebeam.downstream.http2.context import MAX_HEADER_LIST_SIZE, Http2Context
from balancebeam.downstream.http2.exchange import Http2Exchange
from balancebeam.downstream.http2.frame_reader import ClientFrameReader
from balancebeam.downstream.http2.request_reader import MAX_CONCURRENT_STREAMS as MAX_STREAMS
from balancebeam.downstream.http2.timeouts import (
    EARLY_RESPONSE_DELAY,
    FINAL_GOAWAY_DELAY,
    LINGERING_TIMEOUT,
    check_streams,
)
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.socket_options import set_socket_options
from balancebeam.net.transport import batch_scheduler, unacked_bytes
from balancebeam.protocols.http2.errors import NO_ERROR, Http2ConnectionError
from balancebeam.protocols.http2.frames import (
    DEFAULT_WINDOW_SIZE,
    MAX_STREAM_ID,
    encode_goaway,
    encode_rst_stream,
)
from balancebeam.protocols.http2.output import FrameOutput
from balancebeam.protocols.http2.settings import (
    ENABLE_CONNECT_PROTOCOL,
    INITIAL_WINDOW_SIZE,
    MAX_CONCURRENT_STREAMS,
    encode_settings,
)
from balancebeam.protocols.http2.settings import MAX_HEADER_LIST_SIZE as MAX_LIST_SETTING
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.tls.interfaces import TlsInfo

SERVER_SETTINGS = encode_settings(
    (
        (MAX_CONCURRENT_STREAMS, MAX_STREAMS),
        (INITIAL_WINDOW_SIZE, DEFAULT_WINDOW_SIZE),
        (MAX_LIST_SETTING, MAX_HEADER_LIST_SIZE),
        (ENABLE_CONNECT_PROTOCOL, 1),
    )
)

# For Via and Forwarded fields.
HTTP_VERSION = b"2.0"

# Bytes of control frames (acknowledgements of PING and SETTINGS, RST_STREAM) that may wait while
# the client does not read; above it, reading is paused.
MAX_CONTROL_BYTES = 16 * 1024

# Streams that were reset here and of which frames are still ignored: twice as many as can be open.
MAX_RECENT_RESETS = 2 * MAX_STREAMS


@implementer(IHalfCloseableProtocol, IPushProducer)
class Http2Channel(Protocol):
    """
    A client connection.

    Attributes:
        context: The shared state of the frontend.
        client: IP address of the peer.
        client_key: `client` in 4 or 16 bytes, the key of rate limits.
        proxy_info: Addresses from a PROXY protocol header, if there was one.
        tls: The result of the TLS handshake; `None` without TLS.
        output: Sends frames.
        streams: The streams that are not closed, by identifier.
        closing: Whether the connection ends: input is ignored.
        refusing: Whether the last GOAWAY was sent, so that no further stream is accepted.
        reading: Whether reading is not paused.
        last_activity: When bytes were last received, or the client last acknowledged bytes; on
            the ticker.
        goaway_at: When the drain began, on the ticker; `None` before.
    """

    log = Logger()
    transport: StreamTransport  # type: ignore[assignment]
    output: FrameOutput
    closing = False
    refusing = False
    reading = True
    goaway_at: float | None = None
    # Identifiers of streams that were reset here, the oldest first.
    _recent_resets: dict[int, None] | None = None
    # When streams without an exchange were rejected whose request continues, by identifier.
    _late_resets: dict[int, float] | None = None
    # Value of `unacked_bytes` at the last sweep that measured it.
    _last_unacked_bytes: int | None = None

    def __init__(
        self,
        context: Http2Context,
        peer: str,
        proxy_info: ProxyInfo | None = None,
        tls: TlsInfo | None = None,
    ) -> None:
        self.context = context
        self.client = peer
        self.client_key = pack_address(peer)
        self.proxy_info = proxy_info
        self.tls = tls
        self.streams: dict[int, Http2Exchange] = {}
        self._ticker = context.ticker
        self.last_activity = self._ticker.now
        forwarder = context.build_forwarder(peer, tls, HTTP_VERSION)
        self._reader = ClientFrameReader(context, forwarder, secure=tls is not None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client} with {len(self.streams)} streams>"

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)
        self.context.channels.add(self)
        self.output = FrameOutput(self.transport.write, batch_scheduler(self.transport))
        self.output.append(SERVER_SETTINGS)
        if self.context.draining:
            self.drain()

    def update_trust(self) -> None:
        """Apply changed trusted proxies and a changed forwarding policy to later requests."""
        forwarder = self.context.build_forwarder(self.client, self.tls, HTTP_VERSION)
        self._reader.forwarder = forwarder

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        self.last_activity = self._ticker.now
        try:
            self._reader.read(self, data)
        except Http2ConnectionError as error:
            self._fail(error)
            return
        if self.output.control_bytes > MAX_CONTROL_BYTES and self.output.blocked and self.reading:
            self.reading = False
            self.transport.pauseProducing()

    # StreamChannel, RequestChannel

    def response_sent(self, exchange: Http2Exchange) -> None:
        if not exchange.remote_closed:
            # `check_streams` sends RST_STREAM later, unless the client ends the stream itself.
            exchange.progress_at = self._ticker.now
            return
        self.streams.pop(exchange.stream_id, None)
        if self.refusing and not self.streams:
            self.close()

    def reset_stream(self, exchange: Http2Exchange, code: int) -> None:
        stream_id = exchange.stream_id
        self.output.drop_queue(exchange)
        if self.streams.pop(stream_id, None) is not None:
            self.remember_reset(stream_id)
            self.output.append(encode_rst_stream(stream_id, code))
        if self.refusing and not self.streams:
            self.close()

    def is_recently_reset(self, stream_id: int) -> bool:
        return self._recent_resets is not None and stream_id in self._recent_resets

    def remember_reset(self, stream_id: int) -> None:
        if self._recent_resets is None:
            self._recent_resets = {}
        elif len(self._recent_resets) >= MAX_RECENT_RESETS:
            del self._recent_resets[next(iter(self._recent_resets))]
        self._recent_resets[stream_id] = None

    def cancel_later(self, stream_id: int) -> None:
        self.remember_reset(stream_id)
        if self._late_resets is None:
            self._late_resets = {}
        self._late_resets[stream_id] = self._ticker.now

    def _cancel_late(self, late: dict[int, float], now: float) -> None:
        """Send RST_STREAM for rejected streams that the client has had time to end."""
        for stream_id, since in list(late.items()):
            if now - since >= EARLY_RESPONSE_DELAY:
                del late[stream_id]
                self.output.append(encode_rst_stream(stream_id, NO_ERROR))

    # The end of the connection

    def _fail(self, error: Http2ConnectionError) -> None:
        """End the connection for an error of the client."""
        self.log.debug("connection from {client} closed: {error}", client=self.client, error=error)
        last = self._reader.last_stream_id
        self._end_exchanges()
        self.output.append(encode_goaway(last, error.code, error.reason.encode()))
        self._start_lingering_close()

    def _end_exchanges(self) -> None:
        """Abandon all exchanges: their client is gone."""
        streams = list(self.streams.values())
        self.streams.clear()
        for exchange in streams:
            self.output.drop_queue(exchange)
            exchange.client_disconnected()

    def _start_lingering_close(self) -> None:
        """
        Send EOF, and ignore what the client still sends.

        Closing at once, with unread bytes, would send a reset, which can destroy the GOAWAY
        before the client has read it.
        """
        if self.closing:
            return
        self.closing = True
        self.last_activity = self._ticker.now
        self.output.flush()
        self.transport.unregisterProducer()
        if not self.reading:
            self.reading = True
            self.transport.resumeProducing()
        self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close when everything was written: no stream is open."""
        if self.closing:
            return
        if not self.refusing:
            self.refusing = True
            self.output.append(encode_goaway(self._reader.last_stream_id, NO_ERROR))
        self._start_lingering_close()

    def abort(self) -> None:
        """Reset the connection, and abandon its exchanges."""
        self.closing = True
        self._end_exchanges()
        self.transport.abortConnection()

    # ClientChannel

    @property
    def exchanges(self) -> Collection[Http2Exchange]:
        return self.streams.values()

    def drain(self) -> None:
        """
        Announce the end of the connection, which sweeps carry out.

        RFC 9113, 6.8: the first GOAWAY leaves the client time to notice it, because requests may
        be on their way.
        """
        if self.goaway_at is None and not self.closing:
            self.goaway_at = self._ticker.now
            self.output.append(encode_goaway(MAX_STREAM_ID, NO_ERROR))

    def shutdown(self) -> None:
        self.abort()

    def check_timeouts(self, now: float) -> None:
        """Close or abort the connection or streams whose timeout has expired; on the ticker."""
        timeouts = self.context.timeouts
        quiet = now - self.last_activity
        if self.closing or self.output.blocked:
            unacked = unacked_bytes(self.transport)
            if unacked != self._last_unacked_bytes:
                self._last_unacked_bytes = unacked
                if unacked:
                    self.last_activity = now
                    return
            if self.closing and not unacked:
                if quiet >= LINGERING_TIMEOUT:
                    self.transport.loseConnection()
                return
            if quiet >= timeouts.idle:
                self.abort()
            return
        if self._late_resets:
            self._cancel_late(self._late_resets, now)
        if self.streams:
            check_streams(self, now)
        try:
            incomplete = self._reader.check_timeouts(now, timeouts.header)
        except Http2ConnectionError as error:
            self._fail(error)
            return
        if incomplete:
            # Without a request there is nothing to respond to.
            self._end_exchanges()
            self.close()
        elif not self.streams and quiet >= timeouts.idle:
            self.close()
        elif self.goaway_at is not None and now - self.goaway_at >= FINAL_GOAWAY_DELAY:
            self._finish_drain()

    def _finish_drain(self) -> None:
        """Refuse further streams, and close unless a stream is open."""
        if not self.refusing:
            self.refusing = True
            self.output.append(encode_goaway(self._reader.last_stream_id, NO_ERROR))
        if not self.streams:
            self.close()

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        # RFC 9113, 9.1 expects a GOAWAY before, and no client half-closes the connection.
        self._end_exchanges()
        if not self.closing:
            self.closing = True
            self.output.flush()
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Everything was written; the client closes the connection, or a timeout does."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        self.context.channels.discard(self)
        self._end_exchanges()

    # IPushProducer: the transport pauses the channel while the client does not read

    def pauseProducing(self) -> None:
        self.last_activity = self._ticker.now
        self.output.block()

    def resumeProducing(self) -> None:
        self.last_activity = self._ticker.now
        if not self.reading:
            self.reading = True
            self.transport.resumeProducing()
        self.output.unblock()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows and ends the exchanges."""
