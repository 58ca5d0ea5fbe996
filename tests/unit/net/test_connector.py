"""Connectors over real sockets, without a running reactor."""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IHalfCloseableDescriptor, ITCPTransport
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.net.connector import connect
from balancebeam.net.plain_reactor import PlainReactor
from balancebeam.net.poller import BatchPoller
from balancebeam.net.transport import TcpClientTransport
from tests.helpers.net import FakeReadWriteReactor, RecordingProtocol


class RecordingFactory:
    """A client factory that keeps its protocol and its failures."""

    def __init__(self) -> None:
        self.protocol: RecordingProtocol | None = None
        self.failures: list[Failure] = []

    def buildProtocol(self, address: object) -> RecordingProtocol:
        self.protocol = RecordingProtocol()
        return self.protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        assert connector.state == "disconnected"
        self.failures.append(reason)


class ConnectorTests(SynchronousTestCase):
    """Results of connection attempts."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        self.factory = RecordingFactory()

    def connect(self, port: int, host: str = "127.0.0.1") -> Any:
        """Start to connect; no failure is reported before `connect` returns."""
        connector = connect(TcpAddress(host, port), self.factory, PlainReactor(self.reactor))
        self.assertEqual(self.factory.failures, [])
        return connector

    def run_writer(self) -> None:
        """Wait for the connector's socket as a reactor would, and call `doWrite`."""
        (writer,) = self.reactor.writers
        select.select([], [writer], [], 10)
        writer.doWrite()

    def assert_nothing_left(self) -> None:
        """Neither readers, writers nor timers are left in the reactor."""
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def listening_socket(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        """Return a socket that listens on loopback until the test ends."""
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        listening = socket.create_server((host, 0), family=family)
        self.addCleanup(listening.close)
        return listening

    def test_accepted(self) -> None:
        """A connection over IPv4 or IPv6 gets a transport that reads and writes."""
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            listening = self.listening_socket(family)
            connector = self.connect(listening.getsockname()[1], host)
            self.assertEqual(connector.state, "connecting")
            self.run_writer()
            self.assertEqual(connector.state, "connected")
            protocol = self.factory.protocol
            assert protocol is not None
            transport: Any = protocol.transport
            self.assertIsInstance(transport, TcpClientTransport)
            self.assertTrue(ITCPTransport.providedBy(transport))
            self.assertTrue(IHalfCloseableDescriptor.providedBy(transport))
            self.assertEqual(transport.getPeer().host, host)
            self.assertEqual(transport.getHost().host, host)
            server, _ = listening.accept()
            transport.write(b"hello")
            self.assertEqual(server.recv(100), b"hello")
            server.sendall(b"world")
            self.assertEqual(self.reactor.readers, [transport])
            select.select([transport], [], [], 10)
            transport.doRead()
            self.assertEqual(protocol.data, b"world")
            server.close()
            transport.abortConnection()
            self.reactor.advance(0)
            self.assertEqual(protocol.lost, 1)
            self.assert_nothing_left()

    def test_refused(self) -> None:
        """A refused connection fails with `ConnectionRefusedError`."""
        listening = self.listening_socket()
        port = listening.getsockname()[1]
        listening.close()
        connector = self.connect(port)
        self.run_writer()
        (failure,) = self.factory.failures
        failure.trap(error.ConnectionRefusedError)
        self.assertEqual(connector.state, "disconnected")
        self.assert_nothing_left()

    def test_refused_reported_as_hang_up(self) -> None:
        """A hang-up event of the poller fails with the error of the socket."""
        listening = self.listening_socket()
        port = listening.getsockname()[1]
        listening.close()
        self.connect(port)
        (writer,) = self.reactor.writers
        select.select([], [writer], [], 10)
        writer.connectionLost(Failure(error.ConnectionLost()))
        self.factory.failures[0].trap(error.ConnectionRefusedError)
        self.assert_nothing_left()

    def test_refused_logs_nothing(self) -> None:
        """The poller logs nothing about the closed descriptor of a failed attempt."""
        poller = BatchPoller(self.reactor)
        listening = self.listening_socket()
        accepted = connect(TcpAddress(*listening.getsockname()), self.factory, poller)
        poller.doRead()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with capturedLogs() as logged:
                connect(TcpAddress(*bound.getsockname()), self.factory, poller)
                poller.doRead()
        self.assertEqual(len(self.factory.failures), 1)
        self.assertEqual((accepted.state, logged), ("connected", []))
        protocol: Any = self.factory.protocol
        protocol.transport.abortConnection()
        self.reactor.advance(0)
        self.assert_nothing_left()

    def test_unreachable(self) -> None:
        """A link-local address without a zone cannot be connected to, and fails."""
        self.connect(80, "fe80::1")
        self.reactor.advance(0)
        if self.reactor.writers:
            self.run_writer()
        self.assertEqual(len(self.factory.failures), 1)
        self.assert_nothing_left()

    def test_cancelled(self) -> None:
        """`stopConnecting` fails the attempt once, and leaves nothing registered."""
        listening = self.listening_socket()
        connector = self.connect(listening.getsockname()[1])
        connector.stopConnecting()
        connector.stopConnecting()
        self.assertEqual(len(self.factory.failures), 1)
        self.assert_nothing_left()

    def test_out_of_descriptors(self) -> None:
        """Without free descriptors the attempt fails with the text of the error."""

        def raise_emfile(*_: object) -> None:
            raise OSError(24, "Too many open files")

        self.patch(socket, "socket", raise_emfile)
        self.connect(80)
        self.reactor.advance(0)
        self.assertIn("Too many open files", str(self.factory.failures[0].value))
        self.assert_nothing_left()
