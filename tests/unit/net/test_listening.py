"""Listening sockets on real addresses, without a running reactor."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.net import descriptors, listening
from balancebeam.net.listening import listen
from balancebeam.net.plain_reactor import PlainReactor
from tests.helpers.net import FakeReadWriteReactor, RecordingProtocol


class ListeningPortTests(SynchronousTestCase):
    """Binding, conflicts, and socket files."""

    def setUp(self) -> None:
        self.clock = FakeReadWriteReactor()
        self.reactor = PlainReactor(self.clock)
        self.factory = Factory.forProtocol(RecordingProtocol)
        self.factory.noisy = False

    def path(self) -> str:
        """Return a path for a socket in a folder that is removed after the test."""
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        return os.path.join(folder, "socket")

    def stop(self, port: Any) -> None:
        """Stop a port, which succeeds at once."""
        stopped = port.stopListening()
        self.clock.advance(0)
        self.successResultOf(stopped)

    def test_address_in_use(self) -> None:
        """A TCP address in use is reported as `CannotListenError`."""
        port: Any = listen(TcpAddress("127.0.0.1", 0), self.factory, self.reactor)
        number = port.getHost().port
        with self.assertRaises(CannotListenError):
            listen(TcpAddress("127.0.0.1", number), self.factory, self.reactor)
        self.stop(port)

    def test_unix_socket(self) -> None:
        """A socket file in use cannot be bound again, and is unlinked on close."""
        path = self.path()
        port = listen(UnixAddress(path), self.factory, self.reactor)
        with self.assertRaises(CannotListenError):
            listen(UnixAddress(path), self.factory, self.reactor)
        self.stop(port)
        self.assertFalse(os.path.exists(path))

    def test_stale_socket_file_is_replaced(self) -> None:
        """The socket and lock files of a process that has died do not prevent a start."""
        path = self.path()
        stale = socket.socket(socket.AF_UNIX)
        stale.bind(path)
        stale.close()
        os.symlink("999999999", path + ".lock")
        self.stop(listen(UnixAddress(path), self.factory, self.reactor))

    def test_other_file_is_kept(self) -> None:
        """A file that is not a socket is neither replaced nor removed."""
        path = self.path()
        with open(path, "w") as file:
            file.write("data")
        with self.assertRaises(OSError):
            listen(UnixAddress(path), self.factory, self.reactor)
        self.assertEqual(os.stat(path).st_size, 4)

    def connect_clients(self, number: int, port: Any) -> None:
        """Connect clients, and handle one event of the port."""
        for _ in range(number):
            client = socket.create_connection(("127.0.0.1", port.getHost().port))
            self.addCleanup(client.close)
        port.doRead()

    def close_connections(self) -> None:
        """Close the connections in the reactor."""
        for transport in list(self.clock.readers):
            if transport.__class__.__name__ == "TcpServerTransport":
                transport.abortConnection()
        self.clock.advance(0)

    def test_exception_closes_only_that_connection(self) -> None:
        """The port and other clients are served if one connection cannot be set up."""
        for stage in ("buildProtocol", "connectionMade"):
            protocols: list[RecordingProtocol] = []

            def build(_: object, stage: str = stage, built: list[Any] = protocols) -> Any:
                protocol = RecordingProtocol()
                built.append(protocol)
                if len(built) == 1:
                    if stage == "buildProtocol":
                        raise ZeroDivisionError

                    def fail() -> None:
                        raise ZeroDivisionError

                    protocol.connectionMade = fail  # type: ignore[method-assign]
                return protocol

            self.patch(self.factory, "buildProtocol", build)
            port: Any = listen(TcpAddress("127.0.0.1", 0), self.factory, self.reactor)
            self.connect_clients(3, port)
            self.clock.advance(0)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual([protocol.connected for protocol in protocols[1:]], [1, 1])
            self.assertIn(port, self.clock.readers)
            self.close_connections()
            self.stop(port)

    def test_pause_and_resume(self) -> None:
        """A paused port leaves clients in the listen queue, and accepts them when resumed."""
        protocols: list[RecordingProtocol] = []
        ports: list[Any] = []

        def build(_: object) -> RecordingProtocol:
            protocols.append(RecordingProtocol())
            ports[0].pause_accepting()
            return protocols[-1]

        self.patch(self.factory, "buildProtocol", build)
        ports.append(listen(TcpAddress("127.0.0.1", 0), self.factory, self.reactor))
        self.connect_clients(3, ports[0])
        self.assertEqual(len(protocols), 1)
        self.assertNotIn(ports[0], self.clock.readers)
        ports[0].resume_accepting()
        self.assertIn(ports[0], self.clock.readers)
        ports[0].doRead()
        self.assertEqual(len(protocols), 2)
        self.close_connections()
        self.stop(ports[0])

    def test_accepting_pauses_without_descriptors(self) -> None:
        """Without free descriptors a port waits, logs once, and accepts when some are free."""
        self.patch(descriptors, "shortage_log", descriptors.ShortageLog())
        self.patch(listening, "shortage_log", descriptors.shortage_log)
        free = [False]
        self.patch(listening, "can_accept", lambda descriptor: free[0])
        port: Any = listen(TcpAddress("127.0.0.1", 0), self.factory, self.reactor)
        self.patch(port, "_accept_limit", 3)
        with capturedLogs() as captured:
            self.connect_clients(2, port)
            self.assertNotIn(port, self.clock.readers)
            for _ in range(20):
                self.clock.advance(0.1)
            self.assertNotIn(port, self.clock.readers)
            free[0] = True
            self.clock.advance(0.1)
            self.assertIn(port, self.clock.readers)
            port.doRead()
        lines = [event for event in captured if "out of file descriptors" in str(event)]
        self.assertEqual(len(lines), 1)
        self.close_connections()
        self.stop(port)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_error_without_descriptors(self) -> None:
        """EMFILE and ENFILE pause accepting, and the client stays in the listen queue."""
        for number in (errno.EMFILE, errno.ENFILE):
            port: Any = listen(TcpAddress("127.0.0.1", 0), self.factory, self.reactor)

            class FailingSocket:
                def accept(self, number: int = number) -> Any:
                    raise OSError(number, os.strerror(number))

            real, port.socket = port.socket, FailingSocket()
            port.doRead()
            port.socket = real
            self.assertNotIn(port, self.clock.readers)
            self.clock.advance(0.1)
            self.assertIn(port, self.clock.readers)
            self.stop(port)
