"""Transports that write at once, over real sockets and without a reactor running."""

from __future__ import annotations

import gc
import os
import platform
import select
import shutil
import socket
import tempfile
import weakref
from typing import Any

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.net.listening import listen
from balancebeam.net.poller import BatchPoller
from balancebeam.net.relay import Relay
from balancebeam.net.transport import TcpClientTransport, TcpServerTransport, peer_ip
from tests.unit.net.test_poller import FakeReactor


class FakeReadWriteReactor(FakeReactor):
    """Knows who wants to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)

    def addWriter(self, writer: Any) -> None:
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        if writer in self.writers:
            self.writers.remove(writer)


class RecordingProtocol(Protocol):
    """Notes what it is told, and is a producer."""

    def __init__(self) -> None:
        self.data = b""
        self.lost = 0
        self.paused = 0
        self.resumed = 0

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: object = None) -> None:
        self.lost += 1

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        """The end of the connection says the same."""


class DirectWriteTests(SynchronousTestCase):
    """One transport over one end of a socket pair."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        reactor: Any = self.reactor
        nowhere: Any = None
        ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.protocol = RecordingProtocol()
        self.transport = TcpServerTransport(
            ours, self.protocol, ("127.0.0.1", 1), nowhere, 1, reactor
        )
        self.protocol.makeConnection(self.transport)
        self.addCleanup(self.close)

    def close(self) -> None:
        if self.transport.connected:
            self.transport.abortConnection()
            self.reactor.advance(0)
        self.assertEqual(self.reactor.writers, [])
        self.assertEqual(self.reactor.readers, [])

    def fill(self) -> int:
        """Write until the kernel takes no more."""
        written = 0
        while self.transport.nothing_buffered:
            self.transport.write(b"x" * 50000)
            written += 50000
        return written

    def read_all(self) -> bytes:
        data = b""
        while True:
            try:
                more = self.peer.recv(1 << 20)
            except BlockingIOError:
                if not self.reactor.writers:
                    return data
                self.transport.doWrite()
                continue
            if not more:
                return data
            data += more

    def test_bytes_are_with_the_peer_at_once(self) -> None:
        self.transport.write(b"hello")
        self.assertEqual(self.peer.recv(10), b"hello")
        self.assertEqual(self.reactor.writers, [])

    def test_what_the_kernel_does_not_take_follows_in_order(self) -> None:
        written = self.fill()
        self.transport.write(b"last")
        self.assertEqual(self.reactor.writers, [self.transport])
        outstanding = self.transport.unacked_bytes()
        data = self.read_all()
        self.assertEqual(len(data), written + 4)
        self.assertTrue(data.endswith(b"xlast"))
        self.assertTrue(self.transport.nothing_buffered)
        self.assertGreater(self.transport.kernel_bytes, 0)
        self.assertNotEqual(self.transport.unacked_bytes(), outstanding)
        self.transport.write(b"more")
        self.assertEqual(self.peer.recv(10), b"more")

    def test_producer_is_paused_and_resumed(self) -> None:
        self.transport.registerProducer(self.protocol, True)
        self.fill()
        self.transport.write(b"x" * 70000)
        self.assertEqual((self.protocol.paused > 0, self.protocol.resumed), (True, 0))
        self.read_all()
        self.assertEqual(self.protocol.resumed, 1)
        self.transport.unregisterProducer()

    def test_close_waits_for_what_is_left(self) -> None:
        written = self.fill()
        self.transport.loseConnection()
        self.transport.write(b"too late?")
        data = b""
        while self.reactor.writers:
            data += _read(self.peer, 1 << 20)
            why = self.transport.doWrite()
            if why is not None:
                self.transport.connectionLost(Failure(why))
        self.assertGreaterEqual(len(data) + len(self.read_all()), written)
        self.assertEqual(self.protocol.lost, 1)

    def test_nothing_is_written_after_the_end(self) -> None:
        self.transport.loseWriteConnection()
        self.transport.doWrite()
        self.assertEqual(self.peer.recv(10), b"")
        self.transport.write(b"late")
        self.assertFalse(self.transport.nothing_buffered)
        self.peer.send(b"still heard")
        self.transport.doRead()
        self.assertEqual(self.protocol.data, b"still heard")

    def test_last_bytes_and_the_end(self) -> None:
        self.transport.write(b"first, ")
        self.transport.write_more(b"last")
        self.transport.loseWriteConnection()
        self.assertEqual(self.peer.recv(100), b"first, last")
        self.assertEqual(self.peer.recv(100), b"")

    def test_last_bytes_that_have_to_wait(self) -> None:
        written = self.fill()
        self.transport.write_more(b"last")
        data = self.read_all()
        self.assertEqual((len(data), data[-5:]), (written + 4, b"xlast"))

    def test_last_bytes_to_who_is_gone(self) -> None:
        self.peer.close()
        self.transport.write_more(b"last")
        self.assertEqual((self.protocol.lost, self.reactor.writers), (0, [self.transport]))

    def test_nothing_is_written_after_an_abort(self) -> None:
        self.transport.abortConnection()
        self.transport.write(b"late")
        self.reactor.advance(0)
        self.assertEqual(self.protocol.lost, 1)
        self.assertEqual(_read(self.peer), b"")

    def test_peer_that_is_gone_is_noticed_outside_of_write(self) -> None:
        self.peer.close()
        self.transport.write(b"x")
        self.transport.write(b"y")
        self.assertEqual(self.protocol.lost, 0)
        self.assertEqual(self.reactor.writers, [self.transport])

    def test_reading(self) -> None:
        self.assertIsNone(self.transport.doRead())
        self.peer.send(b"abc")
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.protocol.data, b"abc")
        self.peer.close()
        self.assertEqual(type(self.transport.doRead()).__name__, "ConnectionDone")


class RelayTests(SynchronousTestCase):
    """Two ends that are joined, over TCP, with a poller of their own."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        self.poller = BatchPoller(self.reactor)
        self.half_closes: list[Any] = []
        half_close = tcp.Connection._closeWriteConnection

        def noted(transport: Any) -> None:
            self.half_closes.append(transport)
            half_close(transport)

        self.patch(tcp.Connection, "_closeWriteConnection", noted)
        self.client, ours = self.pair()
        self.server, theirs = self.pair()
        nowhere: Any = None
        self.links = Relay(), Relay()
        transports = (
            TcpServerTransport(ours, self.links[0], ("127.0.0.1", 1), nowhere, 1, self.poller),
            TcpClientTransport(theirs, self.poller),
        )
        transports[1].protocol = self.links[1]
        transports[1].startReading()
        for link, transport in zip(self.links, transports):
            link.makeConnection(transport)
        self.links[0].connect_peer(self.links[1])
        self.addCleanup(self.close)

    def pair(self) -> tuple[socket.socket, socket.socket]:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        self.addCleanup(peer.close)
        peer.settimeout(10)
        ours.setblocking(False)
        return peer, ours

    def close(self) -> None:
        for link in self.links:
            if not link.closing:
                link.abort()
        self.reactor.advance(0)
        self.assertEqual(self.poller.fileno(), -1)
        self.assertEqual(self.reactor.readers, [])

    def serve(self) -> None:
        """Serve what is ready, and there has to be something."""
        self.assertTrue(select.select([self.poller.fileno()], [], [], 10)[0])
        self.poller.doRead()

    def test_half_an_end_is_passed_on(self) -> None:
        self.server.sendall(b"all")
        self.server.shutdown(socket.SHUT_WR)
        self.serve()
        self.assertEqual(len(self.half_closes), 1)
        self.assertEqual((self.client.recv(100), self.client.recv(100)), (b"all", b""))
        self.client.sendall(b"more")
        self.serve()
        self.assertEqual(self.server.recv(100), b"more")
        self.client.close()
        self.serve()
        self.assertEqual(self.server.recv(100), b"")
        self.assertEqual(len(self.half_closes), 1)
        self.assertTrue(all(link.closing for link in self.links))

    def test_two_ends_in_one_batch_are_one(self) -> None:
        self.server.sendall(b"from the server")
        self.client.sendall(b"from the client")
        for peer in (self.server, self.client):
            peer.shutdown(socket.SHUT_WR)
        self.serve()
        self.assertEqual(self.half_closes, [])
        self.assertEqual((self.client.recv(100), self.client.recv(100)), (b"from the server", b""))
        self.assertEqual((self.server.recv(100), self.server.recv(100)), (b"from the client", b""))
        self.assertEqual(self.poller.fileno(), -1)

    def test_nothing_goes_round_in_circles(self) -> None:
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")
        left = [weakref.ref(link) for link in self.links]
        for peer in (self.server, self.client):
            peer.close()
        self.serve()
        gc.disable()
        self.addCleanup(gc.enable)
        self.links = ()  # type: ignore[assignment]
        self.assertEqual([link() for link in left], [None, None])


class EndpointTransportTests(SynchronousTestCase):
    """A link over a transport that is Twisted's own, as endpoints make them."""

    def test_who_does_not_take_the_last(self) -> None:
        reactor: Any = FakeReadWriteReactor()
        nowhere: Any = None
        ours, peer = socket.socketpair()
        self.addCleanup(peer.close)
        link = Relay()
        transport = tcp.Server(ours, link, ("127.0.0.1", 1), nowhere, 1, reactor)
        self.patch(transport, "setTcpNoDelay", lambda enabled: None)
        link.makeConnection(transport)
        transport.write(b"x" * 10_000_000)
        transport.doWrite()
        link.close()
        link.abort_if_stalled(0, 60)
        peer.recv(100_000)
        link.abort_if_stalled(59, 60)
        link.abort_if_stalled(118, 60)
        self.assertFalse(link.aborted)
        link.abort_if_stalled(119, 60)
        self.assertTrue(link.aborted)
        reactor.advance(0)
        self.assertEqual((reactor.readers, reactor.writers), ([], []))


def _read(peer: socket.socket, most: int = 100) -> bytes:
    try:
        return peer.recv(most)
    except OSError:
        return b""


class ListeningPortTests(SynchronousTestCase):
    """Ports on real addresses."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        self.factory = Factory.forProtocol(RecordingProtocol)
        self.factory.noisy = False

    def path(self) -> str:
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "socket")

    def stop(self, port: Any) -> None:
        stopped = port.stopListening()
        self.reactor.advance(0)
        self.successResultOf(stopped)

    def test_address_in_use(self) -> None:
        port: Any = listen(TcpAddress("127.0.0.1", 0), self.factory, self.reactor)
        number = port.getHost().port
        with self.assertRaises(CannotListenError):
            listen(TcpAddress("127.0.0.1", number), self.factory, self.reactor)
        self.stop(port)

    def test_unix_socket(self) -> None:
        path = self.path()
        port = listen(UnixAddress(path), self.factory, self.reactor)
        with self.assertRaises(CannotListenError):
            listen(UnixAddress(path), self.factory, self.reactor)
        self.stop(port)
        self.assertFalse(os.path.exists(path))

    def test_unix_socket_that_a_dead_process_left(self) -> None:
        path = self.path()
        left = socket.socket(socket.AF_UNIX)
        left.bind(path)
        left.close()
        os.symlink("999999999", path + ".lock")
        self.stop(listen(UnixAddress(path), self.factory, self.reactor))


class PeerIpTests(SynchronousTestCase):
    """By which text servers hear of a client."""

    def test_names(self) -> None:
        for peer, name in (
            (IPv4Address("TCP", "192.0.2.1", 1), "192.0.2.1"),
            (IPv6Address("TCP", "2001:db8::1", 1), "2001:db8::1"),
            (IPv6Address("TCP", "fe80::1%eth0", 1), "fe80::1"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 1), "192.0.2.1"),
            (UNIXAddress(b"/x"), "unknown"),
        ):
            self.assertEqual(peer_ip(peer), name)
