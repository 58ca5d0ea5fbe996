"""What every server accepts: prefaces, frames of each type, requests, and field representations."""

from __future__ import annotations

from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

from tests.helpers.h2_conformance import frames
from tests.helpers.h2_conformance.case import Case, case, section
from tests.helpers.h2_conformance.expectations import (
    Content,
    FirstSettings,
    PingAck,
    Response,
    SettingsAck,
    StreamEnd,
)
from tests.helpers.h2_conformance.frames import (
    GET_BLOCK,
    continuation,
    data,
    dependency,
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

NO_WINDOW = settings((frames.INITIAL_WINDOW_SIZE, 0))

HUFFMAN = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)

# First bytes of literals, RFC 7541 6.2: with a new name, and with the name of index 58
# (user-agent), for which a prefix of 4 bits needs a second byte.
LITERALS = (
    ("with incremental indexing", b"\x40", b"\x7a"),
    ("without indexing", b"\x00", b"\x0f\x2b"),
    ("never indexed", b"\x10", b"\x1f\x2b"),
)


def plain(text: bytes) -> bytes:
    """Return a string literal: RFC 7541 5.2."""
    return bytes([len(text)]) + text


def compressed(text: bytes) -> bytes:
    """Return a string literal in Huffman code."""
    encoded = HUFFMAN.encode(text)
    return bytes([0x80 | len(encoded)]) + encoded


def literals() -> list[Case]:
    """Return the cases of literal representations: each form of name and value."""
    cases = []
    for form, prefix, indexed in LITERALS:
        for title, literal in (
            ("indexed name", indexed + plain(b"check")),
            ("indexed name in Huffman code", indexed + compressed(b"check")),
            ("new name", prefix + plain(b"x-test") + plain(b"check")),
            ("new name in Huffman code", prefix + compressed(b"x-test") + compressed(b"check")),
        ):
            cases.append(
                case(
                    f"a literal {form}, {title}, is accepted",
                    headers(GET_BLOCK + literal),
                    Response(),
                )
            )
    return cases


GENERIC_CASES = (
    *section(
        "generic/1",
        "9113 3.4",
        case(
            "the server's preface is a SETTINGS frame",
            frames.PREFACE,
            settings((frames.INITIAL_WINDOW_SIZE, frames.DEFAULT_WINDOW_SIZE)),
            FirstSettings(),
            handshake=False,
        ),
    ),
    *section(
        "generic/2",
        "9113 5.1",
        case("PRIORITY on an idle stream is accepted", priority(1), ping(), PingAck()),
        case(
            "WINDOW_UPDATE on a half-closed stream is accepted",
            *(NO_WINDOW, headers(), window_update(1, stream=1)),
            Content(),
        ),
        case(
            "PRIORITY on a half-closed stream is accepted",
            *(NO_WINDOW, headers(), priority(1), window_update(1, stream=1)),
            Content(),
        ),
        case(
            "RST_STREAM on a half-closed stream is accepted",
            *(headers(), rst_stream(), ping()),
            PingAck(or_closed=True),
        ),
        case(
            "PRIORITY on a closed stream is accepted",
            *(headers(), StreamEnd(), priority(1), ping()),
            PingAck(),
        ),
    ),
    *section(
        "generic/3.1",
        "9113 6.1",
        case("content in one DATA frame is accepted", opened(), data(), Response()),
        case(
            "content in two DATA frames is accepted",
            *(opened(), data(end_stream=False), data()),
            Response(),
        ),
        case(
            "a DATA frame with padding is accepted",
            opened(),
            frame(frames.DATA, frames.END_STREAM | frames.PADDED, 1, b"\x05test\0\0\0\0\0"),
            Response(),
        ),
    ),
    *section(
        "generic/3.2",
        "9113 6.2",
        case("a HEADERS frame is accepted", headers(), Response()),
        case(
            "a HEADERS frame with padding is accepted",
            frame(frames.HEADERS, 0xD, 1, b"\x08" + GET_BLOCK + bytes(8)),
            Response(),
        ),
        case(
            "a HEADERS frame with priority fields is accepted",
            frame(frames.HEADERS, 0x5 | frames.PRIORITY_FLAG, 1, dependency() + GET_BLOCK),
            Response(),
        ),
    ),
    *section(
        "generic/3.3",
        "9113 6.3",
        case("weight 1 is accepted", priority(1, dependency(weight=0)), headers(), Response()),
        case("weight 256 is accepted", priority(1), headers(), Response()),
        case(
            "a dependency is accepted",
            *(priority(3, dependency(1, weight=0)), headers()),
            Response(),
        ),
        case(
            "an exclusive dependency is accepted",
            *(priority(1, dependency(weight=0, exclusive=True)), headers()),
            Response(),
        ),
        case(
            "PRIORITY on an idle stream does not close streams of lower numbers",
            *(priority(3), headers()),
            Response(),
        ),
    ),
    *section(
        "generic/3.4",
        "9113 6.4",
        case(
            "RST_STREAM is accepted",
            *(opened(GET_BLOCK), rst_stream(), ping()),
            PingAck(or_closed=True),
        ),
    ),
    *section(
        "generic/3.5",
        "9113 6.5",
        case(
            "a SETTINGS frame with every setting is accepted",
            settings(
                (frames.HEADER_TABLE_SIZE, 4096),
                (frames.ENABLE_PUSH, 1),
                (frames.MAX_CONCURRENT_STREAMS, 100),
                (frames.INITIAL_WINDOW_SIZE, 65535),
                (frames.MAX_FRAME_SIZE, 16384),
                (frames.MAX_HEADER_LIST_SIZE, 100),
            ),
            SettingsAck(),
        ),
    ),
    *section("generic/3.7", "9113 6.7", case("PING is answered", ping(), PingAck())),
    *section(
        "generic/3.8",
        "9113 6.8",
        case("GOAWAY is accepted", frames.goaway(), ping(), PingAck(or_closed=True)),
    ),
    *section(
        "generic/3.9",
        "9113 6.9",
        case("WINDOW_UPDATE of the connection is accepted", window_update(1), ping(), PingAck()),
        case(
            "WINDOW_UPDATE of a stream is accepted",
            *(headers(), window_update(1, stream=1)),
            Response(),
        ),
    ),
    *section(
        "generic/3.10",
        "9113 6.10",
        case(
            "a CONTINUATION frame is accepted",
            *(unfinished(GET_BLOCK[:5]), continuation(GET_BLOCK[5:])),
            Response(),
        ),
        case(
            "two CONTINUATION frames are accepted",
            unfinished(GET_BLOCK[:5]),
            continuation(GET_BLOCK[5:10], end_headers=False),
            continuation(GET_BLOCK[10:]),
            Response(),
        ),
    ),
    *section(
        "generic/4",
        "9113 8.1",
        case("a GET request is answered", headers(), Response()),
        case(
            "a HEAD request is answered",
            headers(encode((":method", "HEAD"), *frames.REQUEST[1:])),
            Response(),
        ),
        case("a POST request is answered", opened(), data(), Response()),
        case(
            "a POST request with trailers is answered",
            opened(encode(*frames.POST_REQUEST, ("trailer", "x-test"))),
            data(end_stream=False),
            headers(encode(("x-test", "ok"))),
            Response(),
        ),
    ),
    *section(
        "generic/5",
        "7541 6",
        case("an indexed field is accepted", headers(GET_BLOCK + b"\xba"), Response()),
        *literals(),
        case(
            "a dynamic table size update is accepted",
            headers(b"\x3f\x61" + GET_BLOCK),
            Response(),
        ),
        case(
            "two dynamic table size updates are accepted",
            headers(b"\x3f\x61\x3f\xe1\x1f" + GET_BLOCK),
            Response(),
        ),
    ),
)
