"""The base class of HTTP exchanges: a request and its response."""

from __future__ import annotations

from abc import abstractmethod

from balancebeam.core.failures import UpstreamFailure
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.grammar import list_items
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.exchange import BUFFER_SIZE, Exchange
from balancebeam.proxy.interfaces import Pipeline
from balancebeam.proxy.tracing import RequestTrace, TraceObserver
from balancebeam.upstream.interfaces import RequestSender


class HttpExchange(Exchange):
    """
    The part that HTTP/1.1 clients and `twisted.web` have in common.

    Bodies are content here and in `pending_body`, without transfer coding: each upstream
    connection frames it for its own protocol. See `Exchange` for the other attributes.

    Attributes:
        head: The head of the request.
        http_version: The version of the client's request, for logs.
        upstream_head: The head as it is sent to a server.
        upgrade: The value of the Upgrade field; empty without one.
        body_complete: Whether the whole request body has been received.
        trailers: The trailer fields of a complete request body, each ended by CRLF.
        awaiting_100_continue: Whether the client sends the body only after a 100
            response, which the server sends.
        body_bytes_received: The length of the request body received so far, without the framing
            of a chunked one; or of what the client has sent through a tunnel.
        body_bytes_sent: The length of the response body that was written, likewise.
        trace: The spans of a sampled request, each attempt with its own `traceparent`.
    """

    connection: RequestSender | None = None
    http_version = "1.1"
    body_complete = True
    trailers = b""
    awaiting_100_continue = False
    upgrade = b""
    body_bytes_received = 0
    body_bytes_sent = 0
    trace: RequestTrace | None = None
    # The content so far, for a retry; `None` without a body or when it is too large.
    _replay_buffer: list[bytes] | None = None
    _replay_bytes = 0

    def __init__(
        self, dispatcher: Pipeline[Exchange], head: RequestHead, upstream_head: bytes, client: str
    ) -> None:
        self.dispatcher = dispatcher
        self.head = head
        self.method = head.method
        if head.rare_fields.upgrade:
            self.upgrade = head.rare_fields.upgrade
        self.upstream_head = upstream_head
        self.client = client
        self.max_forwards_exhausted = head.max_forwards_exhausted

    @property
    def host(self) -> bytes | None:
        return self.head.host

    @property
    def target(self) -> bytes:
        return self.head.target

    @property
    def body_length(self) -> int:
        """Length of the request body in bytes, or `CHUNKED`."""
        return self.head.length

    def field_values(self, name: bytes) -> list[bytes]:
        return field_values(self.head.forward_bytes, name)

    # Called by downstream protocols.

    def expect_body(self) -> None:
        """Declare that the request has a body, which `upload` will deliver."""
        self.awaiting_100_continue = self.head.rare_fields.expects_continue
        self.body_complete = False
        self._replay_buffer = []

    def upload(self, content: bytes, last: bool, trailers: bytes = b"") -> None:
        """
        Send a part of the request body to the server, or buffer it.

        Args:
            content: The next part of the content; may be empty.
            last: Whether the body is complete with `content`.
            trailers: The trailer fields, each ended by CRLF; empty unless `last`.
        """
        if last:
            self.body_complete = True
            self.trailers = trailers
        elif not content:
            return
        self.body_bytes_received += len(content)
        self.awaiting_100_continue = False
        if self._replay_buffer is not None:
            self._replay_bytes += len(content)
            if self._replay_bytes > BUFFER_SIZE:
                self._replay_buffer = None
            else:
                # Also an empty last part: without it, the end of the body would not be sent.
                self._replay_buffer.append(content)
        if self.connection is not None:
            self.connection.send_body(content, last, trailers)
        else:
            self.buffer_body(content, last)

    def upload_tunnel(self, data: bytes) -> None:
        """Send bytes of the client through the tunnel to the server."""
        self.body_bytes_received += len(data)
        if self.connection is not None:
            self.connection.send_tunnel_data(data)

    # Called by the dispatcher.

    def start_trace(self, trace: RequestTrace) -> None:
        """Record the spans of `trace`, after the logs of the frontend."""
        self.trace = trace
        self.observer = TraceObserver(self.observer, trace)

    def rewind(self) -> bool:
        if self.trace is not None:
            # Called once for each failed attempt, which has just ended at `attempt_at`.
            self.upstream_head = self.trace.next_attempt(self.upstream_head, self.attempt_at)
        if self.body_complete and not self.head.length:
            return True
        if self._replay_buffer is None:
            return False
        self.pending_body = self._replay_buffer.copy()
        self._pending_bytes = self._replay_bytes
        return True

    # Called by the connection pool.

    @property
    def awaiting_request_body(self) -> bool:
        """Whether the server cannot respond because the client has not sent the body."""
        return not (self.body_complete or self.upload_paused or self.awaiting_100_continue)

    def client_stalled(self, now: float) -> bool:
        """
        Whether the client has not read its response for too long.

        False here: a downstream protocol with its own timeouts closes the
        connection itself.
        """
        return False

    # UpstreamRequest

    def upgrade_error(self, head: ResponseHead) -> str:
        """See `UpstreamRequest.upgrade_error`; the client itself checks the other fields."""
        offered, agreed = list_items(self.upgrade), list_items(head.upgrade)
        if not agreed or not all(protocol in offered for protocol in agreed):
            return "101 with a protocol that was not offered"
        return ""

    @abstractmethod
    def informational_received(self, head: ResponseHead) -> None:
        """See `UpstreamRequest.informational_received`."""

    @abstractmethod
    def response_received(self, head: ResponseHead, body: bytes) -> None:
        """See `UpstreamRequest.response_received`."""

    @abstractmethod
    def response_started(self, head: ResponseHead, length: int) -> None:
        """See `UpstreamRequest.response_started`."""

    @abstractmethod
    def response_data(self, data: bytes) -> None:
        """See `UpstreamRequest.response_data`."""

    @abstractmethod
    def flush(self) -> None:
        """See `UpstreamRequest.flush`."""

    @abstractmethod
    def response_finished(self, content: bytes, trailers: bytes) -> None:
        """See `UpstreamRequest.response_finished`."""

    @abstractmethod
    def response_aborted(self, failure: UpstreamFailure) -> None:
        """See `UpstreamRequest.response_aborted`."""

    @abstractmethod
    def upgraded(self, head: ResponseHead) -> None:
        """See `UpstreamRequest.upgraded`."""

    @abstractmethod
    def tunnel_data(self, data: bytes) -> None:
        """See `UpstreamRequest.tunnel_data`."""

    @abstractmethod
    def tunnel_ended(self, clean: bool) -> None:
        """See `UpstreamRequest.tunnel_ended`."""
