"""
Messages of grpc.health.v1 in gRPC framing, written by hand: two messages with one field each.

    message HealthCheckRequest { string service = 1; }
    message HealthCheckResponse { ServingStatus status = 1; }
"""

from __future__ import annotations

from struct import Struct

from balancebeam.core.errors import ProtocolError

PATH = b"/grpc.health.v1.Health/Check"

SERVING = 1

# enum ServingStatus.
STATUS_NAMES = {0: "UNKNOWN", SERVING: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

# Codes of grpc-status that a check meets, with their names.
STATUS_CODES = {
    b"0": "OK",
    b"1": "CANCELLED",
    b"2": "UNKNOWN",
    b"4": "DEADLINE_EXCEEDED",
    b"5": "NOT_FOUND",
    b"7": "PERMISSION_DENIED",
    b"8": "RESOURCE_EXHAUSTED",
    b"12": "UNIMPLEMENTED",
    b"13": "INTERNAL",
    b"14": "UNAVAILABLE",
    b"16": "UNAUTHENTICATED",
}

# A gRPC message begins with a flag (compressed) and its length.
_PREFIX = Struct(">BL")

# Field 1 of protobuf as a string, and as a varint.
_STRING_1 = b"\x0a"
_VARINT_1 = 0x08

# Bytes of a varint with 64 bits.
_MAX_VARINT = 10


class GrpcMessageError(ProtocolError):
    """A message that is not a valid HealthCheckResponse."""


def encode_check(service: str) -> bytes:
    """Encode a HealthCheckRequest for `service`, empty for the server as a whole."""
    name = service.encode()
    message = _STRING_1 + _encode_varint(len(name)) + name if name else b""
    return _PREFIX.pack(0, len(message)) + message


def parse_status(content: bytes) -> int:
    """
    Return the status of a HealthCheckResponse.

    Args:
        content: The content of the response, one message.

    Raises:
        GrpcMessageError: It is anything else.
    """
    if len(content) < _PREFIX.size:
        raise GrpcMessageError("message: too short")
    compressed, length = _PREFIX.unpack_from(content)
    message = content[_PREFIX.size :]
    if compressed or length != len(message):
        raise GrpcMessageError("message")
    status, position = 0, 0
    while position < length:
        tag, position = _parse_varint(message, position)
        kind = tag & 7
        if kind == 0:
            value, position = _parse_varint(message, position)
            if tag == _VARINT_1:
                status = value
        elif kind == 2:
            # A field of a later version.
            size, position = _parse_varint(message, position)
            position += size
        else:
            position += {1: 8, 5: 4}.get(kind, length + 1)
    if position != length:
        raise GrpcMessageError("message")
    return status


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _parse_varint(message: bytes, position: int) -> tuple[int, int]:
    """Return a varint, and where it ends."""
    value = 0
    for index, byte in enumerate(message[position : position + _MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, position + index + 1
    raise GrpcMessageError("message")
