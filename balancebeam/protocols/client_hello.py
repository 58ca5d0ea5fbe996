"""
The beginning of a TLS connection: the name of the server that the client wants.

It is read without decrypting anything (RFC 8446, 4.1.2 and 5.1; RFC 6066, 3).
What decides about the name is checked; the rest is the server's to judge.
"""

from __future__ import annotations

import re

from attrs import frozen

from balancebeam.core.ip import parse_ip

# RFC 8446, 5.1: "The length MUST NOT exceed 2^14 bytes."
_MAX_RECORD_LENGTH = 2**14

# All that is waited for, record headers included: what nginx reads ahead
# (preread_buffer_size) and HAProxy has in a buffer (tune.bufsize). A hello
# with post-quantum key shares has about 2 KiB.
_MAX_HELLO_LENGTH = 16 * 1024

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _HOST_NAME = 0, 0

# Underscores are for no host (RFC 952), but there are hosts that have them.
_NAME = re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


class ClientHelloError(Exception):
    """Bytes that are not the beginning of a TLS connection."""


@frozen
class ClientHello:
    """What a client asks for; without a `server_name` (in lower case) if it gives none of use."""

    server_name: str | None


class ClientHelloReader:
    """
    Takes the hello out of its records.

    `feed` returns `None` until the hello is complete, and is not called any
    more after that; it raises `ClientHelloError` at the first octet of a header
    that is wrong, and for a hello that is malformed, when that is complete.
    `received` is all that was fed, for the server.
    """

    __slots__ = ("_hello", "_position", "_remaining", "received")

    def __init__(self) -> None:
        self.received = bytearray()
        self._position = 0
        self._remaining = 0
        self._hello = bytearray()

    def feed(self, data: bytes) -> ClientHello | None:
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
        """Read the header of the next record, if it is all there."""
        header = self.received[self._position : self._position + 5]
        if header and header[0] != _HANDSHAKE:
            raise ClientHelloError("no handshake")
        # RFC 5246, E.1: servers "MUST accept any value {03,XX} as the record
        # layer version number for ClientHello".
        if len(header) > 1 and header[1] != 3:
            raise ClientHelloError("an unknown version")
        length = _parse_int(header[3:], 2)
        if length > _MAX_RECORD_LENGTH:
            raise ClientHelloError("a record that is too long")
        if len(header) < 5:
            return False
        if not length:
            # RFC 8446, 5.1: "MUST NOT send zero-length fragments of Handshake types".
            raise ClientHelloError("an empty record")
        self._position += 5
        self._remaining = length
        return True

    def _hello_end(self) -> int | None:
        """Where the hello ends, if it says so yet."""
        if self._hello and self._hello[0] != _CLIENT_HELLO:
            raise ClientHelloError("another message than a hello")
        end = 4 + _parse_int(self._hello[1:4], 3)
        if self._position + end - len(self._hello) > _MAX_HELLO_LENGTH:
            raise ClientHelloError("a hello that is too long")
        return end if len(self._hello) >= 4 else None


def _parse_int(data: bytes | bytearray, size: int) -> int:
    """The number of `size` octets; the least it can be, if some are still to come."""
    return int.from_bytes(data.ljust(size, b"\0"), "big")


class _ByteReader:
    """What is taken apart from its beginning."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def read(self, length: int) -> bytes:
        end = self._position + length
        if end > len(self._data):
            raise ClientHelloError("a length that does not fit")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def read_int(self, size: int) -> int:
        return _parse_int(self.read(size), size)

    def read_vector(self, size: int) -> bytes:
        """What follows its own length, which has `size` octets."""
        return self.read(self.read_int(size))

    def read_last_vector(self, size: int) -> _ByteReader:
        """A vector behind which there is nothing."""
        vector = self.read_vector(size)
        if self:
            raise ClientHelloError("a length that does not fit")
        return _ByteReader(vector)


def _parse_hello(message: bytes) -> ClientHello:
    hello = _ByteReader(message)
    hello.read(2 + 32)  # The version and the random octets.
    hello.read_vector(1)  # The session,
    hello.read_vector(2)  # cipher suites,
    hello.read_vector(1)  # and compression methods.
    # RFC 5246, 7.4.1.2: "both with and without the extensions field [...] it
    # MUST check that the amount of data in the message precisely matches".
    extensions = hello.read_last_vector(2) if hello else hello
    names: bytes | None = None
    while extensions:
        kind, content = extensions.read_int(2), extensions.read_vector(2)
        if kind == _SERVER_NAME:
            if names is not None:
                # RFC 8446, 4.2: "There MUST NOT be more than one extension of the same type".
                raise ClientHelloError("two lists of server names")
            names = content
    return ClientHello(
        None if names is None else _parse_server_names(_ByteReader(names).read_last_vector(2))
    )


def _parse_server_names(names: _ByteReader) -> str | None:
    found: bytes | None = None
    while names:
        # RFC 6066, 3: "all future data structures associated with new
        # NameTypes MUST begin with a 16-bit length field."
        kind, name = names.read_int(1), names.read_vector(2)
        if kind == _HOST_NAME:
            if found is not None:
                # RFC 6066, 3: "The ServerNameList MUST NOT contain more than
                # one name of the same name_type." Servers could take either.
                raise ClientHelloError("two server names")
            found = name
    return None if found is None else _valid_host_name(found.lower())


def _valid_host_name(name: bytes) -> str | None:
    """`name`, if it can be one that is in the DNS."""
    # RFC 6066, 3: "without a trailing dot".
    name = name[:-1] if name.endswith(b".") else name
    if len(name) > 253 or not _NAME.fullmatch(name):
        return None
    text = name.decode("ascii")
    # RFC 6066, 3: "Literal IPv4 and IPv6 addresses are not permitted".
    return None if parse_ip(text) else text
