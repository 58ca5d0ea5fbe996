"""Input of an HTTP/2 connection to a server: responses, and the announcements of the server."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from balancebeam.core.errors import ResponseError
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.protocols.http2.abuse import AbuseBudget
from balancebeam.protocols.http2.errors import (
    COMPRESSION_ERROR,
    PROTOCOL_ERROR,
    Http2ConnectionError,
    Http2StreamError,
)
from balancebeam.protocols.http2.frame_reader import FrameReader
from balancebeam.protocols.http2.frames import (
    END_STREAM,
    PADDED,
    encode_window_update,
    remove_padding,
)
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.output import FrameOutput
from balancebeam.protocols.http2.response_fields import ResponseSection
from balancebeam.protocols.http2.settings import PeerSettings
from balancebeam.protocols.http2.table_state import HeaderDecoder, SharedTables
from balancebeam.upstream.http2_shared import CONNECTION_THRESHOLD, HEADER_LIMITS, MAX_STREAMS
from balancebeam.upstream.http2_stream import Http2Stream


class ResponseConnection(typing.Protocol):
    """
    The connection, as far as its input is concerned.

    Attributes:
        output: Sends frames.
        streams: The streams that are not closed, by identifier.
        next_id: The identifier of the next stream.
        closing: Whether input is ignored.
    """

    output: FrameOutput
    streams: dict[int, Http2Stream]
    next_id: int
    closing: bool

    @property
    def now(self) -> float:
        """The time on the ticker."""

    def settings_changed(self) -> None:
        """The server may allow more streams, or fewer."""

    def fail_stream(self, stream: Http2Stream, code: int, reason: str) -> None:
        """Reset a stream for an error of the server."""

    def stream_reset(self, stream: Http2Stream, code: int) -> None:
        """The server has reset a stream."""

    def goaway_received(self, last_stream_id: int, code: int) -> None:
        """The server closes the connection once the streams up to the last one have ended."""


class ResponseReader(FrameReader[ResponseConnection]):
    """
    Assigns the frames of a connection to its streams.

    Args:
        now: The time on the ticker.
        tables: The states of the tables for header blocks of responses.

    Attributes:
        settings: The settings of the server; `None` until they are received.
        max_streams: How many streams may be open at once.
    """

    def __init__(self, now: float, tables: SharedTables[ResponseSection]) -> None:
        super().__init__()
        self.settings: PeerSettings | None = None
        self.max_streams = MAX_STREAMS
        self._decoder = HeaderDecoder(tables, HEADER_LIMITS)
        self._budget = AbuseBudget(now)
        # Bytes of DATA for which the window of the connection was not opened again.
        self._unacked = 0

    @property
    def accepts_tunnels(self) -> bool:
        """Whether the server accepts extended CONNECT (RFC 8441)."""
        return self.settings is not None and self.settings.enable_connect_protocol

    # FrameReader

    def read_headers(
        self, connection: ResponseConnection, flags: int, stream_id: int, block: bytes
    ) -> None:
        stream = connection.streams.get(stream_id)
        if stream is None:
            self.check_not_idle(connection, stream_id)
        try:
            section = self._decoder.decode(block)
        except HpackError as error:
            raise Http2ConnectionError(COMPRESSION_ERROR, str(error)) from None
        except HeaderListTooLarge:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "response head too large") from None
        except ResponseError as error:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, str(error)) from None
        end = bool(flags & END_STREAM)
        if stream is None:
            # Sent before the server has received RST_STREAM.
            self.spend_glitch(connection)
        elif stream.has_head:
            if isinstance(section, ResponseHead) or not end:
                raise Http2StreamError(stream_id, PROTOCOL_ERROR, "HEADERS that are no trailers")
            stream.read_trailers(section.text)
        elif isinstance(section, ResponseHead):
            stream.read_head(section, end)
        else:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, "response without :status")

    def read_data(
        self, connection: ResponseConnection, flags: int, stream_id: int, payload: bytes
    ) -> None:
        size = len(payload)
        # Opened again at once, so that a stream whose client is slow stops no other stream.
        self._unacked += size
        if self._unacked >= CONNECTION_THRESHOLD:
            connection.output.append(encode_window_update(0, self._unacked))
            self._unacked = 0
        content = remove_padding(flags, payload) if flags & PADDED else payload
        end = bool(flags & END_STREAM)
        if not content and not end:
            self.spend_glitch(connection)
        stream = connection.streams.get(stream_id)
        if stream is None:
            self.check_not_idle(connection, stream_id)
            return
        stream.read_data(content, size, end)

    def read_reset(self, connection: ResponseConnection, stream_id: int, code: int) -> None:
        stream = connection.streams.get(stream_id)
        if stream is None:
            self.spend_glitch(connection)
        else:
            connection.stream_reset(stream, code)

    def read_goaway(self, connection: ResponseConnection, last_stream_id: int, code: int) -> None:
        connection.goaway_received(last_stream_id, code)

    def settings_applied(
        self, connection: ResponseConnection, settings: Sequence[tuple[int, int]]
    ) -> None:
        if self.settings is None:
            self.settings = PeerSettings()
        self.settings.apply(settings)
        limit = self.settings.max_concurrent_streams
        self.max_streams = MAX_STREAMS if limit is None else min(limit, MAX_STREAMS)
        connection.settings_changed()

    def check_not_idle(self, connection: ResponseConnection, stream_id: int) -> None:
        if stream_id >= connection.next_id or not stream_id & 1:
            raise Http2ConnectionError(PROTOCOL_ERROR, "frame on an idle stream")

    def fail_stream(self, connection: ResponseConnection, error: Http2StreamError) -> None:
        stream = connection.streams.get(error.stream_id)
        if stream is None:
            self.spend_glitch(connection)
        else:
            connection.fail_stream(stream, error.code, error.reason)

    def spend_glitch(self, connection: ResponseConnection) -> None:
        sent = connection.output.bytes_sent
        self._budget.spend_glitch(connection.now, connection.next_id // 2, sent)
