"""Connection preface, frame format, streams and errors: RFC 9113, sections 3 to 5."""

from __future__ import annotations

from tests.helpers.h2_conformance import frames
from tests.helpers.h2_conformance.case import case, section
from tests.helpers.h2_conformance.client import NotApplicableError
from tests.helpers.h2_conformance.expectations import (
    CLOSED,
    FirstSettings,
    GoAway,
    PingAck,
    Response,
    StreamEnd,
    connection_error,
    stream_error,
)
from tests.helpers.h2_conformance.frames import (
    COMPRESSION_ERROR,
    FRAME_SIZE_ERROR,
    GET_BLOCK,
    LONG_BLOCK,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    continuation,
    data,
    dependency,
    frame,
    headers,
    opened,
    ping,
    priority,
    rst_stream,
    settings,
    unfinished,
    window_update,
)

UNKNOWN_FRAME = frame(frames.UNKNOWN_TYPE, 0, 0, bytes(8))

# Undefined flags of PING.
UNDEFINED_FLAGS = 0x16

# The largest value of the setting; no longer frame can be written.
_MAX_FRAME_SIZE = 2**24 - 1


def frame_size(server: dict[int, int]) -> int:
    """Return the size of the largest payload that the server accepts."""
    return server.get(frames.MAX_FRAME_SIZE, frames.DEFAULT_FRAME_SIZE)


def too_long(server: dict[int, int]) -> int:
    """Return a size above the server's limit."""
    if frame_size(server) == _MAX_FRAME_SIZE:
        raise NotApplicableError("the server accepts frames of every size")
    return frame_size(server) + 1


def too_many_requests(server: dict[int, int]) -> bytes:
    """Return one request more than the server accepts at a time."""
    limit = server.get(frames.MAX_CONCURRENT_STREAMS)
    if limit is None:
        raise NotApplicableError("the server does not limit concurrent streams")
    return b"".join(headers(stream=2 * number + 1) for number in range(limit + 1))


STREAM_CASES = (
    *section(
        "http2/3.5",
        "9113 3.4",
        case(
            "the server's preface is a SETTINGS frame",
            frames.PREFACE,
            settings((frames.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW_SIZE)),
            FirstSettings(),
            handshake=False,
        ),
        case(
            "an invalid preface ends the connection",
            b"INVALID CONNECTION PREFACE\r\n\r\n",
            CLOSED,
            handshake=False,
        ),
    ),
    *section(
        "http2/4.1",
        "9113 4.1",
        case("a frame of an unknown type is ignored", UNKNOWN_FRAME, ping(), PingAck()),
        case("undefined flags are ignored", ping(flags=UNDEFINED_FLAGS), PingAck()),
        case(
            "the reserved bit is ignored",
            ping(flags=UNDEFINED_FLAGS, stream=1 << 31),
            PingAck(),
        ),
    ),
    *section(
        "http2/4.2",
        "9113 4.2",
        case(
            "a DATA frame of the largest size is accepted",
            opened(),
            lambda server: data(b"x" * min(frame_size(server), 65535)),
            Response(),
        ),
        case(
            "a DATA frame that is too long is an error",
            opened(),
            lambda server: data(b"x" * too_long(server)),
            stream_error(FRAME_SIZE_ERROR),
        ),
        case(
            "a HEADERS frame that is too long is a connection error",
            lambda server: headers(GET_BLOCK + b"\0\1x\x7f\x80\x7f" + b"x" * too_long(server)),
            connection_error(FRAME_SIZE_ERROR),
        ),
    ),
    *section(
        "http2/4.3",
        "9113 4.3",
        case(
            "a header block that cannot be decoded is a connection error",
            headers(b"\x40"),
            connection_error(COMPRESSION_ERROR),
        ),
        case(
            "PRIORITY within a header block is a connection error",
            *(unfinished(end_stream=False), priority(1), continuation(LONG_BLOCK)),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "HEADERS of another stream within a header block is a connection error",
            *(unfinished(end_stream=False), headers(stream=3), continuation(LONG_BLOCK)),
            connection_error(PROTOCOL_ERROR),
        ),
    ),
    *section(
        "http2/5.1",
        "9113 5.1",
        case(
            "DATA on an idle stream is an error",
            data(),
            stream_error(PROTOCOL_ERROR, STREAM_CLOSED),
        ),
        case(
            "RST_STREAM on an idle stream is a connection error",
            rst_stream(),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "WINDOW_UPDATE on an idle stream is a connection error",
            window_update(100, stream=1),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "CONTINUATION on an idle stream is a connection error",
            continuation(GET_BLOCK),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "DATA on a half-closed stream is an error",
            *(headers(), data()),
            stream_error(STREAM_CLOSED),
        ),
        case(
            "HEADERS on a half-closed stream is an error",
            *(headers(), headers()),
            stream_error(STREAM_CLOSED),
        ),
        case(
            "CONTINUATION on a half-closed stream is an error",
            *(headers(), continuation(GET_BLOCK)),
            stream_error(STREAM_CLOSED, PROTOCOL_ERROR),
        ),
        case(
            "DATA after RST_STREAM is an error",
            *(opened(GET_BLOCK), rst_stream(), data()),
            stream_error(STREAM_CLOSED),
        ),
        case(
            "HEADERS after RST_STREAM is an error",
            *(opened(GET_BLOCK), rst_stream(), headers()),
            stream_error(STREAM_CLOSED),
        ),
        case(
            "CONTINUATION after RST_STREAM is an error",
            *(opened(GET_BLOCK), rst_stream(), continuation(LONG_BLOCK)),
            stream_error(STREAM_CLOSED, PROTOCOL_ERROR),
        ),
        case(
            "DATA on a closed stream is an error",
            *(headers(), StreamEnd(), data()),
            stream_error(STREAM_CLOSED),
        ),
        case(
            "HEADERS on a closed stream is a connection error",
            *(headers(), StreamEnd(), headers()),
            connection_error(STREAM_CLOSED),
        ),
        case(
            "CONTINUATION on a closed stream is a connection error",
            *(headers(), StreamEnd(), continuation(LONG_BLOCK)),
            connection_error(STREAM_CLOSED, PROTOCOL_ERROR),
        ),
    ),
    *section(
        "http2/5.1.1",
        "9113 5.1.1",
        case(
            "an even stream number is a connection error",
            headers(stream=2),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "a stream number below the last one is a connection error",
            *(headers(stream=5), headers(stream=3)),
            # RFC 9113 5.1.1 demands PROTOCOL_ERROR for a number that is not new, and closes
            # stream 3 when 5 opens; for HEADERS on a closed stream 5.1 has STREAM_CLOSED.
            connection_error(PROTOCOL_ERROR, STREAM_CLOSED),
        ),
    ),
    *section(
        "http2/5.1.2",
        "9113 5.1.2",
        case(
            "a request above the limit of concurrent streams is refused",
            settings((frames.INITIAL_WINDOW_SIZE, 0)),
            too_many_requests,
            stream_error(PROTOCOL_ERROR, REFUSED_STREAM, stream=None),
        ),
    ),
    *section(
        "http2/5.3.1",
        "7540 5.3.1",
        case(
            "HEADERS with a dependency of a stream on itself is an error",
            frame(frames.HEADERS, 0x5 | frames.PRIORITY_FLAG, 1, dependency(1) + GET_BLOCK),
            stream_error(PROTOCOL_ERROR),
        ),
        case(
            "PRIORITY with a dependency of a stream on itself is an error",
            priority(1, dependency(1)),
            stream_error(PROTOCOL_ERROR),
        ),
    ),
    *section(
        "http2/5.4.1",
        "9113 5.4.1",
        case("a connection error closes the connection", ping(stream=3), CLOSED),
        case(
            "a connection error is announced by GOAWAY",
            ping(stream=3),
            GoAway((PROTOCOL_ERROR,)),
        ),
    ),
    *section(
        "http2/5.5",
        "9113 5.5",
        case("an extension frame is ignored", UNKNOWN_FRAME, ping(), PingAck()),
        case(
            "an extension frame within a header block is a connection error",
            *(unfinished(), UNKNOWN_FRAME),
            connection_error(PROTOCOL_ERROR),
        ),
    ),
)
