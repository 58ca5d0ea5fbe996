"""Direct-write transports over real sockets, without a running reactor."""

from __future__ import annotations

import socket
from typing import Any

from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.net.plain_reactor import PlainReactor
from balancebeam.net.transport import TcpServerTransport
from tests.helpers.net import FakeReadWriteReactor, RecordingProtocol, receive_pending


class DirectWriteTests(SynchronousTestCase):
    """One transport over one end of a socket pair."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        no_port: Any = None
        accepted, self.peer = socket.socketpair()
        self.peer.setblocking(False)
        self.addCleanup(self.peer.close)
        self.protocol = RecordingProtocol()
        self.transport = TcpServerTransport(
            accepted, self.protocol, ("127.0.0.1", 1), no_port, 1, PlainReactor(self.reactor)
        )
        self.protocol.makeConnection(self.transport)
        self.addCleanup(self.close)

    def close(self) -> None:
        """Abort the transport if it is open; nothing is left in the reactor."""
        if self.transport.connected:
            self.transport.abortConnection()
            self.reactor.advance(0)
        self.assertEqual(self.reactor.writers, [])
        self.assertEqual(self.reactor.readers, [])

    def fill(self) -> int:
        """Write until the kernel's buffer is full; returns the bytes written."""
        written = 0
        while self.transport.nothing_buffered:
            self.transport.write(b"x" * 50000)
            written += 50000
        return written

    def read_all(self) -> bytes:
        """Read at the peer, with the transport as a writer, until nothing is left."""
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

    def test_write_is_sent_at_once(self) -> None:
        """Written bytes reach the peer without a writer in the reactor."""
        self.transport.write(b"hello")
        self.assertEqual(self.peer.recv(10), b"hello")
        self.assertEqual(self.reactor.writers, [])

    def test_bytes_are_counted(self) -> None:
        """Every byte counts once: sent at once, with more to follow, or from the buffer."""
        self.transport.write(b"hello")
        self.transport.write_more(b"more")
        written = 9 + self.fill()
        self.transport.write_more(b"buffered")
        self.assertEqual(len(self.read_all()), written + 8)
        self.assertEqual(self.transport.bytes_sent, written + 8)
        self.peer.send(b"request")
        self.transport.doRead()
        self.peer.send(b"body")
        self.transport.doRead()
        self.assertEqual(self.transport.bytes_received, 11)

    def test_bytes_of_a_connection_that_is_cut(self) -> None:
        """Bytes that never leave the buffer, or are written after the end, do not count."""
        self.fill()
        self.transport.write(b"x" * 100_000)
        self.transport.abortConnection()
        self.transport.write(b"late")
        self.reactor.advance(0)
        self.transport.write(b"later")
        sent = 0
        while data := self.peer.recv(1 << 20):
            sent += len(data)
        self.assertGreater(sent, 0)
        self.assertEqual(self.transport.bytes_sent, sent)

    def test_bytes_beyond_the_kernel_buffer_follow_in_order(self) -> None:
        """What the kernel does not accept is buffered, and sent before later writes."""
        written = self.fill()
        self.transport.write(b"last")
        self.assertEqual(self.reactor.writers, [self.transport])
        unacked = self.transport.unacked_bytes()
        data = self.read_all()
        self.assertEqual(len(data), written + 4)
        self.assertTrue(data.endswith(b"xlast"))
        self.assertTrue(self.transport.nothing_buffered)
        self.assertGreater(self.transport.kernel_bytes, 0)
        self.assertNotEqual(self.transport.unacked_bytes(), unacked)
        self.transport.write(b"more")
        self.assertEqual(self.peer.recv(10), b"more")

    def test_producer_is_paused_and_resumed(self) -> None:
        """A producer is paused while the buffer is full, and resumed when it is empty."""
        self.transport.registerProducer(self.protocol, True)
        self.fill()
        self.transport.write(b"x" * 70000)
        self.assertEqual((self.protocol.paused > 0, self.protocol.resumed), (True, 0))
        self.read_all()
        self.assertEqual(self.protocol.resumed, 1)
        self.transport.unregisterProducer()

    def test_close_flushes_the_buffer(self) -> None:
        """`loseConnection` closes when all that was written before has been sent."""
        written = self.fill()
        self.transport.loseConnection()
        self.transport.write(b"too late?")
        data = b""
        while self.reactor.writers:
            data += receive_pending(self.peer, 1 << 20)
            reason: Any = self.transport.doWrite()
            if reason is not None:
                self.transport.connectionLost(Failure(reason))
        self.assertGreaterEqual(len(data) + len(self.read_all()), written)
        self.assertEqual(self.protocol.lost, 1)

    def test_half_close(self) -> None:
        """After `loseWriteConnection` nothing is sent, but data is still received."""
        self.transport.loseWriteConnection()
        self.transport.doWrite()
        self.assertEqual(self.peer.recv(10), b"")
        self.transport.write(b"late")
        self.assertFalse(self.transport.nothing_buffered)
        self.peer.send(b"still received")
        self.transport.doRead()
        self.assertEqual(self.protocol.data, b"still received")

    def test_write_more_before_half_close(self) -> None:
        """Bytes written with MSG_MORE are sent with the FIN."""
        self.transport.write(b"first, ")
        self.transport.write_more(b"last")
        self.transport.loseWriteConnection()
        self.assertEqual(self.peer.recv(100), b"first, last")
        self.assertEqual(self.peer.recv(100), b"")

    def test_write_more_is_buffered(self) -> None:
        """`write_more` appends to a buffer that is not empty."""
        written = self.fill()
        self.transport.write_more(b"last")
        data = self.read_all()
        self.assertEqual((len(data), data[-5:]), (written + 4, b"xlast"))

    def test_write_more_after_reset(self) -> None:
        """`write_more` to a closed peer leaves the error to the reactor."""
        self.peer.close()
        self.transport.write_more(b"last")
        self.assertEqual((self.protocol.lost, self.reactor.writers), (0, [self.transport]))

    def test_nothing_is_written_after_an_abort(self) -> None:
        """`abortConnection` drops later writes and closes in the next iteration."""
        self.transport.abortConnection()
        self.transport.write(b"late")
        self.reactor.advance(0)
        self.assertEqual(self.protocol.lost, 1)
        self.assertEqual(receive_pending(self.peer), b"")

    def test_write_error_is_reported_by_the_reactor(self) -> None:
        """A write to a closed peer does not call `connectionLost` within `write`."""
        self.peer.close()
        self.transport.write(b"x")
        self.transport.write(b"y")
        self.assertEqual(self.protocol.lost, 0)
        self.assertEqual(self.reactor.writers, [self.transport])

    def test_reading(self) -> None:
        """`doRead` delivers data, and returns `ConnectionDone` at EOF."""
        self.assertIsNone(self.transport.doRead())
        self.peer.send(b"abc")
        self.assertIsNone(self.transport.doRead())
        self.assertEqual(self.protocol.data, b"abc")
        self.peer.close()
        self.assertEqual(type(self.transport.doRead()).__name__, "ConnectionDone")
