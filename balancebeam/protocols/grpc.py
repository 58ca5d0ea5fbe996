"""
gRPC over HTTP/2: content types, deadlines, errors and the framing of messages.

The specification is PROTOCOL-HTTP2.md of the gRPC project ("gRPC over HTTP2").
"""

from __future__ import annotations

import re
from struct import Struct

# Status codes of gRPC (statuscodes.md), as far as the proxy uses them.
OK = 0
UNKNOWN = 2
DEADLINE_EXCEEDED = 4
PERMISSION_DENIED = 7
RESOURCE_EXHAUSTED = 8
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
UNAUTHENTICATED = 16

CONTENT_TYPE = b"application/grpc"

# The status codes of errors. The codes of 400 to 404, 502 and 503 are from
# http-grpc-status-mapping.md, by which clients read responses without a grpc-status. The others
# say more than its UNKNOWN (and its UNAVAILABLE, for 429 and 504): what exceeds a limit is
# RESOURCE_EXHAUSTED, as where gRPC libraries refuse a message or metadata, and a timeout is
# DEADLINE_EXCEEDED.
_STATUSES = {
    400: INTERNAL,
    401: UNAUTHENTICATED,
    403: PERMISSION_DENIED,
    404: UNIMPLEMENTED,
    405: UNIMPLEMENTED,
    408: DEADLINE_EXCEEDED,
    413: RESOURCE_EXHAUSTED,
    414: RESOURCE_EXHAUSTED,
    429: RESOURCE_EXHAUSTED,
    431: RESOURCE_EXHAUSTED,
    501: UNIMPLEMENTED,
    502: UNAVAILABLE,
    503: UNAVAILABLE,
    504: DEADLINE_EXCEEDED,
}

# Names are in lower case in HTTP/2, and `request_fields` puts ": " behind them.
_CONTENT_TYPE_LINE = b"\r\ncontent-type: " + CONTENT_TYPE
_TIMEOUT_LINE = b"\r\ngrpc-timeout: "

# What may follow: a message format, parameters, or the end. Others, such as "-web", name another
# protocol.
_CONTENT_TYPE_ENDS = b"+; \t\r"

# "TimeoutValue → {positive integer as ASCII string of at most 8 digits}"
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")

_TIMEOUT_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

# "Percent-Byte-Unencoded → 1*( %x20-%x24 / %x26-%x7E ) ; space and VCHAR, except %"
_PERCENT_ENCODED = re.compile(rb"[^\x20-\x24\x26-\x7e]")

# Compressed-Flag and Message-Length.
_PREFIX = Struct(">BL")


class GrpcError(ValueError):
    """Bytes that are no message of gRPC, or not the expected one."""


def is_grpc(head: bytes) -> bool:
    """
    Whether a request is gRPC, by its content type: "application/grpc", and not gRPC-Web.

    Args:
        head: The request line and the fields of an HTTP/2 request, as `RequestHead.forward_bytes`.
    """
    start = head.find(_CONTENT_TYPE_LINE)
    end = start + len(_CONTENT_TYPE_LINE)
    return start >= 0 and head[end : end + 1] in _CONTENT_TYPE_ENDS


def is_grpc_content_type(value: bytes) -> bool:
    """Whether a content type is that of gRPC, see `is_grpc`."""
    rest = value[len(CONTENT_TYPE) :]
    return value.startswith(CONTENT_TYPE) and (not rest or rest[:1] in _CONTENT_TYPE_ENDS)


def parse_timeout(head: bytes) -> float | None:
    """
    Return the seconds of grpc-timeout; `None` without a valid one, which is then ignored.

    0 is accepted: grpc-java sends it after its deadline.

    Args:
        head: See `is_grpc`.
    """
    start = head.find(_TIMEOUT_LINE)
    if start < 0:
        return None
    start += len(_TIMEOUT_LINE)
    match = _TIMEOUT.fullmatch(head[start : head.find(b"\r\n", start)].strip(b" \t"))
    return None if match is None else int(match[1]) * _TIMEOUT_UNITS[match[2]]


def grpc_status(status: int) -> int:
    """Return the status code of gRPC for the HTTP status of an error."""
    return _STATUSES.get(status, UNKNOWN)


def error_fields(
    status: int, text: str, fields: tuple[tuple[bytes, bytes], ...] = ()
) -> list[tuple[bytes, bytes]]:
    """
    Return the fields of a trailers-only response, whose HTTP status is 200.

    Args:
        status: The HTTP status of the error.
        text: The text for the client.
        fields: Further fields, which clients of gRPC see as metadata.
    """
    return [
        (b"content-type", CONTENT_TYPE),
        (b"grpc-status", b"%d" % grpc_status(status)),
        (b"grpc-message", encode_status_message(text)),
        *fields,
    ]


def encode_status_message(text: str) -> bytes:
    """Return the value of grpc-message: UTF-8, percent-encoded."""
    return _PERCENT_ENCODED.sub(lambda match: b"%%%02X" % match[0][0], text.encode())


def decode_status_message(value: str) -> str:
    """
    Return the text of grpc-message.

    "When decoding invalid values, implementations MUST NOT error": these stay as they are.
    """
    parts = re.split(r"((?:%[0-9A-Fa-f]{2})+)", value)
    for number in range(1, len(parts), 2):
        parts[number] = bytes.fromhex(parts[number].replace("%", "")).decode("utf-8", "replace")
    return "".join(parts)


def encode_message(message: bytes) -> bytes:
    """Return `message` with its prefix, not compressed."""
    return _PREFIX.pack(0, len(message)) + message


def decode_message(content: bytes) -> bytes:
    """
    Return the only message in the content of a request or response.

    Raises:
        GrpcError: The content is not one message, or it is compressed.
    """
    if len(content) < _PREFIX.size:
        raise GrpcError("no complete message")
    compressed, length = _PREFIX.unpack_from(content)
    if compressed:
        raise GrpcError("compressed message")
    if length != len(content) - _PREFIX.size:
        raise GrpcError("message of another length than declared")
    return content[_PREFIX.size :]
