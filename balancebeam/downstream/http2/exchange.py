"""
An exchange on an HTTP/2 stream: the stream's state, and the response in frames.

There is no other object per stream. `StreamChannel` is the interface to the connection;
`Http2Channel` implements it.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from balancebeam.core.failures import FailureKind, UpstreamFailure
from balancebeam.downstream.exchange import ClientExchange
from balancebeam.downstream.http2.context import Http2Context
from balancebeam.net.interfaces import StreamTransport
from balancebeam.protocols.grpc import error_fields, is_grpc
from balancebeam.protocols.http1.local_reply import local_reply_fields
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.protocols.http2.errors import CANCEL, CONNECT_ERROR, INTERNAL_ERROR
from balancebeam.protocols.http2.flow_control import UPDATE_THRESHOLD
from balancebeam.protocols.http2.frames import DEFAULT_WINDOW_SIZE, encode_window_update
from balancebeam.protocols.http2.hpack_encoder import encode_field
from balancebeam.protocols.http2.output import RESUME_QUEUED, FrameOutput
from balancebeam.protocols.http2.response_block import (
    DEFAULT_VIA,
    encode_local_reply,
    encode_trailers,
)
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.exchange import Exchange, Fields
from balancebeam.proxy.interfaces import Pipeline
from balancebeam.tls.interfaces import TlsInfo

CONTINUE = 100
SWITCHING_PROTOCOLS = 101

# Failures within a response that are none of the server or the proxy.
_CANCELLING = (FailureKind.CLIENT_STALLED, FailureKind.DEADLINE)

_CONTINUE_BLOCK = encode_field(b":status", b"100")


class StreamChannel(Protocol):
    """The connection to the client, as an exchange uses it."""

    output: FrameOutput

    @property
    def context(self) -> Http2Context:
        """The shared state of the frontend."""

    @property
    def client(self) -> str:
        """IP address of the peer."""

    @property
    def client_key(self) -> bytes:
        """`client` in 4 or 16 bytes, the key of rate limits."""

    @property
    def proxy_info(self) -> ProxyInfo | None:
        """Addresses from a PROXY protocol header, if there was one."""

    @property
    def tls(self) -> TlsInfo | None:
        """The result of the TLS handshake; `None` without TLS."""

    @property
    def transport(self) -> StreamTransport:
        """The transport, for its addresses."""

    def response_sent(self, exchange: Http2Exchange) -> None:
        """END_STREAM was sent: forget the stream as soon as the client has ended it too."""

    def reset_stream(self, exchange: Http2Exchange, code: int) -> None:
        """Send RST_STREAM, and forget the stream."""


class Http2Exchange(ClientExchange):
    """
    One stream of a `StreamChannel`.

    A stream is half-closed (remote) when `remote_closed` is set, half-closed (local) when
    `local_closed` is set, and open before. The channel has it until both are set.

    Attributes:
        channel: The connection to the client.
        stream_id: The identifier of the stream.
        via: The name of this proxy in Via; empty to add none.
        remote_closed: Whether the client has sent END_STREAM.
        local_closed: Whether END_STREAM was sent to the client.
        send_window: See `OutputStream`, as `queue`, `queued_bytes`, `end_queued` and
            `trailer_block`.
        receive_window: Bytes of content that the client may send.
        unacked: Bytes of content that were received, and for which the window was not opened
            again.
        remaining: Bytes of content that Content-Length still promises; -1 without it.
        tunnel: Whether the stream is a tunnel, from its request on (RFC 8441).
        progress_at: When content last passed in either direction, on the ticker; used while the
            request body is incomplete, or content waits.
    """

    http_version = "2.0"
    via = DEFAULT_VIA
    remote_closed = True
    local_closed = False
    queue: deque[bytes] | None = None
    queued_bytes = 0
    end_queued = False
    trailer_block = b""
    receive_window = DEFAULT_WINDOW_SIZE
    unacked = 0
    remaining = -1
    tunnel = False
    progress_at = 0.0
    # The header block of a response that waits for the beginning of the content.
    _pending_block = b""
    # Whether the server's connection is paused because content waits.
    _download_paused = False
    # What the client has sent before the server has accepted the tunnel.
    _early_data = b""

    def __init__(
        self,
        channel: StreamChannel,
        stream_id: int,
        dispatcher: Pipeline[Exchange],
        head: RequestHead,
        upstream_head: bytes,
    ) -> None:
        # As in `Http1Exchange`, without `super().__init__`: this runs for every request.
        self.dispatcher = dispatcher
        self.head = head
        self.method = head.method
        self.upstream_head = upstream_head
        self.client = channel.client
        self.channel = channel
        self.stream_id = stream_id
        self.send_window = channel.output.initial_window
        context = channel.context
        if context.needs_accounting:
            self.observer = context.observer
            self.started_at = context.ticker.wall_time()
        if head.rare_fields.upgrade:
            self.upgrade = head.rare_fields.upgrade

    @property
    def peer(self) -> str:
        return self.channel.client

    @property
    def client_key(self) -> bytes:
        channel = self.channel
        if self.client is channel.client:
            return channel.client_key
        return super().client_key

    @property
    def proxy_info(self) -> ProxyInfo | None:
        return self.channel.proxy_info

    @property
    def tls(self) -> TlsInfo | None:
        return self.channel.tls

    def client_transport(self) -> StreamTransport:
        return self.channel.transport

    # UpstreamRequest

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        self.downstream_response_started = True
        self.status = head.status
        self.body_bytes_sent = len(body)
        channel = self.channel
        block = channel.context.encoder.heads.get(head.forward_bytes)
        if block is None or self.via is not DEFAULT_VIA:
            block = self._encode_head(head)
        self.finished = True
        if channel.output.send_response(self, block, body):
            self.local_closed = True
            self.dispatcher.request_finished(self)
            channel.response_sent(self)
        else:
            self.progress_at = channel.context.ticker.now
            self.dispatcher.request_finished(self)

    def _encode_head(self, head: ResponseHead) -> bytes:
        context = self.channel.context
        return context.encoder.encode_head(head, self.via, context.ticker.wall_time())

    def response_started(self, head: ResponseHead, length: int) -> None:
        self.downstream_response_started = True
        self.status = head.status
        self.dispatcher.response_started(self)
        self._pending_block = self._encode_head(head)
        self.progress_at = self.channel.context.ticker.now

    def response_data(self, data: bytes) -> None:
        self.body_bytes_sent += len(data)
        if self._pending_block:
            self.flush()
        if not self.queued_bytes:
            self.progress_at = self.channel.context.ticker.now
        self.channel.output.send_content(self, data, False)

    def flush(self) -> None:
        if self._pending_block:
            block, self._pending_block = self._pending_block, b""
            self.channel.output.send_headers(self, block)

    def response_finished(self, content: bytes, trailers: bytes) -> None:
        self.body_bytes_sent += len(content)
        block, self._pending_block = self._pending_block, b""
        output = self.channel.output
        trailer_block = encode_trailers(trailers) if trailers else b""
        if trailer_block:
            if block:
                output.send_headers(self, block)
            if content:
                output.send_content(self, content, False)
            ended = output.send_trailers(self, trailer_block)
        elif block:
            ended = output.send_response(self, block, content)
        elif content or not self.queued_bytes:
            ended = output.send_content(self, content, True)
        else:
            self.end_queued = True
            ended = False
        self.finish(ended)

    def finish(self, ended: bool) -> None:
        """Account for the response, whose last part was sent if it has `ended`, or waits."""
        if ended:
            self.local_closed = True
        else:
            self.progress_at = self.channel.context.ticker.now
        self.finished = True
        self.dispatcher.request_finished(self)
        if ended:
            self.channel.response_sent(self)

    def informational_received(self, head: ResponseHead) -> None:
        if head.status == CONTINUE:
            self.awaiting_100_continue = False
        channel = self.channel
        channel.output.send_headers(self, channel.context.encoder.encode_informational(head))

    def response_aborted(self, failure: UpstreamFailure) -> None:
        self.dispatcher.response_aborted(self, failure)
        if self._pending_block:
            # Nothing of the response has been sent yet.
            self._pending_block = b""
            self.local_reply(failure.status, failure.public_message)
            return
        self.finished = self.truncated = True
        self.dispatcher.request_finished(self)
        code = CANCEL if failure.kind in _CANCELLING else INTERNAL_ERROR
        self.channel.reset_stream(self, code)

    def upgraded(self, head: ResponseHead) -> None:
        self.downstream_response_started = True
        # As in HTTP/1.1, for logs; the client receives 200.
        self.status = SWITCHING_PROTOCOLS
        self.dispatcher.response_started(self)
        channel = self.channel
        block = channel.context.encoder.encode_tunnel_head(head, self.via)
        channel.output.send_headers(self, block)
        self.progress_at = channel.context.ticker.now
        data, self._early_data = self._early_data, b""
        self.tunnel_received(data, self.remote_closed)
        self.acknowledge()

    def tunnel_data(self, data: bytes) -> None:
        self.body_bytes_sent += len(data)
        self.progress_at = self.channel.context.ticker.now
        self.channel.output.send_content(self, data, False)

    def tunnel_ended(self, clean: bool) -> None:
        if not clean:
            # RFC 8441, 5: a reset of the connection is a stream error.
            self.client_disconnected()
            self.channel.reset_stream(self, CONNECT_ERROR)
        elif self.queued_bytes:
            self.end_queued = True
        elif self.channel.output.send_content(self, b"", True):
            self.end_sent()

    # OutputStream

    def end_sent(self) -> None:
        self.local_closed = True
        if self.tunnel and not self.finished:
            if not self.remote_closed:
                return
            self.client_disconnected()
        self.channel.response_sent(self)

    def queue_grown(self) -> None:
        if self.connection is not None and not self._download_paused:
            self._download_paused = True
            self.connection.pause_reading()

    def queue_shrunk(self) -> None:
        self.progress_at = self.channel.context.ticker.now
        if self._download_paused and self.queued_bytes < RESUME_QUEUED:
            self._download_paused = False
            if self.connection is not None:
                self.connection.resume_reading()

    # Responses of the proxy itself

    def send_100_continue(self) -> None:
        self.awaiting_100_continue = False
        self.channel.output.send_headers(self, _CONTINUE_BLOCK)

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        if status < 400 or not is_grpc(self.head.forward_bytes):
            super().local_reply(status, text, fields)
            return
        self.downstream_response_started = True
        # For logs and metrics, where a gRPC error is the same as any other; the client receives
        # 200.
        self.status = status
        channel = self.channel
        now = channel.context.ticker.wall_time()
        block = encode_local_reply(200, error_fields(status, text, fields), now)
        self.finish(channel.output.send_response(self, block, b""))

    def send_reply(self, status: int, body: bytes, fields: Fields = ()) -> None:
        self.downstream_response_started = True
        self.status = status
        channel = self.channel
        now = channel.context.ticker.wall_time()
        block = encode_local_reply(status, local_reply_fields(body, fields), now)
        if self.method == b"HEAD":
            body = b""
        self.body_bytes_sent = len(body)
        self.finish(channel.output.send_response(self, block, body))

    # Request body

    def tunnel_received(self, data: bytes, last: bool) -> None:
        """Send content of the client through the tunnel, or keep it until there is one."""
        if self.status != SWITCHING_PROTOCOLS:
            # At most the window of the stream, which is not opened until then. The server would
            # take it for another request.
            self._early_data += data
            return
        if data:
            self.upload_tunnel(data)
        if last:
            if self.connection is not None:
                self.connection.half_close()
            if self.local_closed:
                self.client_disconnected()
                self.channel.response_sent(self)

    def acknowledge(self) -> None:
        """Open the window of the stream again, unless the server does not accept more."""
        unacked = self.unacked
        if unacked < UPDATE_THRESHOLD or self.remote_closed or self.finished:
            return
        if not self.upload_paused and not self._early_data:
            self.unacked = 0
            self.receive_window += unacked
            self.channel.output.append(encode_window_update(self.stream_id, unacked))

    def pause_upload(self) -> None:
        self.upload_paused = True

    def resume_upload(self) -> None:
        if self.upload_paused:
            self.upload_paused = False
            self.progress_at = self.channel.context.ticker.now
            self.acknowledge()
