"""An exchange of messages: a request and its response."""

from __future__ import annotations

from abc import abstractmethod

from balancebeam.core.failures import UpstreamFailure
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.proxy.exchange import BUFFER_SIZE, Exchange
from balancebeam.proxy.interfaces import Pipeline
from balancebeam.upstream.http1_connection import UpstreamConnection


class HttpExchange(Exchange):
    """
    What the doors for HTTP have in common.

    `upstream_head` is the head as it goes to a server; what is `pending_body` is body, in
    wire form. `awaiting_100_continue` tells that the client will send when the
    server tells it to. `started_at` is when the request was read, in seconds since
    the epoch, if anybody wants to know; `body_bytes_sent` is the length of the body that
    the client gets.
    """

    connection: UpstreamConnection | None = None
    body_complete = True
    awaiting_100_continue = False
    upgrade = b""
    started_at = 0.0
    body_bytes_sent = 0
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

    def field_values(self, name: bytes) -> list[bytes]:
        return field_values(self.head.forward_bytes, name)

    # For doors to call.

    def expect_body(self) -> None:
        """There is a body, and it will come in by `upload`."""
        self.awaiting_100_continue = self.head.rare_fields.expects_continue
        self.body_complete = False
        self._replay_buffer = []

    def upload(self, data: bytes, last: bool) -> None:
        """More of the request's body, in wire form; `last` when it is complete."""
        if last:
            self.body_complete = True
        if not data:
            return
        self.awaiting_100_continue = False
        if self._replay_buffer is not None:
            self._replay_bytes += len(data)
            if self._replay_bytes > BUFFER_SIZE:
                self._replay_buffer = None
            else:
                self._replay_buffer.append(data)
        if self.connection is not None:
            self.connection.send_body(data)
        else:
            self.buffer_body(data, last)

    # For the dispatcher to call.

    def rewind(self) -> bool:
        if self.body_complete and not self.head.length:
            return True
        if self._replay_buffer is None:
            return False
        self.pending_body = self._replay_buffer.copy()
        self._pending_bytes = self._replay_bytes
        return True

    # For the pool and a connection to call; a door says how.

    @property
    def awaiting_request_body(self) -> bool:
        """Whether the server cannot answer because the client has yet to send."""
        return not (self.body_complete or self.upload_paused or self.awaiting_100_continue)

    def client_stalled(self, now: float) -> bool:
        """Whether the client takes nothing; doors with sweeps of their own know better."""
        return False

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
