"""
Bodies: where one ends, and nothing else.

Readers are fed bytes as they arrive and say how many belong to the body.
`CHUNKED` bodies are taken apart and framed anew, so that sizes, extensions
and line ends are always ours.
"""

from __future__ import annotations

from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.grammar import CHUNK_LINE, CRLF

LAST_CHUNK = b"0\r\n\r\n"

# Node has 16 KiB for all extensions of a message; more than a few of them is
# an attack on whoever stores them.
MAX_EXTENSIONS = 16 * 1024
MAX_CHUNK_LINE = 4 * 1024
MAX_TRAILERS = 16 * 1024
MAX_TRAILER_FIELDS = 64

# RFC 9110, 6.5.1: trailers must not be used for framing, routing, request
# modifiers, authentication, or content handling. The forwarding fields are
# ours to set.
FORBIDDEN_TRAILERS = frozenset(
    b"""transfer-encoding content-length host connection keep-alive proxy-connection te trailer
    upgrade expect max-forwards authorization proxy-authorization proxy-authenticate
    www-authenticate cookie set-cookie cache-control range content-encoding content-type
    content-range via forwarded x-forwarded-for x-forwarded-proto x-forwarded-host
    x-forwarded-port x-real-ip x-request-id http2-settings date location vary age expires""".split()
)


class BodyError(Exception):
    """A body whose framing is broken."""


class ContentLengthReader:
    """
    A body of `length` octets.

    `feed` returns the octets that belong to the body; `complete` tells that
    it has all, `trailing_data` is what came behind it.
    """

    __slots__ = ("complete", "remaining", "trailers", "trailing_data")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.complete = length == 0
        self.trailing_data = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        remaining = self.remaining - len(data)
        if remaining > 0:
            self.remaining = remaining
            return data
        self.complete = True
        self.remaining = 0
        if remaining:
            self.trailing_data = data[remaining:]
            return data[:remaining]
        return data


class CloseDelimitedReader:
    """A body that ends with its connection."""

    __slots__ = ("complete", "trailers", "trailing_data")

    def __init__(self) -> None:
        self.complete = False
        self.trailing_data = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        return data


_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkedReader:
    """
    A body in chunked transfer coding (RFC 9112, 7.1).

    `feed` returns the content found in `data`, all chunks joined; it raises
    `BodyError` at the first octet that does not belong there. `trailers` are
    the trailer fields that may go on, each line ended by CRLF.
    """

    __slots__ = (
        "_buffer",
        "_extensions",
        "_remaining",
        "_state",
        "complete",
        "trailers",
        "trailing_data",
    )

    def __init__(self) -> None:
        self.complete = False
        self.trailing_data = b""
        self.trailers = b""
        self._buffer = b""
        self._remaining = 0
        self._extensions = 0
        self._state = _SIZE

    def feed(self, data: bytes) -> bytes:
        if self._state == _DATA and len(data) < self._remaining:
            self._remaining -= len(data)
            return data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        content: list[bytes] = []
        position = 0
        while True:
            state = self._state
            if state == _DATA:
                piece = data[position : position + self._remaining]
                content.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if self._remaining:
                    break
                self._state = _DATA_END
            elif state == _DATA_END:
                end = data[position : position + 2]
                if not CRLF.startswith(end):
                    raise BodyError("a chunk that does not end where it should")
                if len(end) < 2:
                    self._buffer = end
                    break
                position += 2
                self._state = _SIZE
            elif state == _SIZE:
                end_of_line = data.find(CRLF, position)
                if end_of_line < 0:
                    self._buffer = _incomplete_line(data[position:], MAX_CHUNK_LINE)
                    break
                self._start_chunk(data[position:end_of_line])
                position = end_of_line + 2
            else:
                self._parse_trailers(data[position:])
                break
        return b"".join(content)

    def _start_chunk(self, line: bytes) -> None:
        match = CHUNK_LINE.fullmatch(line)
        if match is None or len(line) > MAX_CHUNK_LINE:
            raise BodyError("a malformed chunk size")
        size = match.group(1)
        self._extensions += len(line) - len(size)
        if self._extensions > MAX_EXTENSIONS:
            raise BodyError("too many chunk extensions")
        self._remaining = int(size, 16)
        if self._remaining >= 2**63:
            raise BodyError("a chunk size beyond 2^63")
        self._state = _DATA if self._remaining else _TRAILERS

    def _parse_trailers(self, data: bytes) -> None:
        if data.startswith(CRLF):
            self.complete = True
            self.trailing_data = data[2:]
            return
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = _incomplete_line(data, MAX_TRAILERS)
            return
        if end > MAX_TRAILERS:
            raise BodyError("trailers that are too large")
        self.trailers = filter_trailers(data[:end].split(CRLF))
        self.complete = True
        self.trailing_data = data[end + 4 :]


def _incomplete_line(data: bytes, limit: int) -> bytes:
    """What may still become whole lines. Raises `BodyError` if it cannot."""
    # Part of the line end may be here already; it does not count.
    if len(data.rstrip(CRLF)) > limit:
        raise BodyError("a line that is too long")
    # Without this a bare LF would only be noticed when the time is up.
    if b"\n" in data.replace(CRLF, b""):
        raise BodyError("a bare LF")
    return data


def filter_trailers(lines: list[bytes]) -> bytes:
    """
    The trailer fields that may be passed on, each ended by CRLF.

    Raises `BodyError` for a line that is no field.
    """
    if len(lines) > MAX_TRAILER_FIELDS:
        raise BodyError("too many trailer fields")
    passed = []
    for line in lines:
        try:
            field = f.parse_field(line, {})
        except f.FieldError as error:
            raise BodyError(str(error)) from None
        if field.name.replace(b"_", b"-") not in FORBIDDEN_TRAILERS:
            passed.append(line + CRLF)
    return b"".join(passed)


def encode_chunk(content: bytes) -> bytes:
    """`content`, not empty, framed as one chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def encode_last_chunk(trailers: bytes) -> bytes:
    """The end of a chunked body, with trailer lines that each end with CRLF."""
    return b"0\r\n%b\r\n" % trailers if trailers else LAST_CHUNK
