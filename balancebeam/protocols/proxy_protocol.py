"""
The PROXY protocol: what a proxy says of a connection before it passes it on.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt (version 1, a line
of text, and version 2, binary).
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from attrs import frozen

from balancebeam.core.ip import parse_ip, unmap_ipv4

# The longest line of version 1, with its CRLF.
_MAX_V1_LENGTH = 107

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_HEADER = struct.Struct("!12sBBH")
_IPV4 = struct.Struct("!4s4sHH")
_IPV6 = struct.Struct("!16s16sHH")

# More than addresses and a few TLVs is not to be waited for.
_MAX_V2_LENGTH = 4096

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


class ProxyProtocolError(Exception):
    """Bytes that are no PROXY header."""


@frozen
class ProxyInfo:
    """Who is connected to whom: IP addresses and ports."""

    source: str
    source_port: int
    destination: str
    destination_port: int


def parse_proxy_header(data: bytes) -> tuple[ProxyInfo | None, int] | None:
    """
    The connection that the header at the beginning of `data` is about, and
    the header's length in octets; `None` for a header that is not complete
    yet. A header that tells nothing (a health check of the proxy's own, a
    kind of connection that has no addresses) has no connection.

    Raises `ProxyProtocolError`.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _parse_v2(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _parse_v1(data)
    raise ProxyProtocolError("neither version of the PROXY protocol")


def _parse_v1(data: bytes) -> tuple[ProxyInfo | None, int] | None:
    end = data.find(b"\r\n", 0, _MAX_V1_LENGTH)
    if end < 0:
        if len(data) >= _MAX_V1_LENGTH:
            raise ProxyProtocolError("a line that is too long")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None, end + 2
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyProtocolError("a malformed line")
    version = int(words[1][3])
    source, destination = (_parse_address(word, version) for word in words[2:4])
    source_port, destination_port = (_parse_port(word) for word in words[4:])
    return ProxyInfo(source, source_port, destination, destination_port), end + 2


def _parse_address(word: str, version: int) -> str:
    address = parse_ip(word)
    if address is None:
        raise ProxyProtocolError("a malformed address")
    if address.version != version:
        raise ProxyProtocolError("an address of another family")
    return str(unmap_ipv4(address))


def _parse_port(word: str) -> int:
    if not (word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= 65535):
        raise ProxyProtocolError("a malformed port")
    return int(word)


def _parse_v2(data: bytes) -> tuple[ProxyInfo | None, int] | None:
    if len(data) < _HEADER.size:
        return None
    _, command, family, length = _HEADER.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError("an unknown version or command")
    if length > _MAX_V2_LENGTH:
        raise ProxyProtocolError("a header that is too long")
    end = _HEADER.size + length
    if len(data) < end:
        return None
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return None, end
    layout = _IPV4 if family == _TCP4 else _IPV6
    if length < layout.size:
        raise ProxyProtocolError("addresses that are cut off")
    source, destination, source_port, destination_port = layout.unpack_from(data, _HEADER.size)
    return (
        ProxyInfo(
            str(unmap_ipv4(ip_address(source))),
            source_port,
            str(unmap_ipv4(ip_address(destination))),
            destination_port,
        ),
        end,
    )


def encode_proxy_header(version: int, connection: ProxyInfo | None) -> bytes:
    """
    The header in `version` 1 or 2 for `connection`; `None` for one that is
    the proxy's own, or has no IP addresses.
    """
    if connection is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else _HEADER.pack(_SIGNATURE, _LOCAL, 0, 0)
    ipv6 = ":" in connection.source or ":" in connection.destination
    if version == 1:
        return b"PROXY TCP%d %b %b %d %d\r\n" % (
            6 if ipv6 else 4,
            _encode_ip(connection.source, ipv6),
            _encode_ip(connection.destination, ipv6),
            connection.source_port,
            connection.destination_port,
        )
    kind = socket.AF_INET6 if ipv6 else socket.AF_INET
    layout = _IPV6 if ipv6 else _IPV4
    addresses = layout.pack(
        socket.inet_pton(kind, _encode_ip(connection.source, ipv6).decode()),
        socket.inet_pton(kind, _encode_ip(connection.destination, ipv6).decode()),
        connection.source_port,
        connection.destination_port,
    )
    family = _TCP6 if ipv6 else _TCP4
    return _HEADER.pack(_SIGNATURE, _PROXY, family, len(addresses)) + addresses


def _encode_ip(address: str, ipv6: bool) -> bytes:
    """`address`; in the other family if its counterpart is in that."""
    return f"::ffff:{address}".encode() if ipv6 and ":" not in address else address.encode()
