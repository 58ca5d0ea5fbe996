"""TCP sessions to servers with TLS (`tls://`)."""

from __future__ import annotations

from balancebeam.net.splice import can_splice
from tests.helpers.memory import MemoryBalancer, Peer
from tests.helpers.tls_server import TlsPeer, TlsTestCase


class TlsToServersTests(TlsTestCase):
    """Bytes of plain clients are encrypted towards the server."""

    mode = "tcp"

    def connect(self, first: bytes = b"") -> tuple[MemoryBalancer, Peer, TlsPeer]:
        """A balancer, a client that has sent `first`, and its server."""
        balancer = self.balancer()
        client = balancer.client()
        if first:
            client.send(first)
        return balancer, client, TlsPeer(balancer.accept(), self.context("10.0.0.1"))

    def test_both_directions(self) -> None:
        """Bytes pass in both directions; the first may arrive before the handshake."""
        balancer, client, server = self.connect(b"early ")
        client.transport.reading = True
        client.send(b"later")
        self.assertEqual(server.received(), b"early later")
        server.send(b"response")
        self.assertEqual(client.received(), b"response")
        self.assertEqual(balancer.servers[0].in_flight, 1)

    def test_long_flow(self) -> None:
        """A long flow arrives intact: TLS is never spliced."""
        _, client, server = self.connect()
        piece = bytes(range(256)) * 64
        received = b""
        for _ in range(80):
            client.send(piece)
            received += server.received()
        self.assertEqual(received, piece * 80)
        received = b""
        for _ in range(80):
            server.send(piece)
            received += client.received()
        self.assertEqual(received, piece * 80)
        tls_transport = server.peer.protocol
        self.assertFalse(can_splice(tls_transport, tls_transport))

    def test_half_close_by_client(self) -> None:
        """A FIN of the client becomes close_notify and FIN; the server continues to send."""
        _, client, server = self.connect(b"request")
        client.half_close()
        self.assertEqual(server.received(), b"request")
        self.assertTrue(server.input_closed)
        self.assertTrue(server.peer.transport.write_closed)
        server.send(b"res", b"ponse")
        self.assertEqual(client.received(), b"response")
        server.send_close_notify()
        server.half_close()
        self.assertTrue(client.transport.closing)
        self.assertTrue(server.peer.transport.closing)

    def test_half_close_within_record(self) -> None:
        """The client may half-close while a record of the server is incomplete."""
        _, client, server = self.connect(b"request")
        server.received()
        server.engine.write(b"response")
        record = server.outgoing.read()
        server.peer.send(record[:10])
        client.half_close()
        server.peer.send(record[10:])
        self.assertEqual(client.received(), b"response")

    def test_half_close_by_server(self) -> None:
        """A close_notify and a FIN of the server become a FIN; the client continues to send."""
        for close_notify in (True, False):
            _, client, server = self.connect()
            server.send(b"response")
            if close_notify:
                server.send_close_notify()
            server.half_close()
            self.assertEqual(client.received(), b"response")
            self.assertTrue(client.transport.write_closed, close_notify)
            self.assertFalse(client.transport.aborted)
            client.send(b"more")
            self.assertEqual(server.received(), b"more")
            client.half_close()
            self.assertTrue(client.transport.closing)

    def test_failed_handshake(self) -> None:
        """A client is disconnected if the handshake with the only server fails."""
        balancer = self.balancer()
        client = balancer.client()
        TlsPeer(balancer.accept(), self.context("wrong.example"))
        balancer.finish_closing()
        self.assertTrue(client.transport.closed)

    def test_next_server(self) -> None:
        """If the handshake fails, the next server gets the session."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(b"hello")
        TlsPeer(balancer.accept(), self.context("wrong.example"))
        server = TlsPeer(balancer.accept(), self.context("10.0.0.2"))
        self.assertEqual(server.received(), b"hello")

    def test_client_disconnected(self) -> None:
        """If the client disconnects within the handshake, the connection is closed after it."""
        balancer = self.balancer()
        client = balancer.client()
        peer = balancer.accept()
        client.reset()
        TlsPeer(peer, self.context("10.0.0.1"))
        self.assertTrue(peer.transport.closing)

    def test_session_resumed(self) -> None:
        """The next connection resumes the session."""
        balancer, client, server = self.connect()
        server.send(b"x")
        client.half_close()
        server.pump()
        server.send_close_notify()
        server.half_close()
        balancer.finish_closing()
        balancer.client()
        second = TlsPeer(balancer.accept(), server.context)
        self.assertTrue(second.engine.session_reused)
