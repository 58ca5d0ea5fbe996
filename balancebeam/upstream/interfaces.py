"""What a connection to a server knows of those who use it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from typing import Protocol as Interface

from balancebeam.core.failures import UpstreamFailure
from balancebeam.protocols.http1.response_head import ResponseHead

if TYPE_CHECKING:
    from balancebeam.upstream.http1_connection import UpstreamConnection


class UpstreamRequest(Interface):
    """A request on its way, as a connection to a server sees it."""

    method: bytes
    upstream_head: bytes
    pending_body: list[bytes] | tuple[()]
    body_complete: bool
    upgrade: bytes
    connection: UpstreamConnection | None

    def informational_received(self, head: ResponseHead) -> None:
        """A 1xx other than 101 has come."""

    def response_received(self, head: ResponseHead, body: bytes) -> None:
        """The whole response is here, and the connection is free again."""

    def response_started(self, head: ResponseHead, length: int) -> None:
        """A response begins; `length` is the body's, or `CHUNKED` or `CLOSE_DELIMITED`."""

    def response_data(self, data: bytes) -> None:
        """Content of the response's body."""

    def flush(self) -> None:
        """Nothing more is here right now; do not hold anything back."""

    def response_finished(self, content: bytes, trailers: bytes) -> None:
        """With `content` the response is complete, and the connection free again."""

    def response_aborted(self, failure: UpstreamFailure) -> None:
        """The response will never be complete."""

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """There was no response."""

    def upgraded(self, head: ResponseHead) -> None:
        """The server agreed to switch protocols."""

    def tunnel_data(self, data: bytes) -> None:
        """Bytes through the tunnel."""

    def tunnel_ended(self, clean: bool) -> None:
        """The server sends no more through the tunnel."""

    def pause_upload(self) -> None:
        """The server takes no more for now."""

    def resume_upload(self) -> None:
        """The server takes more."""


class ConnectionOwner(Interface):
    """Who keeps connections: the pool."""

    def release(self, connection: UpstreamConnection) -> None:
        """The connection is idle."""

    def connection_closed(self, connection: UpstreamConnection) -> None:
        """The connection is no more."""
