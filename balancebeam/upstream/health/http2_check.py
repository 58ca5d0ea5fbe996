"""The connection of one health check over HTTP/2: one request, and its whole response."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from balancebeam.core.errors import ProtocolError, ResponseError
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.response_head import ResponseHead, ResponseHeadParser
from balancebeam.protocols.http2.errors import (
    COMPRESSION_ERROR,
    PROTOCOL_ERROR,
    Http2ConnectionError,
    Http2StreamError,
    error_name,
)
from balancebeam.protocols.http2.frame_reader import FrameReader
from balancebeam.protocols.http2.frames import END_STREAM, encode_goaway, remove_padding
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.output import FrameOutput, OutputStream
from balancebeam.protocols.http2.response_fields import ResponseInterpreter, ResponseSection
from balancebeam.protocols.http2.table_state import HeaderDecoder, SharedTables
from balancebeam.upstream.http2_shared import CLIENT_PREFACE, HEADER_LIMITS

_STREAM_ID = 1


class CheckFailed(Exception):
    """The check got no valid response; the text has the reason."""


@frozen
class CheckResponse:
    """
    A response.

    Attributes:
        head: Its head.
        content: Its content.
        trailers: Its trailer fields, each ended by CRLF.
    """

    head: ResponseHead
    content: bytes
    trailers: bytes

    def field(self, name: bytes) -> bytes | None:
        """The first value of a trailer or header field; `None` without it."""
        lines = b"\r\n" + self.trailers
        values = field_values(lines, name) or field_values(self.head.forward_bytes, name)
        return values[0] if values else None


class _Stream:
    """The stream of the request, as an `OutputStream`."""

    stream_id = _STREAM_ID
    queue: deque[bytes] | None = None
    queued_bytes = 0
    end_queued = False
    trailer_block = b""

    def __init__(self, send_window: int) -> None:
        self.send_window = send_window

    def end_sent(self) -> None:
        """Do nothing: the response follows."""

    def queue_grown(self) -> None:
        """Do nothing: the message is small."""

    def queue_shrunk(self) -> None:
        """Do nothing: the message is small."""


class Http2Check(Protocol):
    """
    Sends one request. It implements `FrameHandler`.

    Attributes:
        result: Fires with the response; fails with `CheckFailed`. To cancel it closes the
            connection.
    """

    transport: Any
    output: FrameOutput

    def __init__(self, block: bytes, content: bytes) -> None:
        """
        Args:
            block: The header block of the request.
            content: Its content.
        """
        self.result: Deferred[CheckResponse] = Deferred(lambda _: self.transport.abortConnection())
        self.closing = False
        self._block, self._request = block, content
        self._frames = FrameReader(self)
        interpreter = ResponseInterpreter(ResponseHeadParser())
        tables: SharedTables[ResponseSection] = SharedTables(interpreter.interpret)
        self._decoder = HeaderDecoder(tables, HEADER_LIMITS)
        self._streams: dict[int, _Stream] = {}
        self._head: ResponseHead | None = None
        self._content = b""

    def connectionMade(self) -> None:
        # The messages are small: each is written at once.
        self.output = FrameOutput(self.transport.write, lambda flush: flush())
        self.transport.write(CLIENT_PREFACE)
        stream = self._streams[_STREAM_ID] = _Stream(self.output.initial_window)
        if self._request:
            self.output.send_headers(stream, self._block)
            self.output.send_content(stream, self._request, True)
        else:
            self.output.send_headers(stream, self._block, True)

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        try:
            self._frames.read(data)
        except ProtocolError as error:
            text = "server sent no HTTP/2" if data.startswith(b"HTTP/1") else str(error)
            self._fail(text)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._fail("connection closed before the response")

    # FrameHandler

    @property
    def streams(self) -> Mapping[int, OutputStream]:
        return self._streams

    def read_headers(self, flags: int, stream_id: int, block: bytes) -> None:
        self.check_not_idle(stream_id)
        try:
            section = self._decoder.decode(block)
        except HpackError as error:
            raise Http2ConnectionError(COMPRESSION_ERROR, str(error)) from None
        except (HeaderListTooLarge, ResponseError) as error:
            raise Http2StreamError(stream_id, PROTOCOL_ERROR, str(error)) from None
        trailers = b""
        if isinstance(section, ResponseHead):
            if section.status < 200:
                return
            self._head = section
        else:
            trailers = section.text
        if flags & END_STREAM:
            self._finish(trailers)

    def read_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        self.check_not_idle(stream_id)
        self._content += remove_padding(flags, payload)
        if flags & END_STREAM:
            self._finish(b"")

    def _finish(self, trailers: bytes) -> None:
        if self._head is None:
            raise Http2StreamError(_STREAM_ID, PROTOCOL_ERROR, "response without HEADERS")
        self._close()
        self.result.callback(CheckResponse(self._head, self._content, trailers))

    def read_reset(self, stream_id: int, code: int) -> None:
        self._fail(f"stream reset with {error_name(code)}")

    def read_goaway(self, last_stream_id: int, code: int, text: bytes) -> None:
        if code or last_stream_id < _STREAM_ID:
            self._fail(f"connection closed with {error_name(code)}")

    def read_settings(self, settings: list[tuple[int, int]]) -> None:
        """Do nothing: `FrameReader` has applied them."""

    def check_not_idle(self, stream_id: int) -> None:
        if stream_id != _STREAM_ID:
            raise Http2ConnectionError(PROTOCOL_ERROR, "frame on an idle stream")

    def fail_stream(self, error: Http2StreamError) -> None:
        self._fail(error.reason)

    def spend_glitch(self) -> None:
        """Do nothing: the number of bytes is limited."""

    def _fail(self, text: str) -> None:
        if not self.closing:
            self._close()
            self.result.errback(CheckFailed(text))

    def _close(self) -> None:
        self.closing = True
        self.output.append(encode_goaway(0, 0))
        self.transport.loseConnection()
