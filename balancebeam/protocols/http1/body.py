"""
Message bodies: where they end, in the three framings of RFC 9112, 6.3.

A reader is fed bytes as they arrive, and returns the ones that belong to the body.
A chunked body is decoded and encoded again, so that chunk sizes, extensions and line
ends that are forwarded are always the proxy's own.
"""

from __future__ import annotations

import enum
from typing import Union

from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.grammar import CHUNK_LINE, CRLF

# Body lengths that are not a number of bytes. Plain integers, negative: `length`
# fields of heads are compared on every request.
CHUNKED = -1
CLOSE_DELIMITED = -2

LAST_CHUNK = b"0\r\n\r\n"

# For all chunks of a body together; Node has 16 KiB too. Useful extensions are
# rare, and large ones are an attack on recipients that store them.
MAX_EXTENSIONS = 16 * 1024
# Go has 4 KiB (maxLineLength of net/http/internal).
MAX_CHUNK_LINE = 4 * 1024
# Node has 16 KiB for head and trailers (--max-http-header-size).
MAX_TRAILERS = 16 * 1024
# Half of the fields that a request head may have.
MAX_TRAILER_FIELDS = 64

# RFC 9110, 6.5.1: trailers must not be used for framing, routing, request
# modifiers, authentication, or content handling. The forwarding fields are
# set by the proxy only. RFC 9440, 2.2 and 2.3: Client-Cert and Client-Cert-Chain
# "MUST NOT be used in trailers".
FORBIDDEN_TRAILERS = frozenset(
    b"""transfer-encoding content-length host connection keep-alive proxy-connection te trailer
    upgrade expect max-forwards authorization proxy-authorization proxy-authenticate
    www-authenticate cookie set-cookie cache-control range content-encoding content-type
    content-range via forwarded x-forwarded-for x-forwarded-proto x-forwarded-host
    x-forwarded-port x-real-ip x-request-id client-cert client-cert-chain http2-settings date
    location vary age expires""".split()
)


class BodyError(Exception):
    """A body with invalid framing."""


class ContentLengthReader:
    """
    Reads a body of known length.

    Attributes:
        complete: The last byte of the body has been received.
        remaining: Bytes of the body that have not been received.
        trailers: Empty, as for every reader but `ChunkedReader`.
        trailing_data: Bytes received after the end of the body.
    """

    __slots__ = ("complete", "remaining", "trailers", "trailing_data")

    def __init__(self, length: int) -> None:
        """Create a reader for a body of `length` bytes, complete at once for 0."""
        self.remaining = length
        self.complete = length == 0
        self.trailing_data = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to the body."""
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
    """
    Reads a body that ends with its connection.

    Attributes:
        complete: Always false; the connection's end is the body's.
        trailers: Empty.
        trailing_data: Empty.
    """

    __slots__ = ("complete", "trailers", "trailing_data")

    def __init__(self) -> None:
        self.complete = False
        self.trailing_data = b""
        self.trailers = b""

    def feed(self, data: bytes) -> bytes:
        """Return `data`: everything belongs to the body."""
        return data


class _ChunkState(enum.IntEnum):
    """
    What a chunked body continues with (RFC 9112, 7.1).

    Attributes:
        SIZE: The line with the size of a chunk.
        DATA: Content of a chunk.
        DATA_END: The CRLF after the content of a chunk.
        TRAILERS: The trailer section, after the last chunk.
    """

    SIZE = 0
    DATA = 1
    DATA_END = 2
    TRAILERS = 3


# Module globals: an attribute of an enumeration takes 80 ns, two or three per chunk.
_SIZE = _ChunkState.SIZE
_DATA = _ChunkState.DATA
_DATA_END = _ChunkState.DATA_END
_TRAILERS = _ChunkState.TRAILERS


class ChunkedReader:
    """
    Decodes a body in chunked transfer coding (RFC 9112, 7.1), strictly.

    Attributes:
        complete: The end of the trailer section has been received.
        trailers: The trailer fields that may be forwarded, each ended by CRLF.
        trailing_data: Bytes received after the end of the body.
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

    def __repr__(self) -> str:
        return f"<ChunkedReader {self._state.name} remaining={self._remaining}>"

    def feed(self, data: bytes) -> bytes:
        """
        Return the content in `data`, all chunks joined.

        Raises:
            BodyError: At the first byte that makes the framing invalid.
        """
        if self._state is _DATA and len(data) < self._remaining:
            self._remaining -= len(data)
            return data
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        content: list[bytes] = []
        position = 0
        while True:
            state = self._state
            if state is _DATA:
                piece = data[position : position + self._remaining]
                content.append(piece)
                position += len(piece)
                self._remaining -= len(piece)
                if self._remaining:
                    break
                self._state = _DATA_END
            elif state is _DATA_END:
                end = data[position : position + 2]
                if not CRLF.startswith(end):
                    raise BodyError("chunk data not followed by CRLF")
                if len(end) < 2:
                    self._buffer = end
                    break
                position += 2
                self._state = _SIZE
            elif state is _SIZE:
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
        """Parse the size and the extensions of a chunk."""
        match = CHUNK_LINE.fullmatch(line)
        if match is None or len(line) > MAX_CHUNK_LINE:
            raise BodyError("invalid chunk size")
        size = match.group(1)
        self._extensions += len(line) - len(size)
        if self._extensions > MAX_EXTENSIONS:
            raise BodyError("too many chunk extensions")
        self._remaining = int(size, 16)
        if self._remaining >= 2**63:
            raise BodyError("chunk size of 2^63 or more")
        self._state = _DATA if self._remaining else _TRAILERS

    def _parse_trailers(self, data: bytes) -> None:
        """Parse the trailer section, if all of it has been received."""
        if data.startswith(CRLF):
            self.complete = True
            self.trailing_data = data[2:]
            return
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = _incomplete_line(data, MAX_TRAILERS)
            return
        if end > MAX_TRAILERS:
            raise BodyError("trailer section too large")
        self.trailers = filter_trailers(data[:end].split(CRLF))
        self.complete = True
        self.trailing_data = data[end + 4 :]


def _incomplete_line(data: bytes, limit: int) -> bytes:
    """
    Return `data`, the beginning of a line or of a trailer section, to be kept.

    Raises:
        BodyError: It is longer than `limit` bytes, or has a bare LF.
    """
    # Part of the line end may have been received; it does not count.
    if len(data.rstrip(CRLF)) > limit:
        raise BodyError("line too long in a chunked body")
    # Otherwise a bare LF would be noticed only when the timeout expires.
    if b"\n" in data.replace(CRLF, b""):
        raise BodyError("bare LF in a chunked body")
    return data


def filter_trailers(lines: list[bytes]) -> bytes:
    """
    Return the trailer fields that may be forwarded, each ended by CRLF.

    Raises:
        BodyError: There are too many, or a line is not a valid field line.
    """
    if len(lines) > MAX_TRAILER_FIELDS:
        raise BodyError("too many trailer fields")
    forwarded = []
    for line in lines:
        try:
            field = f.parse_field(line, {})
        except f.FieldError as error:
            raise BodyError(str(error)) from None
        if field.name.replace(b"_", b"-") not in FORBIDDEN_TRAILERS:
            forwarded.append(line + CRLF)
    return b"".join(forwarded)


def encode_chunk(content: bytes) -> bytes:
    """Return `content`, which is not empty, as one chunk."""
    return b"%x\r\n%b\r\n" % (len(content), content)


def encode_last_chunk(trailers: bytes) -> bytes:
    """Return the end of a chunked body; each line of `trailers` ends with CRLF."""
    return b"0\r\n%b\r\n" % trailers if trailers else LAST_CHUNK


def encode_chunked(content: bytes, last: bool, trailers: bytes) -> bytes:
    """
    Return a part of a body in chunked transfer coding.

    Args:
        content: The content of the part; may be empty.
        last: Whether the body ends with `content`.
        trailers: The trailer fields, each ended by CRLF; used with `last` only.
    """
    chunk = encode_chunk(content) if content else b""
    return chunk + encode_last_chunk(trailers) if last else chunk


Body = Union[ContentLengthReader, ChunkedReader, CloseDelimitedReader]


def build_body_reader(length: int) -> Body:
    """Build the reader for a body of `length` bytes, or `CHUNKED`, or `CLOSE_DELIMITED`."""
    if length == CHUNKED:
        return ChunkedReader()
    if length == CLOSE_DELIMITED:
        return CloseDelimitedReader()
    return ContentLengthReader(length)
