"""
Interfaces between an upstream connection, the request it carries, and its pool.

They break the circular knowledge of the three: the connection implements
`RequestSender` and `PooledConnection` and names neither its pool nor a kind of
request; `proxy.http_exchange.HttpExchange` implements `UpstreamRequest`; the pools
implement `ConnectionOwner`.
"""

from __future__ import annotations

import typing
from typing import Any, TypeVar

from balancebeam.core.failures import UpstreamFailure
from balancebeam.net.interfaces import StreamTransport
from balancebeam.protocols.http1.response_head import ResponseHead


class Connection(typing.Protocol):
    """
    An established connection to a server, of any protocol.

    Attributes:
        transport: The socket.
        single_use: The connection began with the PROXY header of one client, so that no
            other client may use it.
        keepalive_enabled: `SO_KEEPALIVE` is set.
    """

    transport: StreamTransport
    single_use: bool
    keepalive_enabled: bool

    def send(self, exchange: Any) -> None:
        """
        Send a request, or attach a TCP session.

        `Any`: each kind of pool receives exchanges of its own kind only.
        """


ConnectionT = TypeVar("ConnectionT", bound=Connection)
_ConnectionT_contra = TypeVar("_ConnectionT_contra", contravariant=True)


class PooledConnection(typing.Protocol):
    """An idle connection to a server, ready for the next request."""

    def send(self, exchange: Any) -> None:
        """Send a request; see `Connection.send`."""

    def close_idle(self) -> None:
        """Close the connection and remove it from the idle connections of its server."""


class RequestSender(typing.Protocol):
    """The connection that carries a request, as the request uses it."""

    def send_body(self, content: bytes, last: bool, trailers: bytes) -> None:
        """
        Send more of the request body, in the framing of the connection's protocol.

        Args:
            content: The next part of the content; may be empty if it is the last one.
            last: Whether the body is complete with `content`.
            trailers: The trailer fields, each ended by CRLF; empty unless `last`.
        """

    def send_tunnel_data(self, data: bytes) -> None:
        """Send bytes through the tunnel."""

    def half_close(self) -> None:
        """Send a FIN through the tunnel: the client has closed its sending side."""

    def pause_reading(self) -> None:
        """Stop reading the response: the client's write buffer is full."""

    def resume_reading(self) -> None:
        """Read the response again: the client's write buffer has drained."""

    def abandon(self) -> None:
        """Detach the request, whose client has disconnected, and close the connection."""


class UpstreamRequest(typing.Protocol):
    """
    A request with its response, as an upstream connection uses it.

    Attributes:
        method: The method, in upper case as received.
        upstream_head: The request head in the form that is sent to the server.
        body_length: Length of the request body in bytes, or `CHUNKED` if the body has no
            declared length.
        pending_body: Parts of the body's content that were received before the connection
            existed. A body that is complete has at least one part, which may be empty.
        body_complete: The client has sent the whole body.
        trailers: The trailer fields of a complete body, each ended by CRLF.
        upgrade: The value of the Upgrade field that was sent; empty without one.
        connection: The connection that carries the request; `None` before and after.
    """

    method: bytes
    upstream_head: bytes
    pending_body: list[bytes] | tuple[()]
    body_complete: bool
    trailers: bytes
    upgrade: bytes
    connection: RequestSender | None

    @property
    def body_length(self) -> int:
        """See the attribute list of the class."""

    @property
    def awaiting_request_body(self) -> bool:
        """Whether the server cannot respond yet because the client has still to send."""

    def client_stalled(self, now: float) -> bool:
        """Whether the client has read nothing of the response for its idle timeout."""

    def informational_received(self, head: ResponseHead) -> None:
        """A 1xx response other than 101 was received."""

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        """A complete response was received at once; the connection is released."""

    def response_started(self, head: ResponseHead, length: int) -> None:
        """
        A response head was received, and body bytes follow.

        Args:
            head: The parsed head.
            length: Bytes of the body, or `CHUNKED`, or `CLOSE_DELIMITED`.
        """

    def response_data(self, data: bytes) -> None:
        """Part of the response body was received; transfer codings are removed."""

    def flush(self) -> None:
        """All bytes received so far were delivered; write out what is buffered."""

    def response_finished(self, content: bytes, trailers: bytes) -> None:
        """The response ended with `content` and `trailers`; the connection is released."""

    def response_aborted(self, failure: UpstreamFailure) -> None:
        """The response had started and was truncated."""

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """The attempt ended without a response."""

    def upgrade_error(self, head: ResponseHead) -> str:
        """Return why a 101 response is not valid for this request; empty if it is."""

    def upgraded(self, head: ResponseHead) -> None:
        """The server switched protocols (101); the connection is a tunnel."""

    def tunnel_data(self, data: bytes) -> None:
        """Bytes were received through the tunnel."""

    def tunnel_ended(self, clean: bool) -> None:
        """The server closed its side of the tunnel; `clean` with a FIN, not with a reset."""

    def pause_upload(self) -> None:
        """Stop reading the request body: the server's write buffer is full."""

    def resume_upload(self) -> None:
        """Read the request body again: the server's write buffer has drained."""


class ConnectionOwner(typing.Protocol[_ConnectionT_contra]):
    """The pool that owns a connection."""

    def release(self, connection: _ConnectionT_contra) -> None:
        """The connection has finished a response and can be reused."""

    def connection_closed(self, connection: _ConnectionT_contra) -> None:
        """The connection is closed."""
