"""The PROXY protocol header, parsed and encoded."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.protocols.haproxy import _v1parser, _v2parser
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.proxy_protocol import (
    ProxyInfo,
    ProxyProtocolError,
    encode_proxy_header,
    parse_proxy_header,
)

IPV4 = ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 80)
IPV6 = ProxyInfo("2001:db8::7", 4711, "2001:db8::80", 80)
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


class ProxyHeaderTests(SynchronousTestCase):
    """Headers of both versions."""

    def test_round_trip(self) -> None:
        """An encoded header is parsed to the same connection, whatever follows it."""
        for connection in (IPV4, IPV6, None):
            for version in (1, 2):
                header = encode_proxy_header(version, connection)
                self.assertEqual(parse_proxy_header(header), (connection, len(header)))
                self.assertEqual(parse_proxy_header(header + b"GET"), (connection, len(header)))

    def test_twisted_parses_encoded_headers(self) -> None:
        """Twisted parses our headers to the same addresses."""
        for connection in (IPV4, IPV6):
            line = _v1parser.V1Parser.parse(encode_proxy_header(1, connection)[:-2])
            binary = _v2parser.V2Parser.parse(encode_proxy_header(2, connection))
            for info in (line, binary):
                source: Any = info.source
                destination: Any = info.destination
                self.assertEqual(ip_address(source.host), ip_address(connection.source))
                self.assertEqual(source.port, connection.source_port)
                self.assertEqual(ip_address(destination.host), ip_address(connection.destination))

    def test_mixed_families(self) -> None:
        """Addresses of different families are encoded as IPv6."""
        mixed = ProxyInfo("203.0.113.7", 1, "2001:db8::80", 2)
        self.assertEqual(
            encode_proxy_header(1, mixed), b"PROXY TCP6 ::ffff:203.0.113.7 2001:db8::80 1 2\r\n"
        )
        self.assertIsNotNone(parse_proxy_header(encode_proxy_header(2, mixed)))

    def test_ipv4_mapped_addresses(self) -> None:
        """IPv4-mapped IPv6 addresses are returned as IPv4."""
        line = b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.80 4711 80\r\n"
        self.assertEqual(parse_proxy_header(line), (IPV4, len(line)))
        addresses = [ip_address(f"::ffff:{text}").packed for text in ("203.0.113.7", "192.0.2.80")]
        header = (
            SIGNATURE + b"\x21\x21\x00\x24" + b"".join(addresses) + struct.pack("!HH", 4711, 80)
        )
        self.assertEqual(parse_proxy_header(header), (IPV4, len(header)))

    def test_incomplete_header(self) -> None:
        """Every proper prefix of a header is incomplete, not invalid."""
        for version in (1, 2):
            header = encode_proxy_header(version, IPV4)
            for length in range(len(header)):
                self.assertIsNone(parse_proxy_header(header[:length]))

    def test_headers_without_addresses(self) -> None:
        """UNKNOWN, LOCAL and unsupported families are accepted without a connection."""
        for header in (
            b"PROXY UNKNOWN\r\n",
            b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n",
            SIGNATURE + b"\x20\x00\x00\x00",
            SIGNATURE + b"\x20\x11\x00\x02ab",
            SIGNATURE + b"\x21\x00\x00\x03abc",
            SIGNATURE + b"\x21\x31" + struct.pack("!H", 216) + b"/" * 216,
        ):
            self.assertEqual(parse_proxy_header(header), (None, len(header)), msg=repr(header))

    def test_type_length_values_are_ignored(self) -> None:
        """TLVs after the addresses are skipped."""
        addresses = encode_proxy_header(2, IPV4)[16:] + b"\x03\x00\x04abcd"
        header = SIGNATURE + b"\x21\x11" + struct.pack("!H", len(addresses)) + addresses
        self.assertEqual(parse_proxy_header(header), (IPV4, len(header)))

    def test_invalid_headers(self) -> None:
        """Malformed, oversized and truncated headers are rejected."""
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"\r\n\r\nGET",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 -1 2\r\n",
            b"PROXY TCP6 ::1%eth0 ::1 1 2\r\n",
            b"PROXY TCP6 ::1%a\nX:y ::1 1 2\r\n",
            b"PROXY TCP6 ::1%\xe9 ::1 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 \xb2 2\r\n",
            b"PROXY " + b"x" * 200,
            SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x22\x11\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x11\x00\x0b" + bytes(11),
            SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
            SIGNATURE + b"\x21\x11\xff\xff",
        ):
            self.assertRaises(ProxyProtocolError, parse_proxy_header, data)

    @settings(max_examples=300, deadline=None)
    @given(st.one_of(st.binary(max_size=60), st.binary(max_size=60).map(SIGNATURE.__add__)))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are parsed, or rejected with `ProxyProtocolError`."""
        try:
            parse_proxy_header(data)
        except ProxyProtocolError:
            return
