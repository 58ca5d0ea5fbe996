"""What a server must do in a conformance case."""

from __future__ import annotations

from attrs import field, frozen
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from tests.helpers.h2_conformance import frames
from tests.helpers.h2_conformance.client import Client, ConnectionClosed

Codes = tuple[int, ...]


@frozen
class ConnectionFault:
    """
    A connection error with one of these codes: GOAWAY or, unless strict, a close.

    Attributes:
        codes: the allowed error codes.
    """

    codes: Codes

    def verify(self, client: Client) -> None:
        """Read until the error; a strict client requires that a close follows GOAWAY."""
        for event in client.events():
            if isinstance(event, GoAwayFrame):
                if event.error_code in self.codes:
                    if client.strict:
                        CLOSED.verify(client)
                    return
                if client.strict:
                    break
            if isinstance(event, ConnectionClosed) and not client.strict:
                return
        raise client.failure(f"a connection error with code {_names(self.codes)}")


@frozen
class StreamFault:
    """
    A stream error with one of these codes; a connection error is allowed too.

    RFC 9113 5.4.2 and 5.4.1 leave it to an endpoint to treat a stream error as a
    connection error.

    Attributes:
        codes: the allowed error codes.
        stream: the stream that must be reset; `None` for any.
    """

    codes: Codes
    stream: int | None = 1

    def verify(self, client: Client) -> None:
        """Read until the error; a strict client then requires a usable connection."""
        for event in client.events():
            if isinstance(event, RstStreamFrame) and event.error_code in self.codes:
                if client.strict:
                    if self.stream not in (None, event.stream_id):
                        break
                    client.send(frames.ping(b"\0after\0\0"))
                    PingAck(b"\0after\0\0").verify(client)
                return
            if isinstance(event, GoAwayFrame) and event.error_code in self.codes:
                return
            if isinstance(event, ConnectionClosed) and not client.strict:
                return
        raise client.failure(f"a stream error with code {_names(self.codes)}")


@frozen
class Reset:
    """
    A RST_STREAM frame of one stream; a connection error is not allowed.

    Attributes:
        code: the error code.
        stream: the stream.
    """

    code: int
    stream: int = 1

    def verify(self, client: Client) -> None:
        """Read until the first RST_STREAM frame, which must be this one."""
        for event in client.events():
            if isinstance(event, RstStreamFrame):
                if (event.stream_id, event.error_code) == (self.stream, self.code):
                    return
                break
        raise client.failure(f"RST_STREAM of stream {self.stream} with code {self.code}")


@frozen
class GoAway:
    """
    A GOAWAY frame; a close without it is not allowed.

    Attributes:
        codes: the allowed error codes.
    """

    codes: Codes

    def verify(self, client: Client) -> None:
        """Read until the first GOAWAY frame, which must have an allowed code."""
        for event in client.events():
            if isinstance(event, GoAwayFrame):
                if event.error_code in self.codes:
                    return
                break
        raise client.failure(f"GOAWAY with code {_names(self.codes)}")


@frozen
class Closed:
    """The end of the connection."""

    def verify(self, client: Client) -> None:
        """Read until the end of the connection."""
        if not any(isinstance(event, ConnectionClosed) for event in client.events()):
            raise client.failure("a close")


@frozen
class Response:
    """
    The header block of a response.

    Attributes:
        stream: the stream of the request.
    """

    stream: int = 1

    def verify(self, client: Client) -> None:
        """Read until the first HEADERS frame; a strict client requires status 200 in it."""
        for event in client.events():
            if isinstance(event, HeadersFrame):
                if event.stream_id != self.stream:
                    break
                status = dict(client.decoder.decode(event.data, raw=True)).get(b":status")
                if status is None or (client.strict and status != b"200"):
                    break
                return
        raise client.failure(f"a response on stream {self.stream}")


@frozen
class StreamEnd:
    """The end of the response of the only stream."""

    def verify(self, client: Client) -> None:
        """Read until a frame with END_STREAM, or a reset without an error."""
        for event in client.events():
            if isinstance(event, Frame) and "END_STREAM" in event.flags:
                return
            if isinstance(event, RstStreamFrame) and event.error_code == frames.NO_ERROR:
                return
        raise client.failure("the end of the stream")


@frozen
class Content:
    """
    A DATA frame.

    Attributes:
        size: number of bytes; `None` if it does not matter.
    """

    size: int | None = None

    def verify(self, client: Client) -> None:
        """Read until the first DATA frame, which must have the size."""
        for event in client.events():
            if isinstance(event, DataFrame):
                if self.size is None or len(event.data) == self.size:
                    return
                break
        raise client.failure("DATA" if self.size is None else f"DATA of {self.size} bytes")


@frozen
class FirstSettings:
    """The server's connection preface: its first frame is SETTINGS without ACK."""

    def verify(self, client: Client) -> None:
        """Read one event."""
        for event in client.events():
            if isinstance(event, SettingsFrame) and "ACK" not in event.flags:
                return
            break
        raise client.failure("SETTINGS as the first frame")


@frozen
class SettingsAck:
    """An acknowledgement of SETTINGS."""

    def verify(self, client: Client) -> None:
        """Read until the first SETTINGS frame, which must have ACK."""
        for event in client.events():
            if isinstance(event, SettingsFrame):
                if "ACK" in event.flags:
                    return
                break
        raise client.failure("an acknowledgement of SETTINGS")


@frozen
class PingAck:
    """
    The response to a PING frame.

    Attributes:
        data: the data of the PING frame.
        or_closed: whether the server may close the connection in place of it.
    """

    data: bytes = field(default=frames.PING_DATA)
    or_closed: bool = False

    def verify(self, client: Client) -> None:
        """Read until the first PING frame, which must have ACK and the data."""
        for event in client.events():
            if isinstance(event, PingFrame):
                if "ACK" in event.flags and event.opaque_data == self.data:
                    return
                break
            if self.or_closed and isinstance(event, ConnectionClosed):
                return
        raise client.failure("an acknowledgement of PING")


CLOSED = Closed()


def connection_error(*codes: int) -> ConnectionFault:
    """Return the expectation of a connection error with one of these codes."""
    return ConnectionFault(codes)


def stream_error(*codes: int, stream: int | None = 1) -> StreamFault:
    """Return the expectation of a stream error with one of these codes."""
    return StreamFault(codes, stream)


def _names(codes: Codes) -> str:
    return " or ".join(f"0x{code:x}" for code in codes)
