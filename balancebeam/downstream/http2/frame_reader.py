"""Input of an HTTP/2 connection of a client: the preface, timeouts, and priorities."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.downstream.http2.context import Http2Context
from balancebeam.downstream.http2.interfaces import RequestChannel
from balancebeam.downstream.http2.request_reader import RequestReader
from balancebeam.protocols.http2.errors import (
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    SETTINGS_TIMEOUT,
    Http2ConnectionError,
    Http2StreamError,
)
from balancebeam.protocols.http2.frames import PREFACE, is_priority_size, priority_dependency
from balancebeam.proxy.forwarding import Forwarder


class ClientFrameReader(RequestReader):
    """
    Reads the frames of one connection.

    Args:
        context: The shared state of the frontend.
        forwarder: Builds the forwarding headers for this client.
        secure: The connection uses TLS.
    """

    __slots__ = (
        "_frame_since",
        "_incomplete_since",
        "_preface_length",
        "_settings_acked",
        "_started_at",
    )

    def __init__(self, context: Http2Context, forwarder: Forwarder, secure: bool) -> None:
        super().__init__(context, forwarder, secure)
        now = context.ticker.now
        # Bytes of the preface that were received.
        self._preface_length = 0
        self._started_at = now
        self._settings_acked = False
        # When the connection began, until the preface and SETTINGS are received, or when the
        # current header block began; `None` between.
        self._incomplete_since: float | None = now
        # When the incomplete frame in the buffer began.
        self._frame_since = now

    def check_timeouts(self, now: float, header: float) -> bool:
        """
        Whether a frame, or a header block, has been incomplete for the header timeout.

        Raises:
            Http2ConnectionError: SETTINGS was not acknowledged for as long.
        """
        since = self._incomplete_since
        if since is None and self._buffer and self._buffer[3:4] != b"\0":
            # An incomplete DATA frame is progress of a body, which has another timeout.
            since = self._frame_since
        if since is not None and now - since >= header:
            return True
        if not self._settings_acked and now - self._started_at >= header:
            raise Http2ConnectionError(SETTINGS_TIMEOUT, "SETTINGS not acknowledged")
        return False

    # FrameReader: progress

    def read_preface(self, data: bytes) -> int:
        start = self._preface_length
        part = data[: len(PREFACE) - start]
        if part != PREFACE[start : start + len(part)]:
            raise Http2ConnectionError(PROTOCOL_ERROR, "no connection preface")
        self._preface_length += len(part)
        return len(part)

    def frame_started(self) -> None:
        self._frame_since = self._context.ticker.now

    def block_started(self) -> None:
        self._incomplete_since = self._context.ticker.now

    def block_finished(self) -> None:
        self._incomplete_since = None

    def settings_acknowledged(self) -> None:
        self._settings_acked = True

    def settings_applied(
        self, connection: RequestChannel, settings: Sequence[tuple[int, int]]
    ) -> None:
        # The first SETTINGS end the preface.
        self._incomplete_since = None

    # FrameReader: frames

    def read_reset(self, connection: RequestChannel, stream_id: int, code: int) -> None:
        self.client_reset(connection, stream_id)
        # Of a stream that is closed, RST_STREAM is counted here only.
        self.spend_glitch(connection)

    def read_goaway(self, connection: RequestChannel, last_stream_id: int, code: int) -> None:
        # The client opens no stream any more; its streams continue.
        self.spend_glitch(connection)

    def read_dependent_headers(
        self, connection: RequestChannel, flags: int, stream_id: int, block: bytes
    ) -> None:
        self.discard_headers(connection, stream_id, block)
        raise Http2StreamError(stream_id, PROTOCOL_ERROR, "stream that depends on itself")

    def read_priority(self, connection: RequestChannel, stream_id: int, payload: bytes) -> None:
        code, reason = 0, ""
        if not stream_id:
            raise Http2ConnectionError(PROTOCOL_ERROR, "PRIORITY on stream 0")
        if not is_priority_size(payload):
            code, reason = FRAME_SIZE_ERROR, "PRIORITY without five bytes"
        elif priority_dependency(payload) == stream_id:
            code, reason = PROTOCOL_ERROR, "stream that depends on itself"
        if code:
            if stream_id not in connection.streams:
                # RST_STREAM must not be sent for an idle stream.
                raise Http2ConnectionError(code, reason)
            raise Http2StreamError(stream_id, code, reason)
