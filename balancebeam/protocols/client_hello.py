"""
Server name (SNI) and application protocols (ALPN) of a TLS ClientHello.

RFC 8446, 4.1.2 and 5.1; RFC 6066, 3; RFC 7301, 3.1. They are read without decryption.
Everything that they depend on is validated; the rest is left to the server.
"""

from __future__ import annotations

import re
import struct

from attrs import frozen

from balancebeam.core.ip import parse_ip
from balancebeam.protocols.tls_records import (
    DECODE_ERROR,
    ILLEGAL_PARAMETER,
    PROTOCOL_VERSION,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
)

# RFC 8446, 5.1: "The length MUST NOT exceed 2^14 bytes."
_MAX_RECORD_LENGTH = 2**14

# The most that is buffered, record headers included: as nginx (preread_buffer_size)
# and HAProxy (tune.bufsize). A hello with post-quantum key shares has about 2 KiB.
_MAX_HELLO_LENGTH = 16 * 1024

_HANDSHAKE, _CLIENT_HELLO = 22, 1
# Types of extensions, and the only type of a server name.
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0

# Type and length of an extension.
_unpack_extension = struct.Struct("!HH").unpack_from

# RFC 952 does not allow underscores in host names, but names in use have them.
_NAME = re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class ClientHelloError(Exception):
    """
    Bytes that are not a valid ClientHello.

    Attributes:
        alert: The AlertDescription that the sender receives.
    """

    def __init__(self, text: str, alert: int = DECODE_ERROR) -> None:
        super().__init__(text)
        self.alert = alert


@frozen
class ClientHello:
    """
    A parsed ClientHello.

    Attributes:
        server_name: The server name in lower case, or `None` if there is none, or
            none that can be a host name in the DNS.
        alpn: The application protocols that the client offers, in its order; empty
            without the extension.
    """

    server_name: str | None
    alpn: tuple[bytes, ...] = ()


class ClientHelloReader:
    """
    Reassembles a ClientHello from TLS records, and parses it.

    Attributes:
        received: All bytes that were fed, to be forwarded to the server.
    """

    __slots__ = ("_hello", "_position", "_remaining", "received")

    def __init__(self) -> None:
        self.received = bytearray()
        self._position = 0
        self._remaining = 0
        self._hello = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
        """
        Add received bytes.

        Returns:
            `None` until the hello is complete, then the hello. Not to be called
            again after that.

        Raises:
            ClientHelloError: At the first invalid byte of a header, or for an invalid
                hello once it is complete.
        """
        self.received += data
        # RFC 8446, 5.1: handshake messages may be "fragmented across several records".
        while self._remaining or self._read_record_header():
            fragment = self.received[self._position : self._position + self._remaining]
            self._position += len(fragment)
            self._remaining -= len(fragment)
            self._hello += fragment
            end = self._hello_end()
            if end is not None and len(self._hello) >= end:
                return _parse_hello(bytes(self._hello[4:end]))
            if self._remaining:
                break
        return None

    def _read_record_header(self) -> bool:
        """Parse the header of the next record; false if it has not been received completely."""
        header = self.received[self._position : self._position + 5]
        if header and header[0] != _HANDSHAKE:
            raise ClientHelloError("not a TLS handshake record", UNEXPECTED_MESSAGE)
        # RFC 5246, E.1: servers "MUST accept any value {03,XX} as the record
        # layer version number for ClientHello".
        if len(header) > 1 and header[1] != 3:
            raise ClientHelloError("unknown TLS record version", PROTOCOL_VERSION)
        length = _parse_int(header[3:], 2)
        if length > _MAX_RECORD_LENGTH:
            raise ClientHelloError("TLS record too long", RECORD_OVERFLOW)
        if len(header) < 5:
            return False
        if not length:
            # RFC 8446, 5.1: "MUST NOT send zero-length fragments of Handshake types".
            raise ClientHelloError("empty TLS record", UNEXPECTED_MESSAGE)
        self._position += 5
        self._remaining = length
        return True

    def _hello_end(self) -> int | None:
        """Return the length of the hello, or `None` if its header is not complete."""
        if self._hello and self._hello[0] != _CLIENT_HELLO:
            raise ClientHelloError(
                "TLS handshake message other than ClientHello", UNEXPECTED_MESSAGE
            )
        end = 4 + _parse_int(self._hello[1:4], 3)
        if self._position + end - len(self._hello) > _MAX_HELLO_LENGTH:
            raise ClientHelloError("ClientHello too long")
        return end if len(self._hello) >= 4 else None


def _parse_int(data: bytes | bytearray, size: int) -> int:
    """Return an integer of `size` bytes; the smallest possible one if some are missing."""
    return int.from_bytes(data.ljust(size, b"\0"), "big")


class _ByteReader:
    """Reads the fields of a message in order; true while some of it has not been read."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def read(self, length: int) -> bytes:
        """Return the next `length` bytes."""
        end = self._position + length
        if end > len(self._data):
            raise ClientHelloError("invalid length in a ClientHello")
        content = self._data[self._position : end]
        self._position = end
        return content

    def read_int(self, size: int) -> int:
        """Return the next unsigned integer, of `size` bytes."""
        return _parse_int(self.read(size), size)

    def read_vector(self, size: int) -> bytes:
        """Return the next vector (RFC 8446, 3.4), which follows a length of `size` bytes."""
        return self.read(self.read_int(size))

    def read_last_vector(self, size: int) -> _ByteReader:
        """Return a reader of the next vector, after which the message must end."""
        vector = self.read_vector(size)
        if self:
            raise ClientHelloError("invalid length in a ClientHello")
        return _ByteReader(vector)


def _parse_hello(message: bytes) -> ClientHello:
    """Parse the body of a ClientHello message."""
    # Without `_ByteReader`: this runs for each new connection, and the extensions, a dozen or
    # more, are most of it (20 us with the reader, 6 us without; CPython 3.11).
    position = 2 + 32  # legacy_version and random
    for size in (1, 2, 1):  # legacy_session_id, cipher_suites, legacy_compression_methods
        position += size + _parse_length(message, position, size)
    names: bytes | None = None
    alpn: bytes | None = None
    # RFC 5246, 7.4.1.2: "both with and without the extensions field [...] it
    # MUST check that the amount of data in the message precisely matches".
    if position != len(message):
        end = position + 2 + _parse_length(message, position, 2)
        position += 2
        if end != len(message):
            raise ClientHelloError("invalid length in a ClientHello")
        while position < end:
            if end - position < 4:
                raise ClientHelloError("invalid length in a ClientHello")
            kind, length = _unpack_extension(message, position)
            start = position + 4
            position = start + length
            if position > end:
                raise ClientHelloError("invalid length in a ClientHello")
            if kind == _SERVER_NAME:
                if names is not None:
                    # RFC 8446, 4.2: "There MUST NOT be more than one extension of the same type".
                    raise ClientHelloError("more than one server_name extension")
                names = message[start:position]
            elif kind == _ALPN:
                if alpn is not None:
                    raise ClientHelloError("more than one ALPN extension")
                alpn = message[start:position]
    return ClientHello(
        None if names is None else _parse_server_names(_ByteReader(names).read_last_vector(2)),
        () if alpn is None else _parse_alpn(_ByteReader(alpn).read_last_vector(2)),
    )


def _parse_length(message: bytes, position: int, size: int) -> int:
    """Return the length of the vector at `position`, which is in `message` completely."""
    start = position + size
    length = int.from_bytes(message[position:start], "big")
    if start + length > len(message):
        raise ClientHelloError("invalid length in a ClientHello")
    return length


def _parse_alpn(names: _ByteReader) -> tuple[bytes, ...]:
    """Return the names in a ProtocolNameList."""
    protocols = []
    while names:
        protocols.append(names.read_vector(1))
    # RFC 7301, 3.1: "Empty strings MUST NOT be included", and the list has at least one.
    if not protocols or not all(protocols):
        raise ClientHelloError("invalid ALPN extension")
    return tuple(protocols)


def _parse_server_names(names: _ByteReader) -> str | None:
    """Return the host name in a ServerNameList, if it can be one."""
    host_name: bytes | None = None
    while names:
        # RFC 6066, 3: "all future data structures associated with new
        # NameTypes MUST begin with a 16-bit length field."
        kind, name = names.read_int(1), names.read_vector(2)
        if kind == _HOST_NAME:
            if host_name is not None:
                # RFC 6066, 3: "The ServerNameList MUST NOT contain more than
                # one name of the same name_type." Servers might use either.
                raise ClientHelloError("more than one server name", ILLEGAL_PARAMETER)
            host_name = name
    return None if host_name is None else _valid_host_name(host_name.lower())


def _valid_host_name(name: bytes) -> str | None:
    """Return a name in lower case if it can be a host name in the DNS, without the final dot."""
    # RFC 6066, 3: "without a trailing dot".
    name = name[:-1] if name.endswith(b".") else name
    if len(name) > 253 or not _NAME.fullmatch(name):
        return None
    text = name.decode("ascii")
    # RFC 6066, 3: "Literal IPv4 and IPv6 addresses are not permitted". The pattern has no colon.
    return None if text[-1].isdigit() and parse_ip(text) else text
