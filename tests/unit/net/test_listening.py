"""Listening sockets on real addresses, without a running reactor."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress, UnixAddress
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
