"""A client of conformance cases: it sends bytes, and reads frames with hyperframe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, Union

from hpack import Decoder
from hyperframe.frame import Frame, GoAwayFrame, RstStreamFrame, SettingsFrame

from tests.helpers.h2_conformance import frames

_HEADER_SIZE = 9

# Frames in a failure's message.
_MAX_SHOWN = 8


class ConformanceError(AssertionError):
    """The server did not do what a case requires."""


class NotApplicableError(Exception):
    """The server's settings leave no way to send what a case requires."""


class Wire(Protocol):
    """A connection to the server."""

    def send(self, data: bytes) -> None:
        """Send bytes; the server may have closed the connection."""

    def receive(self) -> bytes | None:
        """Return received bytes, `b""` after the end of the connection, `None` for silence."""


class ConnectionClosed:
    """The event that the server has closed the connection."""

    def __repr__(self) -> str:
        """Return the name for messages."""
        return "connection closed"


Event = Union[Frame, ConnectionClosed]


class Client:
    """
    One connection of a conformance case.

    Attributes:
        strict: require more than h2spec: a GOAWAY frame with an allowed code before a close, a
            connection that is usable after a stream error, and responses with status 200.
        settings: the server's settings by identifier.
        decoder: decodes the header blocks of the responses.
    """

    def __init__(self, wire: Wire, strict: bool = False) -> None:
        """Create a client that has sent nothing yet."""
        self.strict = strict
        self.settings: dict[int, int] = {}
        self.decoder = Decoder()
        self._wire = wire
        self._received = b""
        self._closed = False
        self._seen: list[str] = []

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self._wire.send(data)

    def events(self) -> Iterator[Event]:
        """Yield the received frames, until the connection ends or the server is silent."""
        while not self._closed:
            frame = self._next_frame()
            if frame is not None:
                self._seen.append(_summary(frame))
                yield frame
                continue
            received = self._wire.receive()
            if received is None:
                return
            if not received:
                self._closed = True
                self._seen.append("connection closed")
            self._received += received
        yield ConnectionClosed()

    def handshake(self) -> None:
        """
        Exchange the connection prefaces and their acknowledgements.

        Raises:
            ConformanceError: the server's SETTINGS frame or acknowledgement is missing.
        """
        self.send(frames.PREFACE)
        self.send(frames.settings((frames.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW_SIZE)))
        missing = {"SETTINGS", "acknowledgement of SETTINGS"}
        for event in self.events():
            if isinstance(event, SettingsFrame):
                if "ACK" in event.flags:
                    missing.discard("acknowledgement of SETTINGS")
                else:
                    missing.discard("SETTINGS")
                    self.settings.update(event.settings)
                    self.send(frames.frame(frames.SETTINGS, frames.ACK, 0))
            if not missing:
                return
        raise self.failure(" and ".join(sorted(missing)))

    def failure(self, expected: str) -> ConformanceError:
        """Return an error with the last received frames."""
        seen = ", ".join(self._seen[-_MAX_SHOWN:]) or "nothing"
        return ConformanceError(f"expected {expected}; received {seen}")

    def _next_frame(self) -> Frame | None:
        if len(self._received) < _HEADER_SIZE:
            return None
        header = memoryview(self._received[:_HEADER_SIZE])
        frame, length = Frame.parse_frame_header(header)
        end = _HEADER_SIZE + length
        if len(self._received) < end:
            return None
        frame.parse_body(memoryview(self._received[_HEADER_SIZE:end]))
        self._received = self._received[end:]
        return frame


def _summary(frame: Frame) -> str:
    """Return the type, stream, flags and error code of a frame."""
    parts = [type(frame).__name__.replace("Frame", ""), f"stream {frame.stream_id}"]
    parts += sorted(frame.flags)
    if isinstance(frame, (GoAwayFrame, RstStreamFrame)):
        parts.append(f"code {frame.error_code}")
    return f"{parts[0]}({' '.join(parts[1:])})"
