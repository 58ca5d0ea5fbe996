"""Relays over TCP, with a poller of their own and without a running reactor."""

from __future__ import annotations

import gc
import platform
import select
import socket
import weakref
from typing import Any

from twisted.internet import tcp
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from balancebeam.net.poller import BatchPoller
from balancebeam.net.relay import Relay
from balancebeam.net.transport import TcpClientTransport, TcpServerTransport
from tests.helpers.net import FakeReadWriteReactor


class RelayTests(SynchronousTestCase):
    """A client, two connected relays, and a server."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        self.poller = BatchPoller(self.reactor)
        self.half_closes: list[Any] = []
        half_close = tcp.Connection._closeWriteConnection

        def record(transport: Any) -> None:
            self.half_closes.append(transport)
            half_close(transport)

        self.patch(tcp.Connection, "_closeWriteConnection", record)
        self.client, accepted = self.pair()
        self.server, connected = self.pair()
        no_port: Any = None
        self.relays = Relay(), Relay()
        transports = (
            TcpServerTransport(accepted, self.relays[0], ("127.0.0.1", 1), no_port, 1, self.poller),
            TcpClientTransport(connected, self.poller),
        )
        transports[1].protocol = self.relays[1]
        transports[1].startReading()
        for relay, transport in zip(self.relays, transports):
            relay.makeConnection(transport)
        self.relays[0].connect_peer(self.relays[1])
        self.addCleanup(self.close)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """Return two connected sockets: the peer's (blocking), and the balancer's."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            accepted, _ = listener.accept()
        self.addCleanup(peer.close)
        peer.settimeout(10)
        accepted.setblocking(False)
        return peer, accepted

    def close(self) -> None:
        """Abort what is open; nothing is left in the poller or the reactor."""
        for relay in self.relays:
            if not relay.closing:
                relay.abort()
        self.reactor.advance(0)
        self.assertEqual(self.poller.fileno(), -1)
        self.assertEqual(self.reactor.readers, [])

    def run_batch(self) -> None:
        """Handle one batch of events, of which there must be at least one."""
        self.assertTrue(select.select([self.poller.fileno()], [], [], 10)[0])
        self.poller.doRead()

    def test_half_close_is_forwarded(self) -> None:
        """After the server's FIN the client can still send, until it closes as well."""
        self.server.sendall(b"all")
        self.server.shutdown(socket.SHUT_WR)
        self.run_batch()
        self.assertEqual(len(self.half_closes), 1)
        self.assertEqual((self.client.recv(100), self.client.recv(100)), (b"all", b""))
        self.client.sendall(b"more")
        self.run_batch()
        self.assertEqual(self.server.recv(100), b"more")
        self.client.close()
        self.run_batch()
        self.assertEqual(self.server.recv(100), b"")
        self.assertEqual(len(self.half_closes), 1)
        self.assertTrue(all(relay.closing for relay in self.relays))

    def test_two_fins_in_one_batch_close_without_half_close(self) -> None:
        """If both FINs are in one batch, the sockets are closed without shutdown(2)."""
        self.server.sendall(b"from the server")
        self.client.sendall(b"from the client")
        for peer in (self.server, self.client):
            peer.shutdown(socket.SHUT_WR)
        self.run_batch()
        self.assertEqual(self.half_closes, [])
        self.assertEqual((self.client.recv(100), self.client.recv(100)), (b"from the server", b""))
        self.assertEqual((self.server.recv(100), self.server.recv(100)), (b"from the client", b""))
        self.assertEqual(self.poller.fileno(), -1)

    def test_no_reference_cycle(self) -> None:
        """Closed relays are freed by reference counts, without the garbage collector."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")
        references = [weakref.ref(relay) for relay in self.relays]
        for peer in (self.server, self.client):
            peer.close()
        self.run_batch()
        gc.disable()
        self.addCleanup(gc.enable)
        self.relays = ()  # type: ignore[assignment]
        self.assertEqual([reference() for reference in references], [None, None])


class EndpointTransportTests(SynchronousTestCase):
    """A relay over a transport of Twisted's own, as endpoints make them."""

    def test_stalled_peer_is_aborted(self) -> None:
        """A closing relay is aborted 60 s after the last acknowledgement of its peer."""
        reactor: Any = FakeReadWriteReactor()
        no_port: Any = None
        accepted, peer = socket.socketpair()
        self.addCleanup(peer.close)
        relay = Relay()
        transport = tcp.Server(accepted, relay, ("127.0.0.1", 1), no_port, 1, reactor)
        self.patch(transport, "setTcpNoDelay", lambda enabled: None)
        relay.makeConnection(transport)
        transport.write(b"x" * 10_000_000)
        transport.doWrite()
        relay.close()
        relay.abort_if_stalled(0, 60)
        peer.recv(100_000)
        relay.abort_if_stalled(59, 60)
        relay.abort_if_stalled(118, 60)
        self.assertFalse(relay.aborted)
        relay.abort_if_stalled(119, 60)
        self.assertTrue(relay.aborted)
        reactor.advance(0)
        self.assertEqual((reactor.readers, reactor.writers), ([], []))
