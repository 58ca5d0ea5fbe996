"""Frames and header blocks of a client, also invalid ones, as bytes."""

from __future__ import annotations

import struct

from hpack import Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# Frame types, RFC 9113 6.
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)

# A type that no RFC defines.
UNKNOWN_TYPE = 0x16

# Flags, RFC 9113 6.
ACK = END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

# Settings, RFC 9113 6.5.2.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6

# Values that apply until a peer's SETTINGS frame has others.
DEFAULT_WINDOW_SIZE = 65535
DEFAULT_FRAME_SIZE = 16384
DEFAULT_TABLE_SIZE = 4096

# Error codes, RFC 9113 7.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = range(4, 8)
CANCEL, COMPRESSION_ERROR = 0x8, 0x9
UNKNOWN_CODE = 0xFF

# Largest window, RFC 9113 6.9.1.
MAX_WINDOW_SIZE = 2**31 - 1

Fields = tuple[tuple[str, str], ...]

REQUEST: Fields = (
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "localhost"),
)
POST_REQUEST: Fields = ((":method", "POST"), *REQUEST[1:])

# A field of a size that fits in one frame but not beside four others.
LONG_FIELD = ("x-long", "x" * 4000)

PING_DATA = b"balanced"


def encode(*fields: tuple[str, str]) -> bytes:
    """
    Return a header block.

    Each block refers to its own fields only, so the blocks of a connection can be sent in
    any order.
    """
    return Encoder().encode(fields)


GET_BLOCK = encode(*REQUEST)
POST_BLOCK = encode(*POST_REQUEST)
LONG_BLOCK = encode(LONG_FIELD)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame; bit 31 of `stream` is the reserved bit."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def headers(
    block: bytes = GET_BLOCK,
    stream: int = 1,
    end_stream: bool = True,
    end_headers: bool = True,
) -> bytes:
    """Return a HEADERS frame."""
    flags = END_STREAM * end_stream | END_HEADERS * end_headers
    return frame(HEADERS, flags, stream, block)


def opened(block: bytes = POST_BLOCK, stream: int = 1) -> bytes:
    """Return a HEADERS frame that leaves the stream open for content."""
    return headers(block, stream, end_stream=False)


def unfinished(block: bytes = GET_BLOCK, stream: int = 1, end_stream: bool = True) -> bytes:
    """Return a HEADERS frame that CONTINUATION frames must follow."""
    return headers(block, stream, end_stream, end_headers=False)


def continuation(block: bytes, stream: int = 1, end_headers: bool = True) -> bytes:
    """Return a CONTINUATION frame."""
    return frame(CONTINUATION, END_HEADERS * end_headers, stream, block)


def data(content: bytes = b"test", stream: int = 1, end_stream: bool = True) -> bytes:
    """Return a DATA frame."""
    return frame(DATA, END_STREAM * end_stream, stream, content)


def dependency(depends_on: int = 0, weight: int = 255, exclusive: bool = False) -> bytes:
    """Return the priority fields of a frame; the weight is one less than its meaning."""
    return struct.pack(">IB", depends_on | exclusive << 31, weight)


def priority(stream: int, fields: bytes | None = None) -> bytes:
    """Return a PRIORITY frame."""
    return frame(PRIORITY, 0, stream, dependency() if fields is None else fields)


def rst_stream(stream: int = 1, code: int = CANCEL) -> bytes:
    """Return a RST_STREAM frame."""
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def settings(*values: tuple[int, int]) -> bytes:
    """Return a SETTINGS frame with these identifiers and values."""
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *value) for value in values))


def ping(content: bytes = PING_DATA, flags: int = 0, stream: int = 0) -> bytes:
    """Return a PING frame."""
    return frame(PING, flags, stream, content)


def goaway(code: int = NO_ERROR, stream: int = 0) -> bytes:
    """Return a GOAWAY frame."""
    return frame(GOAWAY, 0, stream, struct.pack(">II", 0, code))


def window_update(increment: int, stream: int = 0) -> bytes:
    """Return a WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))
