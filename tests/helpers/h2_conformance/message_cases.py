"""Error codes and HTTP messages: RFC 9113, sections 7 and 8."""

from __future__ import annotations

import struct

from tests.helpers.h2_conformance import frames
from tests.helpers.h2_conformance.case import Case, case, section
from tests.helpers.h2_conformance.expectations import PingAck, connection_error, stream_error
from tests.helpers.h2_conformance.frames import (
    GET_BLOCK,
    POST_REQUEST,
    PROTOCOL_ERROR,
    REQUEST,
    UNKNOWN_CODE,
    data,
    encode,
    frame,
    headers,
    opened,
    ping,
    rst_stream,
)


def malformed(title: str, *fields: tuple[str, str]) -> Case:
    """Return the case of a request whose fields are a stream error."""
    return case(
        f"{title} is a stream error", headers(encode(*fields)), stream_error(PROTOCOL_ERROR)
    )


def wrong_length(title: str, *content: bytes) -> Case:
    """Return the case of a request with a `content-length` of 1 and more content."""
    return case(
        title,
        opened(encode(*POST_REQUEST, ("content-length", "1"))),
        *content,
        stream_error(PROTOCOL_ERROR),
    )


METHOD, SCHEME, PATH, AUTHORITY = REQUEST

MESSAGE_CASES = (
    *section(
        "http2/7",
        "9113 7",
        case(
            "GOAWAY with an unknown error code is accepted",
            *(frames.goaway(UNKNOWN_CODE), ping()),
            PingAck(or_closed=True),
        ),
        case(
            "RST_STREAM with an unknown error code is accepted",
            *(opened(), rst_stream(code=UNKNOWN_CODE), ping()),
            PingAck(or_closed=True),
        ),
    ),
    *section(
        "http2/8.1",
        "9113 8.1",
        case(
            "a second HEADERS frame without END_STREAM is a stream error",
            *(opened(), data(end_stream=False), opened(encode(("x-test", "ok")))),
            stream_error(PROTOCOL_ERROR),
        ),
    ),
    *section(
        "http2/8.1.2",
        "9113 8.2.1",
        malformed("a field name with upper-case letters", *REQUEST, ("X-TEST", "ok")),
    ),
    *section(
        "http2/8.1.2.1",
        "9113 8.3",
        malformed("an unknown pseudo-header field", *REQUEST, (":test", "ok")),
        malformed("a pseudo-header field of responses", *REQUEST, (":status", "200")),
        case(
            "a pseudo-header field in trailers is a stream error",
            *(opened(), data(end_stream=False), opened(encode((":method", "POST")))),
            stream_error(PROTOCOL_ERROR),
        ),
        malformed("a pseudo-header field after a regular field", ("x-test", "ok"), *REQUEST),
    ),
    *section(
        "http2/8.1.2.2",
        "9113 8.2.2",
        malformed("a connection-specific field", *REQUEST, ("connection", "keep-alive")),
        malformed(
            "a TE field with another value than trailers",
            *REQUEST,
            ("trailers", "test"),
            ("te", "trailers, deflate"),
        ),
    ),
    *section(
        "http2/8.1.2.3",
        "9113 8.3.1",
        malformed("an empty :path", METHOD, SCHEME, (":path", ""), AUTHORITY),
        malformed("a request without :method", SCHEME, PATH, AUTHORITY),
        malformed("a request without :scheme", METHOD, PATH, AUTHORITY),
        malformed("a request without :path", METHOD, SCHEME, AUTHORITY),
        malformed("a second :method", *REQUEST, METHOD),
        malformed("a second :scheme", *REQUEST, SCHEME),
        malformed("a second :path", *REQUEST, PATH),
    ),
    *section(
        "http2/8.1.2.6",
        "9113 8.1.1",
        wrong_length("a content-length below the size of the DATA frame is a stream error", data()),
        wrong_length(
            "a content-length below the sum of the DATA frames is a stream error",
            *(data(end_stream=False), data()),
        ),
    ),
    *section(
        "http2/8.2",
        "9113 8.4",
        case(
            "PUSH_PROMISE of a client is a connection error",
            frame(
                *(frames.PUSH_PROMISE, frames.END_HEADERS, 1),
                struct.pack(">I", 3) + GET_BLOCK,
            ),
            connection_error(PROTOCOL_ERROR),
        ),
    ),
)
