"""
Frames (RFC 9113, 4 and 6): encoders, and parsers of payloads.

The nine bytes before each payload are read in place by `FRAME_HEADER`: its first number has the
length in its upper 24 bits and the type in its lower 8 bits. The last number is the stream
identifier with the reserved bit, which `STREAM_ID_MASK` removes.
"""

from __future__ import annotations

from struct import Struct

from balancebeam.protocols.http2.errors import (
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    Http2ConnectionError,
)

# RFC 9113, 3.4: what a client sends first.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA = 0x0
HEADERS = 0x1
PRIORITY = 0x2
RST_STREAM = 0x3
SETTINGS = 0x4
PUSH_PROMISE = 0x5
PING = 0x6
GOAWAY = 0x7
WINDOW_UPDATE = 0x8
CONTINUATION = 0x9

# Flags. ACK and END_STREAM share a bit; the type of the frame distinguishes them.
ACK = 0x1
END_STREAM = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY_FLAG = 0x20

FRAME_HEADER = Struct(">LBL")
FRAME_HEADER_SIZE = 9
STREAM_ID_MASK = 0x7FFFFFFF

# RFC 9113, 4.2: the largest payload until SETTINGS_MAX_FRAME_SIZE allows more.
DEFAULT_MAX_FRAME_SIZE = 2**14

# The largest stream identifier, and the largest flow-control window.
MAX_STREAM_ID = 2**31 - 1
MAX_WINDOW_SIZE = 2**31 - 1
DEFAULT_WINDOW_SIZE = 2**16 - 1

_FRAME_AND_LONG = Struct(">LBLL")
_GOAWAY = Struct(">LBLLL")
_LONG = Struct(">L")
_TWO_LONGS = Struct(">LL")

_PING_SIZE = 8
_PRIORITY_SIZE = 5

# Bytes of text in a GOAWAY, at most.
_MAX_DEBUG_DATA = 256

encode_frame_header = FRAME_HEADER.pack


def encode_frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """Encode one frame of any type; the payload must not exceed the peer's maximum."""
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def encode_headers(
    stream_id: int,
    block: bytes,
    end_stream: bool = False,
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
) -> bytes:
    """
    Encode a field block as HEADERS, followed by CONTINUATION frames if it is long.

    Args:
        stream_id: The stream.
        block: The encoded fields.
        end_stream: Whether nothing follows on this stream.
        max_frame_size: The peer's limit of a payload in bytes.
    """
    flags = END_STREAM if end_stream else 0
    if len(block) <= max_frame_size:
        flags |= END_HEADERS
        return FRAME_HEADER.pack(len(block) << 8 | HEADERS, flags, stream_id) + block
    parts = [encode_frame(HEADERS, flags, stream_id, block[:max_frame_size])]
    for start in range(max_frame_size, len(block), max_frame_size):
        fragment = block[start : start + max_frame_size]
        last = start + max_frame_size >= len(block)
        parts.append(encode_frame(CONTINUATION, END_HEADERS if last else 0, stream_id, fragment))
    return b"".join(parts)


def encode_data(stream_id: int, content: bytes, end_stream: bool = False) -> bytes:
    """Encode one DATA frame; `content` must not exceed the peer's maximum of a payload."""
    flags = END_STREAM if end_stream else 0
    return FRAME_HEADER.pack(len(content) << 8, flags, stream_id) + content


def encode_rst_stream(stream_id: int, code: int) -> bytes:
    """Encode a RST_STREAM frame."""
    return _FRAME_AND_LONG.pack(4 << 8 | RST_STREAM, 0, stream_id, code)


def encode_window_update(stream_id: int, increment: int) -> bytes:
    """Encode a WINDOW_UPDATE frame, for the connection if `stream_id` is 0."""
    return _FRAME_AND_LONG.pack(4 << 8 | WINDOW_UPDATE, 0, stream_id, increment)


def encode_ping(data: bytes, ack: bool = False) -> bytes:
    """Encode a PING frame with eight bytes of `data`."""
    return encode_frame(PING, ACK if ack else 0, 0, data)


def encode_goaway(last_stream_id: int, code: int, debug_data: bytes = b"") -> bytes:
    """Encode a GOAWAY frame; long `debug_data` is cut."""
    debug_data = debug_data[:_MAX_DEBUG_DATA]
    head = _GOAWAY.pack((8 + len(debug_data)) << 8 | GOAWAY, 0, 0, last_stream_id, code)
    return head + debug_data


def remove_padding(flags: int, payload: bytes) -> bytes:
    """
    Return the payload of a DATA or HEADERS frame without its padding.

    Raises:
        Http2ConnectionError: The padding is longer than the payload (RFC 9113, 6.1).
    """
    if not flags & PADDED:
        return payload
    if not payload:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "padded frame without a pad length")
    padding = payload[0]
    if padding >= len(payload):
        raise Http2ConnectionError(PROTOCOL_ERROR, "padding longer than the payload")
    return payload[1 : len(payload) - padding]


def split_headers(flags: int, payload: bytes) -> tuple[bytes, int]:
    """
    Split the payload of a HEADERS frame.

    Returns:
        The fragment of the field block, and the stream that the priority depends on; 0 if that
        is the root, or if there is no priority.

    Raises:
        Http2ConnectionError: The payload is too short for its flags.
    """
    fragment = remove_padding(flags, payload)
    if not flags & PRIORITY_FLAG:
        return fragment, 0
    if len(fragment) < _PRIORITY_SIZE:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
    return fragment[_PRIORITY_SIZE:], _LONG.unpack_from(fragment)[0] & STREAM_ID_MASK


def parse_window_update(payload: bytes) -> int:
    """
    Return the increment of a WINDOW_UPDATE frame, which may be 0.

    Raises:
        Http2ConnectionError: The size is wrong (RFC 9113, 6.9).
    """
    if len(payload) != 4:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "WINDOW_UPDATE without four bytes")
    increment: int = _LONG.unpack(payload)[0] & MAX_WINDOW_SIZE
    return increment


def parse_rst_stream(payload: bytes) -> int:
    """
    Return the error code of a RST_STREAM frame.

    Raises:
        Http2ConnectionError: The size is wrong (RFC 9113, 6.4).
    """
    if len(payload) != 4:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "RST_STREAM without four bytes")
    code: int = _LONG.unpack(payload)[0]
    return code


def parse_ping(payload: bytes) -> bytes:
    """
    Return the data of a PING frame.

    Raises:
        Http2ConnectionError: The size is wrong (RFC 9113, 6.7).
    """
    if len(payload) != _PING_SIZE:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "PING without eight bytes")
    return payload


def parse_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """
    Return the last stream, the error code and the debug data of a GOAWAY frame.

    Raises:
        Http2ConnectionError: The payload is too short (RFC 9113, 6.8).
    """
    if len(payload) < 8:
        raise Http2ConnectionError(FRAME_SIZE_ERROR, "GOAWAY with fewer than eight bytes")
    last_stream_id, code = _TWO_LONGS.unpack_from(payload)
    return last_stream_id & STREAM_ID_MASK, code, payload[8:]


def is_priority_size(payload: bytes) -> bool:
    """Whether a PRIORITY frame has the right size; if not, it is a stream error (RFC 9113, 6.3)."""
    return len(payload) == _PRIORITY_SIZE


def priority_dependency(payload: bytes) -> int:
    """Return the stream that a PRIORITY frame of the right size names."""
    stream_id: int = _LONG.unpack_from(payload)[0] & STREAM_ID_MASK
    return stream_id
