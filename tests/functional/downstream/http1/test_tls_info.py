"""What servers receive about a client connection that uses TLS."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import UNIXAddress

from balancebeam.core.settings import ForwardingSettings
from balancebeam.tls.interfaces import TlsInfo
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer, head_and_body

TLS = TlsInfo("TLSv1.3")
MUTUAL_TLS = TlsInfo("TLSv1.3", client_certificate=bytes([0x30, 3, 2, 1, 5]))
OWN = b"Client-Cert: :MAMCAQU=:"
FORGED = b"Client-Cert: :MQ==:\r\nClient_Cert: :Mg==:\r\nclient-cert-chain: :Mw==:\r\n"
CLIENT = "192.0.2.1"


class TlsInfoTests(BalancerTestCase):
    """Scheme and certificate of the connection."""

    def send(self, request: bytes, tls: TlsInfo | None, **settings: Any) -> list[bytes]:
        """The lines of a request as the server receives it."""
        balancer = self.balancer(**settings)
        return self.forwarded(balancer, balancer.client(CLIENT, tls), request)

    def forwarded(self, balancer: MemoryBalancer, client: Peer, request: bytes) -> list[bytes]:
        """The lines of a request of `client`, which is answered."""
        client.send(request)
        server = balancer.accept()
        lines, _ = head_and_body(server.received())
        server.send(OK)
        return lines

    def client_cert_lines(self, lines: list[bytes]) -> list[bytes]:
        """The lines of Client-Cert and everything with a similar name."""
        return [line for line in lines if line.lower().startswith(b"client")]

    def with_lines(self, lines: bytes) -> bytes:
        """A request with additional lines."""
        return GET.replace(b"\r\n\r\n", b"\r\n" + lines + b"\r\n")

    def test_scheme(self) -> None:
        """X-Forwarded-Proto and Forwarded have the scheme of the connection."""
        for tls, scheme in ((None, b"http"), (TLS, b"https"), (MUTUAL_TLS, b"https")):
            proto = b"X-Forwarded-Proto: " + scheme
            self.assertIn(proto, self.send(GET, tls))
            self.assertIn(proto, self.send(self.with_lines(b"X-Forwarded-Proto: x\r\n"), tls))
            lines = self.send(GET, tls, forwarding=ForwardingSettings(forwarded=True))
            element = b'Forwarded: for=192.0.2.1;host="example.org";proto=' + scheme
            self.assertIn(element, lines)

    def test_scheme_of_a_trusted_proxy(self) -> None:
        """A trusted proxy knows the scheme of its client better."""
        lines = self.with_lines(b"X-Forwarded-Proto: http\r\n")
        self.assertIn(b"X-Forwarded-Proto: http", self.send(lines, TLS, trusted_proxies=(CLIENT,)))

    def test_certificate(self) -> None:
        """A verified certificate is sent with every request, on both paths of the parser."""
        balancer = self.balancer()
        client = balancer.client(CLIENT, MUTUAL_TLS)
        lines = self.forwarded(balancer, client, GET)
        self.assertEqual(self.client_cert_lines(lines), [OWN])
        self.assertTrue(client.protocol._reader.forwarder.has_fast_path)
        for request in (GET, self.with_lines(b"Max-Forwards: 5\r\n"), self.with_lines(FORGED)):
            client.send(request)
            server = balancer.peers[-1]
            received, _ = head_and_body(server.received())
            self.assertEqual(self.client_cert_lines(received), [OWN])
            server.send(OK)

    def test_certificate_after_a_reload(self) -> None:
        """A changed forwarding policy does not remove the certificate of open connections."""
        balancer = self.balancer()
        client = balancer.client(CLIENT, MUTUAL_TLS)
        client.protocol.update_trust()
        lines = self.forwarded(balancer, client, GET)
        self.assertEqual(self.client_cert_lines(lines), [OWN])
        self.assertIn(b"X-Forwarded-Proto: https", lines)

    def test_forged_fields(self) -> None:
        """Fields of clients are removed with and without TLS."""
        for tls, expected in ((None, []), (TLS, []), (MUTUAL_TLS, [OWN])):
            lines = self.send(self.with_lines(FORGED), tls)
            self.assertEqual(self.client_cert_lines(lines), expected)

    def test_forged_trailers(self) -> None:
        """Trailer fields of these names are removed, for trusted proxies too."""
        for trusted in ((), (CLIENT,)):
            balancer = self.balancer(trusted_proxies=trusted)
            client = balancer.client(CLIENT, TLS)
            client.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"0\r\n" + FORGED + b"X-Sum: 1\r\n\r\n"
            )
            server = balancer.accept()
            _, body = head_and_body(server.received())
            self.assertEqual(body, b"0\r\nX-Sum: 1\r\n\r\n")
            server.send(OK)

    def test_fields_of_a_trusted_proxy(self) -> None:
        """A trusted proxy's fields are forwarded unchanged, instead of its own certificate."""
        expected = [b"Client-Cert: :MQ==:", b"client-cert-chain: :Mw==:"]
        for tls in (None, TLS, MUTUAL_TLS):
            lines = self.send(self.with_lines(FORGED), tls, trusted_proxies=(CLIENT,))
            self.assertEqual(self.client_cert_lines(lines), expected)
        lines = self.send(GET, MUTUAL_TLS, trusted_proxies=(CLIENT,))
        self.assertEqual(self.client_cert_lines(lines), [OWN])

    def test_default_host(self) -> None:
        """HTTP/1.0 without Host gets the local address; a Unix socket has a default port."""
        for tls, port in ((None, b"80"), (TLS, b"443")):
            balancer = self.balancer()
            client = balancer.client(CLIENT, tls)
            lines = self.forwarded(balancer, client, b"GET / HTTP/1.0\r\n\r\n")
            self.assertIn(b"Host: 127.0.0.1:1100", lines)
            client = balancer.client(CLIENT, tls)
            self.patch(client.transport, "getHost", lambda: UNIXAddress(b"/run/s"))
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            lines, _ = head_and_body(balancer.peers[1].received())
            self.assertIn(b"Host: localhost:" + port, lines)
            balancer.peers[1].send(OK)

    def test_absolute_form(self) -> None:
        """Targets of the scheme https are accepted over TLS only, http over both."""
        request = b"GET %b://a/b HTTP/1.1\r\nHost: a\r\n\r\n"
        for tls, scheme in ((None, b"http"), (TLS, b"http"), (TLS, b"https")):
            lines = self.send(request % scheme, tls)
            self.assertEqual(lines[0], b"GET /b HTTP/1.1")
            expected = b"http" if tls is None else b"https"
            self.assertIn(b"X-Forwarded-Proto: " + expected, lines)
        client = self.balancer().client(CLIENT)
        client.send(request % b"https")
        self.assert_error(client.received(), 400)
