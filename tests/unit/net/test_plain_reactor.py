"""The reactor of data connections where there is no epoll."""

from __future__ import annotations

import socket
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.plain_reactor import PlainReactor
from balancebeam.net.transport import TcpClientTransport, TcpServerTransport
from tests.helpers.net import FakeReadWriteReactor, RecordingProtocol, receive_pending


class PlainReactorTests(SynchronousTestCase):
    """The poller's extensions, implemented by Twisted's reactor."""

    def setUp(self) -> None:
        self.fake = FakeReadWriteReactor()
        self.reactor = PlainReactor(self.fake)
        self.ours, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.addCleanup(self.ours.close)
        self.addCleanup(self.peer.close)
        self.protocol = RecordingProtocol()

    def transport(self) -> TcpServerTransport:
        """Return a connected transport."""
        no_port: Any = None
        transport = TcpServerTransport(
            self.ours, self.protocol, ("127.0.0.1", 1), no_port, 1, self.reactor
        )
        self.protocol.makeConnection(transport)
        return transport

    def test_close(self) -> None:
        """A close with nothing buffered happens in the next iteration."""
        transport = self.transport()
        transport.write(b"all")
        transport.loseConnection()
        self.assertEqual((self.protocol.lost, self.fake.readers), (0, []))
        self.fake.advance(0)
        self.assertEqual(self.protocol.lost, 1)
        self.assertEqual((self.fake.readers, self.fake.writers), ([], []))
        self.assertEqual((self.peer.recv(10), self.peer.recv(10)), (b"all", b""))

    def test_abort_after_close(self) -> None:
        """A transport that is aborted while its close is pending is closed once."""
        transport = self.transport()
        transport.loseConnection()
        transport.abortConnection()
        self.fake.advance(0)
        self.assertEqual(self.protocol.lost, 1)

    def test_half_close(self) -> None:
        """A half-close with nothing buffered happens at once."""
        transport = self.transport()
        transport.loseWriteConnection()
        self.assertEqual(receive_pending(self.peer), b"")
        self.assertRaises(BrokenPipeError, self.ours.send, b"x")
        transport.abortConnection()
        self.fake.advance(0)

    def test_pause_and_resume(self) -> None:
        """A paused transport is no reader of the reactor."""
        transport = self.transport()
        self.assertEqual(self.fake.readers, [transport])
        transport.pauseProducing()
        self.assertEqual(self.fake.readers, [])
        transport.resumeProducing()
        self.assertEqual(self.fake.readers, [transport])
        transport.abortConnection()
        self.fake.advance(0)

    def test_transfer_of_a_registration(self) -> None:
        """A connector is removed as a writer, and its transport added as a reader."""
        writer: Any = object()
        transport = TcpClientTransport(self.ours, self.reactor)
        self.reactor.addWriter(writer)
        self.reactor.transfer_registration(writer, transport)
        self.assertEqual((self.fake.readers, self.fake.writers), ([transport], []))

    def test_time(self) -> None:
        """Timers and the time are the reactor's."""
        calls: list[int] = []
        self.reactor.callLater(1, calls.append, 1)
        self.fake.advance(1)
        self.assertEqual((calls, self.reactor.seconds()), ([1], 1.0))
