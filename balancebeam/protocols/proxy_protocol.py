"""
The PROXY protocol: a header in which a proxy gives the addresses of a connection.

Version 1 is a line of text, version 2 is binary:
https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from attrs import frozen

from balancebeam.core.ip import parse_ip, unmap_ipv4

# The longest line of version 1 with its CRLF, by the specification.
_MAX_V1_LENGTH = 107

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_HEADER = struct.Struct("!12sBBH")
_IPV4 = struct.Struct("!4s4sHH")
_IPV6 = struct.Struct("!16s16sHH")

# nginx has the same limit (NGX_PROXY_PROTOCOL_MAX_HEADER).
_MAX_V2_LENGTH = 4096

_LOCAL, _PROXY = 0x20, 0x21
_TCP4, _TCP6 = 0x11, 0x21


class ProxyProtocolError(Exception):
    """Bytes that are not a valid PROXY header."""


@frozen
class ProxyInfo:
    """
    The end points of a connection, as a PROXY header gives them.

    Attributes:
        source: IP address of the client.
        source_port: Port of the client.
        destination: IP address that the client connected to.
        destination_port: Port that the client connected to.
    """

    source: str
    source_port: int
    destination: str
    destination_port: int


def parse_proxy_header(data: bytes) -> tuple[ProxyInfo | None, int] | None:
    """
    Parse the PROXY header at the beginning of `data`.

    Returns:
        `None` if the header is not complete yet. Otherwise its connection and its
        length in bytes; the connection is `None` if the header gives no addresses
        (a health check by the proxy itself, or an unsupported kind of connection).

    Raises:
        ProxyProtocolError: It is not a valid header.
    """
    if data.startswith(_SIGNATURE[: len(data)]):
        return _parse_v2(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _parse_v1(data)
    raise ProxyProtocolError("not a PROXY protocol header")


def _parse_v1(data: bytes) -> tuple[ProxyInfo | None, int] | None:
    """Parse a header of version 1, with the results of `parse_proxy_header`."""
    end = data.find(b"\r\n", 0, _MAX_V1_LENGTH)
    if end < 0:
        if len(data) >= _MAX_V1_LENGTH:
            raise ProxyProtocolError("PROXY line too long")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return None, end + 2
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProxyProtocolError("invalid PROXY line")
    version = int(words[1][3])
    source, destination = (_parse_address(word, version) for word in words[2:4])
    source_port, destination_port = (_parse_port(word) for word in words[4:])
    return ProxyInfo(source, source_port, destination, destination_port), end + 2


def _parse_address(word: str, version: int) -> str:
    """Return an address of IP `version` in canonical form; IPv4-mapped ones as IPv4."""
    address = parse_ip(word)
    if address is None:
        raise ProxyProtocolError("invalid address in a PROXY line")
    if address.version != version:
        raise ProxyProtocolError("address of another family in a PROXY line")
    return str(unmap_ipv4(address))


def _parse_port(word: str) -> int:
    """Return a port from 0 to 65535."""
    if not (word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= 65535):
        raise ProxyProtocolError("invalid port in a PROXY line")
    return int(word)


def _parse_v2(data: bytes) -> tuple[ProxyInfo | None, int] | None:
    """Parse a header of version 2, with the results of `parse_proxy_header`."""
    if len(data) < _HEADER.size:
        return None
    _, command, family, length = _HEADER.unpack_from(data)
    if command not in (_LOCAL, _PROXY):
        raise ProxyProtocolError("unknown PROXY protocol version or command")
    if length > _MAX_V2_LENGTH:
        raise ProxyProtocolError("PROXY header too long")
    end = _HEADER.size + length
    if len(data) < end:
        return None
    if command == _LOCAL or family not in (_TCP4, _TCP6):
        return None, end
    layout = _IPV4 if family == _TCP4 else _IPV6
    if length < layout.size:
        raise ProxyProtocolError("truncated addresses in a PROXY header")
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
    Return a PROXY header.

    Args:
        version: 1 or 2.
        connection: The connection, or `None` if it is the proxy's own, or has no IP
            addresses.
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
    """Return an address as text; an IPv4 address as IPv4-mapped if `ipv6`."""
    return f"::ffff:{address}".encode() if ipv6 and ":" not in address else address.encode()
