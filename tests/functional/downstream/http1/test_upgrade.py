"""HTTP/1.1 upgrades and the tunnels that follow."""

from __future__ import annotations

from typing import Any

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK, MemoryBalancer, Peer, head_and_body
from tests.helpers.upgrade import UPGRADE_REQUEST, UPGRADE_RESPONSE


class TunnelTests(BalancerTestCase):
    """Upgrade requests, and bytes in both directions after a 101 response."""

    def tunnel(self, **settings: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        """A balancer, a client and a server with an established tunnel."""
        balancer = self.balancer(**settings)
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        server.received()
        server.send(UPGRADE_RESPONSE)
        client.received()
        return balancer, client, server

    def test_handshake(self) -> None:
        """Request and 101 response are forwarded; then bytes pass unchanged, HTTP or not."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        lines, _ = head_and_body(server.received())
        self.assertIn(b"Upgrade: websocket", lines)
        self.assertIn(b"Connection: upgrade", lines)
        self.assertIn(b"Sec-WebSocket-Key: eA==", lines)
        server.send(UPGRADE_RESPONSE + b"first")
        lines, rest = head_and_body(client.received())
        self.assertEqual(lines[0], b"HTTP/1.1 101 Switching Protocols")
        self.assertIn(b"Upgrade: websocket", lines)
        self.assertIn(b"Connection: upgrade", lines)
        self.assertEqual(rest, b"first")
        client.send(b"\x00\r\n\r\n", b"GET")
        self.assertEqual(server.received(), b"\x00\r\n\r\nGET")
        server.send(b"HTTP/1.1 200 OK\r\n\r\n")
        self.assertEqual(client.received(), b"HTTP/1.1 200 OK\r\n\r\n")

    def test_bytes_before_the_response(self) -> None:
        """Bytes that the client sends before the 101 response are sent after it."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST + b"early", b"bird")
        server = balancer.accept()
        self.assertFalse(server.received().endswith(b"bird"))
        server.send(UPGRADE_RESPONSE)
        self.assertEqual(server.received(), b"earlybird")

    def test_declined_upgrade(self) -> None:
        """If the server declines the upgrade, the client's later bytes are requests."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST + GET)
        server = balancer.accept()
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
        server.received()
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_upgrade_to_another_protocol(self) -> None:
        """A 101 response to a protocol that was not offered, or to none, is answered with 502."""
        for response in (UPGRADE_RESPONSE.replace(b"websocket", b"h2c"), b"HTTP/1.1 101 S\r\n\r\n"):
            balancer = self.balancer()
            client = balancer.client()
            client.send(UPGRADE_REQUEST)
            balancer.accept().send(response)
            self.assert_error(client.received(), 502)

    def test_h2c_is_not_forwarded(self) -> None:
        """An upgrade to h2c is dropped, and the request is forwarded without it."""
        forwarded, _ = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            OK,
        )
        for removed in (b"h2c", b"upgrade", b"http2-settings"):
            self.assertNotIn(removed, forwarded.lower())

    def test_upgrade_required(self) -> None:
        """A 426 response keeps its Upgrade header."""
        _, received = self.exchange(
            GET,
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Content-Length: 0\r\n\r\n",
        )
        self.assertIn(b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", received)

    def test_half_close_by_the_client(self) -> None:
        """The client's EOF is passed on, and the server may still send."""
        balancer, client, server = self.tunnel()
        client.send(b"last bytes")
        client.half_close()
        self.assertTrue(server.transport.write_closed)
        self.assertEqual(server.received(), b"last bytes")
        server.send(b"response")
        self.assertEqual(client.received(), b"response")
        server.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.assertTrue(server.transport.closed)
        self.assertFalse(client.transport.aborted)

    def test_half_close_by_the_server(self) -> None:
        """The server's EOF is passed on, and the client may still send."""
        balancer, client, server = self.tunnel()
        server.send(b"last bytes")
        server.half_close()
        self.assertTrue(client.transport.write_closed)
        self.assertEqual(client.received(), b"last bytes")
        client.send(b"response")
        self.assertEqual(server.received(), b"response")
        client.half_close()
        server.finish_closing()
        self.assertFalse(client.transport.aborted, "bytes may still be on their way to the client")
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.assertTrue(server.transport.closed)
        self.assertFalse(server.transport.aborted)
        self.assertFalse(client.transport.aborted)

    def test_reset(self) -> None:
        """A reset of one side resets the other side."""
        balancer, client, server = self.tunnel()
        server.reset()
        self.assertTrue(client.transport.aborted)
        balancer, client, server = self.tunnel()
        client.reset()
        balancer.finish_closing()
        self.assertTrue(server.transport.aborted)

    def test_backpressure(self) -> None:
        """A side that does not read pauses reading from the other one."""
        _, client, server = self.tunnel()
        client.transport.stalled = True
        server.send(b"x" * 2 * BUFFER_SIZE)
        self.assertFalse(server.transport.reading)
        client.received()
        self.assertTrue(server.transport.reading)
        server.transport.stalled = True
        client.send(b"x" * 2 * BUFFER_SIZE)
        self.assertFalse(client.transport.reading)
        server.received()
        self.assertTrue(client.transport.reading)

    def test_idle_tunnel_stays_open(self) -> None:
        """Header, idle and upstream timeouts do not apply to a tunnel."""
        balancer, client, server = self.tunnel(timeouts=Timeouts(upstream=5, idle=5, header=5))
        balancer.advance(100)
        self.assertTrue(client.transport.keep_alive)
        client.send(b"still here")
        self.assertEqual(server.received(), b"still here")

    def test_close_with_unsent_bytes(self) -> None:
        """Bytes for a slow server are delivered although both sides have sent EOF."""
        balancer, client, server = self.tunnel()
        server.transport.stalled = True
        client.send(b"last bytes")
        client.half_close()
        server.half_close()
        balancer.finish_closing()
        self.assertFalse(server.transport.aborted)
        self.assertEqual(server.received(), b"last bytes")
