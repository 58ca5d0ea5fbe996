"""The HTTP/2 client of health checks: one request on a connection of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseFailed

from balancebeam.protocols.http2.errors import (
    COMPRESSION_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    Http2ConnectionError,
    Http2StreamError,
    error_name,
)
from balancebeam.protocols.http2.frame_reader import FrameReader
from balancebeam.protocols.http2.frames import (
    END_STREAM,
    PADDED,
    PREFACE,
    encode_data,
    encode_goaway,
    encode_headers,
    remove_padding,
)
from balancebeam.protocols.http2.hpack import HeaderLimits
from balancebeam.protocols.http2.hpack_encoder import encode_fields
from balancebeam.protocols.http2.hpack_errors import HeaderListTooLarge, HpackError
from balancebeam.protocols.http2.output import FrameOutput, OutputStream
from balancebeam.protocols.http2.settings import ENABLE_PUSH, encode_settings
from balancebeam.protocols.http2.table_state import HeaderDecoder, SharedTables

Fields = Sequence[tuple[bytes, bytes]]

STREAM_ID = 1

# Generous for a health check; the bytes of the whole connection are limited as well.
_HEADER_LIMITS = HeaderLimits(16 * 1024, 100)


class Http2CheckError(Exception):
    """The server did not answer by a response; the text says what it did instead."""


@frozen
class Http2CheckResponse:
    """
    A complete response.

    Attributes:
        fields: The fields of the head and the trailers; trailers replace fields of the head.
        content: The content; empty if only the head was awaited.
    """

    fields: Mapping[bytes, bytes]
    content: bytes

    @property
    def status(self) -> int:
        """The status; 0 if the server has sent none, or an invalid one."""
        value = self.fields.get(b":status", b"")
        return int(value) if len(value) == 3 and value.isdigit() else 0


class _CheckReader(FrameReader["Http2Check"]):
    """
    Reads the response from the frames of a connection.

    Attributes:
        fields: The fields that were received; see `Http2CheckResponse`.
        content: The parts of the content.
    """

    def __init__(self) -> None:
        super().__init__()
        tables: SharedTables[dict[bytes, bytes]] = SharedTables(dict)
        self._decoder = HeaderDecoder(tables, _HEADER_LIMITS)
        self.fields: dict[bytes, bytes] = {}
        self.content: list[bytes] = []

    def read_headers(
        self, connection: Http2Check, flags: int, stream_id: int, block: bytes
    ) -> None:
        self.check_not_idle(connection, stream_id)
        try:
            fields = self._decoder.decode(block)
        except HpackError as error:
            raise Http2ConnectionError(COMPRESSION_ERROR, str(error)) from None
        except HeaderListTooLarge:
            raise Http2ConnectionError(PROTOCOL_ERROR, "response head too large") from None
        if fields.get(b":status", b"")[:1] == b"1":
            return
        self.fields.update(fields)
        if flags & END_STREAM or connection.head_only:
            connection.complete()

    def read_data(self, connection: Http2Check, flags: int, stream_id: int, payload: bytes) -> None:
        self.check_not_idle(connection, stream_id)
        self.content.append(remove_padding(flags, payload) if flags & PADDED else payload)
        if flags & END_STREAM:
            connection.complete()

    def read_reset(self, connection: Http2Check, stream_id: int, code: int) -> None:
        connection.fail(f"reset the stream: {error_name(code)}")

    def read_goaway(self, connection: Http2Check, last_stream_id: int, code: int) -> None:
        if last_stream_id < STREAM_ID or code != NO_ERROR:
            connection.fail(f"closed the connection: GOAWAY: {error_name(code)}")

    def settings_applied(self, connection: Http2Check, settings: Sequence[tuple[int, int]]) -> None:
        """Do nothing: the request was sent already."""

    def check_not_idle(self, connection: Http2Check, stream_id: int) -> None:
        if stream_id != STREAM_ID:
            raise Http2ConnectionError(PROTOCOL_ERROR, "frame on an idle stream")

    def fail_stream(self, connection: Http2Check, error: Http2StreamError) -> None:
        connection.fail(f"violated HTTP/2: {error.reason}")

    def spend_glitch(self, connection: Http2Check) -> None:
        """Do nothing: the bytes of the connection and its time are limited."""


class Http2Check(Protocol):
    """
    Sends one request, whose body must fit the initial window, and closes after its response.

    Args:
        fields: The fields of the request, pseudo-fields first.
        content: The body; empty for none.
        head_only: The response is complete with its head.

    Attributes:
        response: Fires with the response, or fails with the reason why there is none.
        output: See `FrameConnection`, as `closing` and `streams`.
        head_only: See the argument.
    """

    output: FrameOutput
    closing = False
    streams: Mapping[int, OutputStream] = {}

    def __init__(self, fields: Fields, content: bytes = b"", head_only: bool = False) -> None:
        self._request_fields = fields
        self._request_content = content
        self.head_only = head_only
        self._reader = _CheckReader()
        self.response: Deferred[Http2CheckResponse] = Deferred(lambda _: self._abort())

    def connectionMade(self) -> None:
        transport: ITCPTransport = self.transport  # type: ignore[assignment]
        # Written by `flush` below, once per call.
        self.output = FrameOutput(transport.write, lambda function: None)
        content = self._request_content
        self.output.append(PREFACE + encode_settings(((ENABLE_PUSH, 0),)))
        block = encode_fields(self._request_fields)
        self.output.append(encode_headers(STREAM_ID, block, not content))
        if content:
            self.output.append(encode_data(STREAM_ID, content, True))
        self.output.flush()

    def dataReceived(self, data: bytes) -> None:
        if self.closing:
            return
        try:
            self._reader.read(self, data)
        except Http2ConnectionError as error:
            self.fail(f"violated HTTP/2: {error.reason}")
        else:
            if not self.closing:
                self.output.flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.closing:
            return
        self.closing = True
        if self.response.called:
            return
        # As treq reports it, so that requests over both versions have the same reasons.
        lost = reason if reason.value is not None else Failure(ConnectionDone())
        self.response.errback(ResponseFailed([lost]))

    # The end

    def complete(self) -> None:
        """Close the connection, and report the response."""
        self.closing = True
        self.output.append(encode_goaway(0, NO_ERROR))
        self.output.flush()
        transport: ITCPTransport = self.transport  # type: ignore[assignment]
        transport.loseConnection()
        reader = self._reader
        self.response.callback(Http2CheckResponse(reader.fields, b"".join(reader.content)))

    def fail(self, text: str) -> None:
        """Abort the connection, and report what the server did instead of a response."""
        self._abort()
        if not self.response.called:
            self.response.errback(Http2CheckError(text))

    def _abort(self) -> None:
        self.closing = True
        transport: ITCPTransport = self.transport  # type: ignore[assignment]
        transport.abortConnection()
