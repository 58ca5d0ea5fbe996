"""Upgrades: from HTTP to a tunnel."""

from __future__ import annotations

from typing import Any

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK, MemoryBalancer, Peer, head_and_body

UPGRADE_REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n"
    b"Upgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n"
)
UPGRADE_RESPONSE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: eQ==\r\n\r\n"
)


class TunnelTests(BalancerTestCase):
    """Bytes both ways after a 101."""

    def tunnel(self, **settings: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        balancer = self.balancer(**settings)
        client = balancer.client()
        client.send(UPGRADE_REQUEST)
        server = balancer.accept()
        server.received()
        server.send(UPGRADE_RESPONSE)
        client.received()
        return balancer, client, server

    def test_handshake(self) -> None:
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

    def test_bytes_that_come_before_the_answer(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST + b"early", b"bird")
        server = balancer.accept()
        self.assertFalse(server.received().endswith(b"bird"))
        server.send(UPGRADE_RESPONSE)
        self.assertEqual(server.received(), b"earlybird")

    def test_refused(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(UPGRADE_REQUEST + GET)
        server = balancer.accept()
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
        server.received()
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_switch_to_what_was_not_offered(self) -> None:
        for answer in (UPGRADE_RESPONSE.replace(b"websocket", b"h2c"), b"HTTP/1.1 101 S\r\n\r\n"):
            balancer = self.balancer()
            client = balancer.client()
            client.send(UPGRADE_REQUEST)
            balancer.accept().send(answer)
            self.assert_error(client.received(), 502)

    def test_h2c_is_not_passed_on(self) -> None:
        forwarded, _ = self.exchange(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            OK,
        )
        for gone in (b"h2c", b"upgrade", b"http2-settings"):
            self.assertNotIn(gone, forwarded.lower())

    def test_upgrade_required_says_to_what(self) -> None:
        _, answered = self.exchange(
            GET,
            b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Content-Length: 0\r\n\r\n",
        )
        self.assertIn(b"\r\nUpgrade: websocket\r\nConnection: upgrade\r\n", answered)

    def test_client_says_all_first(self) -> None:
        balancer, client, server = self.tunnel()
        client.send(b"last words")
        client.half_close()
        self.assertTrue(server.transport.write_closed)
        self.assertEqual(server.received(), b"last words")
        server.send(b"answer")
        self.assertEqual(client.received(), b"answer")
        server.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.assertTrue(server.transport.closed)
        self.assertFalse(client.transport.aborted)

    def test_server_says_all_first(self) -> None:
        balancer, client, server = self.tunnel()
        server.send(b"last words")
        server.half_close()
        self.assertTrue(client.transport.write_closed)
        self.assertEqual(client.received(), b"last words")
        client.send(b"answer")
        self.assertEqual(server.received(), b"answer")
        client.half_close()
        server.finish_closing()
        self.assertFalse(client.transport.aborted, "what it was told last may still be on its way")
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)
        self.assertTrue(server.transport.closed)
        self.assertFalse(server.transport.aborted)
        self.assertFalse(client.transport.aborted)

    def test_reset_passes_through(self) -> None:
        balancer, client, server = self.tunnel()
        server.reset()
        self.assertTrue(client.transport.aborted)
        balancer, client, server = self.tunnel()
        client.reset()
        balancer.finish_closing()
        self.assertTrue(server.transport.aborted)

    def test_backpressure(self) -> None:
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

    def test_quiet_tunnel_is_not_cut(self) -> None:
        balancer, client, server = self.tunnel(timeouts=Timeouts(upstream=5, idle=5, header=5))
        balancer.advance(100)
        self.assertTrue(client.transport.keep_alive)
        client.send(b"still here")
        self.assertEqual(server.received(), b"still here")

    def test_client_that_left_while_its_last_words_are_on_the_way(self) -> None:
        balancer, client, server = self.tunnel()
        server.transport.stalled = True
        client.send(b"last words")
        client.half_close()
        server.half_close()
        balancer.finish_closing()
        self.assertFalse(server.transport.aborted)
        self.assertEqual(server.received(), b"last words")
