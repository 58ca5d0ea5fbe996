"""
Messages of grpc.health.v1, in the wire format of Protocol Buffers.

    message HealthCheckRequest { string service = 1; }
    message HealthCheckResponse { ServingStatus status = 1; }
"""

from __future__ import annotations

from balancebeam.protocols.grpc import GrpcError

CHECK_PATH = "/grpc.health.v1.Health/Check"

SERVING = 1

_SERVING_STATUSES = {0: "UNKNOWN", SERVING: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}

# Wire types, the lower three bits of a tag.
_VARINT = 0
_FIXED64 = 1
_LENGTH_DELIMITED = 2
_FIXED32 = 5

# Field 1: `service` of the request, `status` of the response.
_FIELD = 1

# "Varints are at most ten bytes long", for 64 bits.
_MAX_VARINT = 10


def encode_request(service: str) -> bytes:
    """Return a HealthCheckRequest; an empty `service` is the server as a whole."""
    name = service.encode()
    if not name:
        # A string with its default value is left out.
        return b""
    return bytes((_FIELD << 3 | _LENGTH_DELIMITED,)) + _encode_varint(len(name)) + name


def decode_response(message: bytes) -> int:
    """
    Return the status in a HealthCheckResponse, which may be a number that no version defines.

    Unknown fields are skipped, and the last of several statuses counts.

    Raises:
        GrpcError: The message is malformed.
    """
    status = position = 0
    while position < len(message):
        tag, position = _decode_varint(message, position)
        field, wire_type = tag >> 3, tag & 7
        if not field:
            raise GrpcError("field with the number 0")
        if wire_type == _VARINT:
            value, position = _decode_varint(message, position)
            if field == _FIELD:
                status = value
        elif field == _FIELD:
            raise GrpcError("status of another type")
        elif wire_type == _LENGTH_DELIMITED:
            length, position = _decode_varint(message, position)
            position += length
        elif wire_type in (_FIXED64, _FIXED32):
            position += 8 if wire_type == _FIXED64 else 4
        else:
            raise GrpcError("field of an unknown type")
    if position > len(message):
        raise GrpcError("incomplete field")
    return status


def serving_status_name(status: int) -> str:
    """Return the name of a status, or its number."""
    return _SERVING_STATUSES.get(status, str(status))


def _encode_varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """
    Return the varint at `position`, modulo 2^64, and the position after it.

    Raises:
        GrpcError: It is incomplete or too long.
    """
    value = 0
    for number, byte in enumerate(data[position : position + _MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80:
            return value % 2**64, position + number + 1
    raise GrpcError("incomplete or too long varint")
