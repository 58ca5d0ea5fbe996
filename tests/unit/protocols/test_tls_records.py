"""Alerts, and HTTP requests without TLS."""

from __future__ import annotations

import ssl

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.protocols.tls_records import (
    NO_APPLICATION_PROTOCOL,
    UNRECOGNIZED_NAME,
    AlertError,
    encode_fatal_alert,
    is_http_request,
)


class AlertTests(SynchronousTestCase):
    """Fatal alerts."""

    def test_bytes(self) -> None:
        """An alert is a record of 7 bytes (RFC 8446, 5.1 and 6)."""
        self.assertEqual(encode_fatal_alert(120), b"\x15\x03\x03\x00\x02\x02\x78")

    def test_openssl_reads_them(self) -> None:
        """A client of OpenSSL reports each alert by its name."""
        for alert, name in (
            (NO_APPLICATION_PROTOCOL, "NO_APPLICATION_PROTOCOL"),
            (UNRECOGNIZED_NAME, "UNRECOGNIZED_NAME"),
        ):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            incoming = ssl.MemoryBIO()
            client = context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="example.org")
            with self.assertRaises(ssl.SSLWantReadError):
                client.do_handshake()
            incoming.write(encode_fatal_alert(alert))
            error = self.assertRaises(ssl.SSLError, client.do_handshake)
            # OpenSSL 1.1.1 has no name for the former.
            text = str(error).upper().replace(" ", "_")
            self.assertTrue(name in text or "UNKNOWN_ERROR" in text, text)

    def test_error(self) -> None:
        """An error has the alert, a word and a text."""
        error = AlertError(120, "alpn", "no overlap")
        self.assertEqual((error.description, error.reason, str(error)), (120, "alpn", "no overlap"))


class HttpRequestTests(SynchronousTestCase):
    """Detection of HTTP without TLS."""

    def test_requests(self) -> None:
        """Requests are detected by method and beginning of the target."""
        for data in (
            b"GET /",
            b"HEAD / HTTP/1.1\r\n",
            b"OPTIONS * HTTP/1.1",
            b"BASELINE-CONTROL /x",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"GET http://example.org/ HTTP/1.1",
            b"CONNECT example.org:443 HTTP/1.1",
        ):
            self.assertTrue(is_http_request(data), data)
            self.assertTrue(is_http_request(bytearray(data)), data)

    def test_other_bytes(self) -> None:
        """Other protocols, and incomplete requests, are not."""
        for data in (
            b"",
            b"GET",
            b"GET ",
            b"get /",
            b" GET /",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"EHLO example.org\r\n",
            b"A" * 40 + b" /",
            b"\x16\x03\x01",
            b"\x80\x2e\x01",
        ):
            self.assertFalse(is_http_request(data), data)

    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """A TLS record and binary data are never mistaken for HTTP."""
        self.assertFalse(is_http_request(b"\x16" + data))
        self.assertFalse(is_http_request(b"\x80" + data))
