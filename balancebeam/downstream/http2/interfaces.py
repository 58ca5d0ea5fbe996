"""The interface of the connection that the requests of its streams are read from."""

from __future__ import annotations

from typing import Protocol

from balancebeam.downstream.http2.exchange import Http2Exchange, StreamChannel


class RequestChannel(StreamChannel, Protocol):
    """
    The interface of the connection that a `RequestReader` reads from.

    Attributes:
        streams: The open and half-closed streams by identifier.
        closing: Whether input is ignored.
        refusing: Whether no further stream is accepted: the last GOAWAY was sent.
    """

    streams: dict[int, Http2Exchange]
    closing: bool
    refusing: bool

    def is_recently_reset(self, stream_id: int) -> bool:
        """Whether a stream was reset here, so that the client may not know it yet."""

    def remember_reset(self, stream_id: int) -> None:
        """Ignore what the client still sends on a stream that was reset here."""

    def cancel_later(self, stream_id: int) -> None:
        """Ignore what the client still sends after an error response, and reset the stream soon."""
