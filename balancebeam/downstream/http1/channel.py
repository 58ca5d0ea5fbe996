"""
An HTTP/1.1 connection from a client.

The channel owns the transport and the state machine (`channel_state`): half-close, lingering
close, tunnels, timeouts and backpressure. `RequestReader` parses the requests and
`Http1Exchange` writes the responses. One request is in progress at a time; pipelined requests
wait in `buffer`, so that responses are in order.
"""

from __future__ import annotations

from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.core.errors import RequestError
from balancebeam.core.ip import pack_address
from balancebeam.downstream.http1.channel_state import (
    AWAITING_RESPONSE,
    CLOSED,
    CLOSING,
    DISCARDING_BODY,
    LINGERING_CLOSE,
    READING_BODY,
    READING_HEAD,
    TUNNEL,
)
from balancebeam.downstream.http1.context import Http1Context
from balancebeam.downstream.http1.exchange import Http1Exchange
from balancebeam.downstream.http1.request_reader import RequestReader
from balancebeam.downstream.http1.timeouts import Expiry, awaits_client_read, find_expiry
from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.socket_options import set_socket_options
from balancebeam.net.transport import unacked_bytes
from balancebeam.protocols.http1 import local_reply
from balancebeam.protocols.http1.grammar import CRLF
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import BUFFER_SIZE, Exchange, Fields
from balancebeam.proxy.forwarding import Forwarder
from balancebeam.proxy.rejected import RejectedRequest, first_line, is_head_request
from balancebeam.tls.interfaces import TlsInfo


@implementer(IHalfCloseableProtocol, IPushProducer)
class Http1Channel(Protocol):
    """
    A client connection.

    Attributes:
        context: The shared state of the frontend.
        client: IP address of the peer.
        client_key: `client` in 4 or 16 bytes, the key of rate limits.
        proxy_info: Addresses from a PROXY protocol header, if there was one.
        tls: The result of the TLS handshake; `None` without TLS.
        exchange: The exchange in progress.
        state: How received bytes are handled; see `channel_state`.
        buffer: Bytes that have been received and not parsed.
        half_closed: Whether the client has sent EOF.
        write_blocked: Whether the client reads too slowly, so that writing is paused.
        reading: Whether reading is not paused.
        last_activity: When bytes were last received, or the client last acknowledged bytes; on
            the ticker.
        head_started_at: When reading of the current head, or discarding of a body, began; on
            the ticker. `None` between requests.
        in_read_loop: Whether `RequestReader.read_heads` is running.
        tunnel_half_closed: Whether one side of the tunnel has sent EOF.
        output_flushed: Whether everything has been written when lingering.
    """

    transport: StreamTransport  # type: ignore[assignment]

    def __init__(
        self,
        context: Http1Context,
        peer: str,
        proxy_info: ProxyInfo | None = None,
        tls: TlsInfo | None = None,
    ) -> None:
        self.context = context
        self.client = peer
        self.client_key = pack_address(peer)
        self.proxy_info = proxy_info
        self.tls = tls
        self.exchange: Http1Exchange | None = None
        self.state = READING_HEAD
        self.buffer = b""
        self.half_closed = False
        self.write_blocked = False
        self.reading = True
        self._ticker = context.ticker
        self.last_activity = self._ticker.now
        self.head_started_at: float | None = self._ticker.now
        self.in_read_loop = False
        self.tunnel_half_closed = False
        self.output_flushed = False
        # Value of `unacked_bytes` at the last sweep that measured it.
        self._last_unacked_bytes: int | None = None
        self._reader = RequestReader(context, self._build_forwarder(), secure=tls is not None)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.client} {self.state.name}>"

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)
        self.context.channels.add(self)

    def _build_forwarder(self) -> Forwarder:
        context, tls = self.context, self.tls
        trusted = context.trusted_proxies.contains(self.client)
        proto, certificate = (b"http", None) if tls is None else (b"https", tls.client_certificate)
        return Forwarder(self.client, trusted, context.forwarding, proto, certificate)

    def update_trust(self) -> None:
        """Apply changed trusted proxies and a changed forwarding policy to later requests."""
        self._reader.forwarder = self._build_forwarder()

    def dataReceived(self, data: bytes) -> None:
        state = self.state
        if state is not LINGERING_CLOSE:
            self.last_activity = self._ticker.now
        if state is READING_HEAD:
            if self.buffer:
                data = self.buffer + data
                self.buffer = b""
            self._reader.read_heads(self, data)
        elif state is READING_BODY:
            self._reader.read_body(self, data)
        elif state is AWAITING_RESPONSE:
            self.buffer += data
            if len(self.buffer) > BUFFER_SIZE:
                self.pause_reading()
        elif state is TUNNEL:
            if self.exchange is not None:
                self.exchange.upload_tunnel(data)
        elif state is DISCARDING_BODY:
            self._reader.discard_body(self, data)

    def process_buffered(self) -> None:
        """Parse the pipelined requests; close if there is none and the client has sent EOF."""
        if not self.reading:
            self.resume_reading()
        data, self.buffer = self.buffer, b""
        if data:
            self._reader.read_heads(self, data)
        elif self.half_closed:
            self.close()

    # RequestChannel: requests that cannot be read

    def reject(self, error: RequestError, data: bytes) -> None:
        """Respond to the unreadable request in `data`, and read no other one."""
        body_bytes = self._write_error(error, is_head_request(data))
        self.context.count_rejected(
            RejectedRequest(self.client, first_line(data), error.status, error.reason, body_bytes)
        )
        self.start_lingering_close()

    def abort_request(self, exchange: Http1Exchange, error: RequestError) -> None:
        """
        End the exchange because the rest of its body cannot be read.

        The client receives an error response, or a reset if a response has started. The
        server's connection is closed.
        """
        self.exchange = None
        response_started = exchange.downstream_response_started
        if not response_started:
            # The status that the client receives, for logs and metrics.
            exchange.status = error.status
        exchange.client_disconnected()
        if response_started:
            self.abort()
        else:
            self._write_error(error, exchange.method == b"HEAD")
            self.start_lingering_close()

    def _write_error(self, error: RequestError, bodyless: bool) -> int:
        """Write an error response, the last of the connection; returns the length of its body."""
        body = local_reply.jsend_error(error.reason)
        self.write_local_reply(error.status, body, (), bodyless, persistent=False)
        return 0 if bodyless else len(body)

    # ClientStream

    def write_local_reply(
        self, status: int, body: bytes, fields: Fields, bodyless: bool, persistent: bool
    ) -> None:
        now = self._ticker.wall_time()
        self.transport.write(
            local_reply.local_reply(status, body, fields, bodyless, persistent, now)
        )

    def can_discard_body(self) -> bool:
        return self.state is READING_BODY and self._reader.can_discard_body()

    def response_finished(self, persistent: bool) -> None:
        self.exchange = None
        if persistent and self.state is READING_BODY:
            self.state = DISCARDING_BODY
            self._reader.start_discarding()
            self.head_started_at = self._ticker.now
            self.resume_reading()
            return
        if not persistent:
            if self.state is AWAITING_RESPONSE and not self.buffer:
                self.close()
            else:
                self.start_lingering_close()
            return
        self.state = READING_HEAD
        self.last_activity = self._ticker.now
        if not self.in_read_loop and (self.buffer or self.half_closed or not self.reading):
            self.process_buffered()

    def response_truncated(self, framed: bool) -> None:
        self.exchange = None
        if framed:
            self.close()
        else:
            self.abort()

    def start_tunnel(self) -> None:
        self.state = TUNNEL
        data, self.buffer = self.buffer, b""
        if not self.reading:
            self.resume_reading()
        if data:
            self.dataReceived(data)
        if self.half_closed:
            self._half_close_upstream()

    def half_close_client(self) -> None:
        both_closed, self.tunnel_half_closed = self.tunnel_half_closed, True
        self.transport.unregisterProducer()
        if both_closed:
            self.close()
        else:
            self.transport.loseWriteConnection()

    def _half_close_upstream(self) -> None:
        """Send EOF to the server: the client has sent EOF through the tunnel."""
        self.tunnel_half_closed = True
        exchange = self.exchange
        if exchange is not None and exchange.connection is not None:
            exchange.connection.half_close()

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self.transport.pauseProducing()

    def resume_reading(self) -> None:
        if not self.reading:
            self.reading = True
            self.last_activity = self._ticker.now
            self.transport.resumeProducing()

    def close(self) -> None:
        if self.state not in (CLOSING, CLOSED):
            self.state = CLOSING
            self.last_activity = self._ticker.now
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def start_lingering_close(self) -> None:
        """
        Send EOF, and read and ignore what the client still sends.

        Closing at once, with unread bytes, would send a reset, which can destroy the response
        before the client has read it (RFC 9112, 9.6).
        """
        if self.state in (CLOSING, CLOSED):
            return
        if self.half_closed:
            self.close()
            return
        self.state = LINGERING_CLOSE
        self.buffer = b""
        self.last_activity = self._ticker.now
        self.transport.unregisterProducer()
        self.resume_reading()
        self.transport.loseWriteConnection()

    def abort(self) -> None:
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_disconnected()
        self.state = CLOSED
        self.transport.abortConnection()

    # ClientChannel
    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        return () if self.exchange is None else (self.exchange,)

    def drain(self) -> None:
        """Close after the response in progress. Idle connections are closed by a sweep."""
        if self.exchange is not None and self.state is not TUNNEL:
            self.exchange.persistent = False

    def shutdown(self) -> None:
        self.abort()

    def check_timeouts(self, now: float) -> None:
        """Close, abort or reject if a timeout has expired at `now`, on the ticker."""
        if awaits_client_read(self):
            unacked = unacked_bytes(self.transport)
            if unacked != self._last_unacked_bytes:
                self._last_unacked_bytes = unacked
                self.last_activity = now
                return
        context = self.context
        expiry = find_expiry(self, context.timeouts, now, context.draining)
        if expiry is Expiry.CLOSE:
            self.close()
        elif expiry is Expiry.ABORT:
            self.abort()
        elif expiry is Expiry.HEADER_TIMEOUT:
            self._header_timeout_expired()
        elif expiry is Expiry.BODY_TIMEOUT:
            self._body_timeout_expired()

    def _header_timeout_expired(self) -> None:
        if not self.no_input:
            self.reject(RequestError(408, "request header timeout expired"), self.buffer)
        else:
            # Browsers open connections in advance. Without a request there is nothing to
            # respond to.
            self.close()

    def _body_timeout_expired(self) -> None:
        exchange = self.exchange
        if exchange is not None and not exchange.awaiting_100_continue:
            self.abort_request(exchange, RequestError(408, "request body timeout expired"))

    # ChannelActivity

    @property
    def no_input(self) -> bool:
        """Whether nothing has been received of the next request."""
        return self.buffer in (b"", b"\r", CRLF)

    @property
    def downstream_response_started(self) -> bool:
        """Whether the response to the request in progress has started."""
        return self.exchange is not None and self.exchange.downstream_response_started

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        self.half_closed = True
        self.last_activity = self._ticker.now
        state = self.state
        if state in (READING_HEAD, LINGERING_CLOSE, DISCARDING_BODY):
            if not (state is READING_HEAD and self.buffer and self.write_blocked):
                self.close()
        elif state is READING_BODY:
            self.abort()
        elif state is TUNNEL:
            both_closed = self.tunnel_half_closed
            self._half_close_upstream()
            if both_closed:
                self.close()

    def writeConnectionLost(self) -> None:
        self.output_flushed = True
        self.write_blocked = False
        self.last_activity = self._ticker.now

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.state = CLOSED
        self.context.channels.discard(self)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_disconnected()

    # IPushProducer: the transport pauses the channel while the client does not read

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
        elif self.state is READING_HEAD:
            self.process_buffered()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""
