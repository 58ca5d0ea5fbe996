"""The balancer as a resource of a `twisted.web` tree."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import ISSLTransport
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import Site
from zope.interface import directlyProvides
from zope.interface.verify import verifyObject

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK, MemoryBalancer, Peer, head_and_body


class WebResourceTests(BalancerTestCase):
    """A balancer mounted at `/app`."""

    def mounted(self, **settings: Any) -> tuple[MemoryBalancer, Peer]:
        """A balancer, and a client of a `twisted.web` site in which it is mounted."""
        balancer = self.balancer(**settings)
        root = Resource()
        root.putChild(b"app", balancer.service.resource)
        site = Site(root, reactor=balancer.clock)
        channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 40000))
        client = Peer(channel)

        def disconnect() -> None:
            """Disconnect the client at the end of the test."""
            if not client.transport.closed:
                client.transport.closed = True
                channel.connectionLost(Failure(error.ConnectionLost()))

        self.addCleanup(disconnect)
        return balancer, client

    def test_interface(self) -> None:
        """The resource provides IResource."""
        verifyObject(IResource, self.balancer().service.resource)

    def test_request(self) -> None:
        """The path below the mount and the end-to-end headers are forwarded."""
        balancer, client = self.mounted()
        client.send(
            b"GET /app/a%2Fb/?c=%20 HTTP/1.1\r\nHost: a\r\nX-Two: 1\r\nX-Two: 2\r\n"
            b"Connection: X-Gone\r\nX-Gone: 1\r\n\r\n"
        )
        server = balancer.accept()
        lines, body = head_and_body(server.received())
        self.assertEqual(lines[0], b"GET /a%2Fb/?c=%20 HTTP/1.1")
        self.assertEqual(lines.count(b"X-Two: 1") + lines.count(b"X-Two: 2"), 2)
        self.assertIn(b"Host: a", lines)
        self.assertIn(b"X-Forwarded-For: 127.0.0.1", lines)
        self.assertNotIn(b"X-Gone: 1", lines)
        self.assertEqual(body, b"")
        server.send(OK)

    def test_client_cert_fields(self) -> None:
        """Client-Cert fields are removed, but forwarded if the peer is a trusted proxy."""
        lines = b"Client-Cert: :MQ==:\r\nClient-Cert-Chain: :Mg==:\r\nClient_Cert: :Mw==:\r\n"
        for trusted, expected in (
            ((), []),
            (
                ("127.0.0.1",),
                [b"Client-Cert: :MQ==:", b"Client-Cert-Chain: :Mg==:"],
            ),
        ):
            balancer, client = self.mounted(trusted_proxies=trusted)
            client.send(b"GET /app/ HTTP/1.1\r\nHost: a\r\n" + lines + b"\r\n")
            received, _ = head_and_body(balancer.accept().received())
            found = [line for line in received if line.lower().startswith(b"client")]
            self.assertEqual(found, expected)

    def test_secure_request(self) -> None:
        """Servers receive the scheme of the site's connection."""
        balancer, client = self.mounted()
        # Twisted's Request.isSecure looks for this interface of the transport.
        directlyProvides(client.transport, ISSLTransport)
        client.send(GET.replace(b"/ ", b"/app/ "))
        lines, _ = head_and_body(balancer.accept().received())
        self.assertIn(b"X-Forwarded-Proto: https", lines)

    def test_request_for_the_mount(self) -> None:
        """A request for the mounted path itself is forwarded as `/`."""
        balancer, client = self.mounted()
        client.send(b"GET /app?x HTTP/1.1\r\nHost: a\r\n\r\n")
        server = balancer.accept()
        self.assertTrue(server.received().startswith(b"GET /?x HTTP/1.1\r\n"))
        server.send(OK)

    def test_response(self) -> None:
        """Status, reason, headers and body are the server's, without defaults of `twisted.web`."""
        balancer, client = self.mounted()
        client.send(GET.replace(b"/ ", b"/app/ "))
        balancer.accept().send(
            b"HTTP/1.1 201 Made\r\nSet-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok"
        )
        lines, body = head_and_body(client.received())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 201 Made", b"ok"))
        self.assertIn(b"Set-Cookie: a", lines)
        self.assertIn(b"Set-Cookie: b", lines)
        self.assertIn(b"Via: 1.1 balancebeam", lines)
        text = b"\r\n".join(lines).lower()
        self.assertNotIn(b"twistedweb", text)
        self.assertNotIn(b"content-type", text)
        self.assertEqual(text.count(b"\r\ndate:"), 1)

    def test_bodies(self) -> None:
        """Forwarded request bodies have a length; chunked responses stay chunked."""
        for request in (
            b"POST /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            b"POST /app/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3\r\nabc\r\n0\r\n\r\n",
        ):
            balancer, client = self.mounted()
            client.send(request)
            server = balancer.accept()
            lines, body = head_and_body(server.received())
            self.assertEqual(body, b"abc")
            self.assertIn(b"Content-Length: 3", lines)
            self.assertNotIn(b"chunked", b"".join(lines))
            server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nde\r\n")
            server.send(b"0\r\n\r\n")
            lines, body = head_and_body(client.received())
            self.assertEqual(body, b"2\r\nde\r\n0\r\n\r\n")

    def test_large_body_is_sent_as_the_server_reads(self) -> None:
        """A stored request body is uploaded only as fast as the server reads."""
        balancer, client = self.mounted()
        size = 10 * BUFFER_SIZE
        client.send(b"POST /app/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.send(b"x" * size)
        server = balancer.accept(stalled=True)
        first = server.received()
        self.assertTrue(first.startswith(b"POST / HTTP/1.1\r\n"))
        self.assertLess(len(first), 5 * BUFFER_SIZE)
        while server.transport.stalled:
            more = server.received()
            server.transport.stalled = bool(more)
            first += more
        self.assertEqual(len(head_and_body(first)[1]), size)
        server.send(OK)

    def test_no_server(self) -> None:
        """Without a server the client receives 503 in the proxy's own form."""
        _, client = self.mounted(servers=0)
        client.send(GET.replace(b"/ ", b"/app/ "))
        self.assert_error(client.received(), 503)

    def test_failover(self) -> None:
        """A request whose server cannot be connected is sent to another one."""
        balancer, client = self.mounted(servers=2)
        client.send(GET.replace(b"/ ", b"/app/ "))
        balancer.connectors[0].refuse()
        balancer.accept().send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_truncated_body_has_no_last_chunk(self) -> None:
        """A truncated response ends in a close, without the last chunk."""
        balancer, client = self.mounted()
        client.send(GET.replace(b"/ ", b"/app/ "))
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        server.reset()
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.received().endswith(b"0\r\n\r\n"))

    def test_client_disconnect(self) -> None:
        """A client's reset resets the upstream connection."""
        balancer, client = self.mounted()
        client.send(GET.replace(b"/ ", b"/app/ "))
        server = balancer.accept()
        client.reset()
        self.assertTrue(server.transport.aborted)

    def test_backpressure(self) -> None:
        """While the client does not read, reading from the server is paused."""
        balancer, client = self.mounted()
        client.send(GET.replace(b"/ ", b"/app/ "))
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b"x" * 2 * BUFFER_SIZE)
        self.assertFalse(server.transport.reading)
        client.received()
        self.assertTrue(server.transport.reading)

    def test_client_that_stops_reading(self) -> None:
        """A client that does not read is reset after the idle timeout."""
        balancer, client = self.mounted(timeouts=Timeouts(upstream=5, idle=5, header=5))
        client.send(GET.replace(b"/ ", b"/app/ "))
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 999999\r\n\r\n", b"x" * 2 * BUFFER_SIZE)
        balancer.advance(8)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(server.transport.aborted)

    def test_upgrade_is_not_forwarded(self) -> None:
        """The Upgrade header is not forwarded."""
        balancer, client = self.mounted()
        client.send(
            b"GET /app/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        server = balancer.accept()
        self.assertNotIn(b"websocket", server.received())
        server.send(OK)
