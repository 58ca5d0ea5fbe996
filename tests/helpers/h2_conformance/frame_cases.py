"""Frame definitions: RFC 9113, section 6."""

from __future__ import annotations

from tests.helpers.h2_conformance import frames
from tests.helpers.h2_conformance.case import case, section
from tests.helpers.h2_conformance.expectations import (
    Content,
    GoAway,
    PingAck,
    Reset,
    Response,
    SettingsAck,
    connection_error,
    stream_error,
)
from tests.helpers.h2_conformance.frames import (
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GET_BLOCK,
    INITIAL_WINDOW_SIZE,
    LONG_BLOCK,
    MAX_FRAME_SIZE,
    MAX_WINDOW_SIZE,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    continuation,
    data,
    encode,
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


def window(size: int) -> bytes:
    """Return a SETTINGS frame with this initial window of streams."""
    return settings((INITIAL_WINDOW_SIZE, size))


DATA_CASES = section(
    "http2/6.1",
    "9113 6.1",
    case(
        "DATA of stream 0 is a connection error", data(stream=0), connection_error(PROTOCOL_ERROR)
    ),
    case(
        "DATA after END_STREAM is an error",
        *(headers(frames.POST_BLOCK), data()),
        stream_error(STREAM_CLOSED),
    ),
    case(
        "DATA with more padding than payload is a connection error",
        opened(encode(*frames.POST_REQUEST, ("content-length", "4"))),
        frame(frames.DATA, frames.END_STREAM | frames.PADDED, 1, b"\x06test"),
        connection_error(PROTOCOL_ERROR),
    ),
)

HEADERS_CASES = section(
    "http2/6.2",
    "9113 6.2",
    case(
        "PRIORITY after HEADERS without END_HEADERS is a connection error",
        *(unfinished(end_stream=False), priority(1), continuation(LONG_BLOCK)),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "HEADERS of another stream after HEADERS without END_HEADERS is a connection error",
        *(unfinished(end_stream=False), headers(stream=3), continuation(LONG_BLOCK)),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "HEADERS of stream 0 is a connection error",
        headers(stream=0),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "HEADERS with more padding than payload is an error",
        frame(frames.HEADERS, 0xD, 1, bytes([len(GET_BLOCK) + 1]) + GET_BLOCK),
        stream_error(PROTOCOL_ERROR),
    ),
)

PRIORITY_AND_RESET_CASES = (
    *section(
        "http2/6.3",
        "9113 6.3",
        case(
            "PRIORITY of stream 0 is a connection error",
            priority(0),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "PRIORITY of another size than 5 bytes is an error",
            *(headers(), priority(1, b"\x80\0\0\1")),
            stream_error(FRAME_SIZE_ERROR),
        ),
    ),
    *section(
        "http2/6.4",
        "9113 6.4",
        case(
            "RST_STREAM of stream 0 is a connection error",
            rst_stream(0),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "RST_STREAM of an idle stream is a connection error",
            rst_stream(1),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "RST_STREAM of another size than 4 bytes is a connection error",
            *(headers(), frame(frames.RST_STREAM, 0, 1, bytes(3))),
            stream_error(FRAME_SIZE_ERROR),
        ),
    ),
)

SETTINGS_CASES = (
    *section(
        "http2/6.5",
        "9113 6.5",
        case(
            "an acknowledgement with payload is a connection error",
            frame(frames.SETTINGS, frames.ACK, 0, b"\0"),
            connection_error(FRAME_SIZE_ERROR),
        ),
        case(
            "SETTINGS of a stream is a connection error",
            frame(frames.SETTINGS, 0, 1, b"\0\3\0\0\0\x64"),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "SETTINGS of a size that is no multiple of 6 bytes is a connection error",
            frame(frames.SETTINGS, 0, 0, b"\0\3\0"),
            stream_error(PROTOCOL_ERROR, FRAME_SIZE_ERROR),
        ),
    ),
    *section(
        "http2/6.5.2",
        "9113 6.5.2",
        case(
            "ENABLE_PUSH of 2 is a connection error",
            settings((frames.ENABLE_PUSH, 2)),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "INITIAL_WINDOW_SIZE above the maximum is a connection error",
            window(MAX_WINDOW_SIZE + 1),
            connection_error(FLOW_CONTROL_ERROR),
        ),
        case(
            "MAX_FRAME_SIZE below the minimum is a connection error",
            settings((MAX_FRAME_SIZE, 16383)),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "MAX_FRAME_SIZE above the maximum is a connection error",
            settings((MAX_FRAME_SIZE, 2**24)),
            connection_error(PROTOCOL_ERROR),
        ),
        case("an unknown setting is ignored", settings((0xFF, 1)), ping(), PingAck()),
    ),
    *section(
        "http2/6.5.3",
        "9113 6.5.3",
        case(
            "the last of two values of a setting applies",
            settings((INITIAL_WINDOW_SIZE, 100), (INITIAL_WINDOW_SIZE, 1)),
            SettingsAck(),
            headers(),
            Content(1),
        ),
        case(
            "SETTINGS is acknowledged",
            settings((frames.ENABLE_PUSH, 0)),
            SettingsAck(),
        ),
    ),
)

PING_AND_GOAWAY_CASES = (
    *section(
        "http2/6.7",
        "9113 6.7",
        case("PING is answered with its data", ping(), PingAck()),
        case(
            "PING with ACK is not answered",
            *(ping(b"ignored\0", flags=frames.ACK), ping()),
            PingAck(),
        ),
        case(
            "PING of a stream is a connection error",
            ping(stream=1),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "PING of another size than 8 bytes is a connection error",
            ping(bytes(6)),
            connection_error(FRAME_SIZE_ERROR),
        ),
    ),
    *section(
        "http2/6.8",
        "9113 6.8",
        case(
            "GOAWAY of a stream is a connection error",
            frames.goaway(stream=1),
            connection_error(PROTOCOL_ERROR),
        ),
    ),
)

WINDOW_CASES = (
    *section(
        "http2/6.9",
        "9113 6.9",
        case(
            "an increment of 0 for the connection is a connection error",
            window_update(0),
            connection_error(PROTOCOL_ERROR),
        ),
        case(
            "an increment of 0 for a stream is an error",
            *(opened(GET_BLOCK), window_update(0, stream=1)),
            stream_error(PROTOCOL_ERROR),
        ),
        case(
            "WINDOW_UPDATE of another size than 4 bytes is a connection error",
            frame(frames.WINDOW_UPDATE, 0, 0, b"\0\0\1"),
            connection_error(FRAME_SIZE_ERROR),
        ),
    ),
    *section(
        "http2/6.9.1",
        "9113 6.9.1",
        case(
            "DATA does not exceed the window of the stream",
            *(window(1), SettingsAck(), headers()),
            Content(1),
        ),
        case(
            "a window of the connection above the maximum is a connection error",
            *(window_update(MAX_WINDOW_SIZE), window_update(MAX_WINDOW_SIZE)),
            GoAway((FLOW_CONTROL_ERROR,)),
        ),
        case(
            "a window of a stream above the maximum is a stream error",
            opened(GET_BLOCK),
            window_update(MAX_WINDOW_SIZE, stream=1),
            window_update(MAX_WINDOW_SIZE, stream=1),
            Reset(FLOW_CONTROL_ERROR),
        ),
    ),
    *section(
        "http2/6.9.2",
        "9113 6.9.2",
        case(
            "a changed initial window applies to open streams",
            *(window(0), SettingsAck(), headers(), window(1)),
            Content(1),
        ),
        case(
            "a window may become negative",
            *(window(3), SettingsAck(), headers(), Content()),
            *(window(2), SettingsAck(), window_update(2, stream=1)),
            Content(1),
        ),
        case(
            "an initial window above the maximum is a connection error",
            window(MAX_WINDOW_SIZE + 1),
            connection_error(FLOW_CONTROL_ERROR),
        ),
    ),
)

CONTINUATION_CASES = section(
    "http2/6.10",
    "9113 6.10",
    case(
        "several CONTINUATION frames are accepted",
        unfinished(),
        *(continuation(LONG_BLOCK, end_headers=False), continuation(LONG_BLOCK)),
        Response(),
    ),
    case(
        "DATA after CONTINUATION without END_HEADERS is a connection error",
        unfinished(frames.POST_BLOCK, end_stream=False),
        *(continuation(LONG_BLOCK, end_headers=False), data()),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "CONTINUATION of stream 0 is a connection error",
        *(unfinished(), continuation(LONG_BLOCK, stream=0)),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "CONTINUATION after HEADERS with END_HEADERS is a connection error",
        *(headers(), continuation(LONG_BLOCK)),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "CONTINUATION after CONTINUATION with END_HEADERS is a connection error",
        *(unfinished(), continuation(LONG_BLOCK), continuation(LONG_BLOCK)),
        connection_error(PROTOCOL_ERROR),
    ),
    case(
        "CONTINUATION after DATA is a connection error",
        *(unfinished(frames.POST_BLOCK, end_stream=False), data()),
        *(continuation(LONG_BLOCK, end_headers=False), continuation(LONG_BLOCK, stream=0)),
        connection_error(PROTOCOL_ERROR),
    ),
)

FRAME_CASES = (
    *DATA_CASES,
    *HEADERS_CASES,
    *PRIORITY_AND_RESET_CASES,
    *SETTINGS_CASES,
    *PING_AND_GOAWAY_CASES,
    *WINDOW_CASES,
    *CONTINUATION_CASES,
)
