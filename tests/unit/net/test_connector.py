"""Connecting over TCP, over real sockets and without a reactor running."""

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
from balancebeam.net.poller import BatchPoller
from balancebeam.net.transport import TcpClientTransport, connect
from tests.unit.net.test_transport import FakeReadWriteReactor, RecordingProtocol


class RecordingFactory:
    """Who wants to be connected, and what became of it."""

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
    """How attempts end."""

    def setUp(self) -> None:
        self.reactor = FakeReadWriteReactor()
        self.waiting = RecordingFactory()

    def begin(self, port: int, host: str = "127.0.0.1") -> Any:
        """Begin to connect, and have the reactor look once whether that is settled."""
        connector = connect(TcpAddress(host, port), self.waiting, self.reactor)
        self.assertEqual(self.waiting.failures, [])
        return connector

    def settle(self) -> None:
        """Do what a reactor does when the socket is ready."""
        (writer,) = self.reactor.writers
        select.select([], [writer], [], 10)
        writer.doWrite()

    def assert_nothing_left(self) -> None:
        self.assertEqual((self.reactor.readers, self.reactor.writers), ([], []))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def listener(self, family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        listening = socket.create_server((host, 0), family=family)
        self.addCleanup(listening.close)
        return listening

    def test_accepted(self) -> None:
        for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            listening = self.listener(family)
            connector = self.begin(listening.getsockname()[1], host)
            self.assertEqual(connector.state, "connecting")
            self.settle()
            self.assertEqual(connector.state, "connected")
            protocol = self.waiting.protocol
            assert protocol is not None
            transport: Any = protocol.transport
            self.assertIsInstance(transport, TcpClientTransport)
            self.assertTrue(ITCPTransport.providedBy(transport))
            self.assertTrue(IHalfCloseableDescriptor.providedBy(transport))
            self.assertEqual(transport.getPeer().host, host)
            self.assertEqual(transport.getHost().host, host)
            there, _ = listening.accept()
            transport.write(b"hello")
            self.assertEqual(there.recv(100), b"hello")
            there.sendall(b"world")
            self.assertEqual(self.reactor.readers, [transport])
            select.select([transport], [], [], 10)
            transport.doRead()
            self.assertEqual(protocol.data, b"world")
            there.close()
            transport.abortConnection()
            self.reactor.advance(0)
            self.assertEqual(protocol.lost, 1)
            self.assert_nothing_left()

    def test_refused(self) -> None:
        listening = self.listener()
        port = listening.getsockname()[1]
        listening.close()
        connector = self.begin(port)
        self.settle()
        (failure,) = self.waiting.failures
        failure.trap(error.ConnectionRefusedError)
        self.assertEqual(connector.state, "disconnected")
        self.assert_nothing_left()

    def test_refused_as_the_poller_tells_it(self) -> None:
        listening = self.listener()
        port = listening.getsockname()[1]
        listening.close()
        self.begin(port)
        (writer,) = self.reactor.writers
        select.select([], [writer], [], 10)
        writer.connectionLost(Failure(error.ConnectionLost()))
        self.waiting.failures[0].trap(error.ConnectionRefusedError)
        self.assert_nothing_left()

    def test_refused_says_nothing_of_descriptors(self) -> None:
        poller = BatchPoller(self.reactor)
        listening = self.listener()
        another = connect(TcpAddress(*listening.getsockname()), self.waiting, poller)
        poller.doRead()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            with capturedLogs() as logged:
                connect(TcpAddress(*bound.getsockname()), self.waiting, poller)
                poller.doRead()
        self.assertEqual(len(self.waiting.failures), 1)
        self.assertEqual((another.state, logged), ("connected", []))
        protocol: Any = self.waiting.protocol
        protocol.transport.abortConnection()
        self.reactor.advance(0)
        self.assert_nothing_left()

    def test_no_way_there(self) -> None:
        # Of a kind that this machine cannot have.
        self.begin(80, "fe80::1")
        self.reactor.advance(0)
        if self.reactor.writers:
            self.settle()
        self.assertEqual(len(self.waiting.failures), 1)
        self.assert_nothing_left()

    def test_given_up(self) -> None:
        listening = self.listener()
        connector = self.begin(listening.getsockname()[1])
        connector.stopConnecting()
        connector.stopConnecting()
        self.assertEqual(len(self.waiting.failures), 1)
        self.assert_nothing_left()

    def test_out_of_descriptors(self) -> None:
        def nothing_left(*_: object) -> None:
            raise OSError(24, "Too many open files")

        self.patch(socket, "socket", nothing_left)
        self.begin(80)
        self.reactor.advance(0)
        self.assertIn("Too many open files", str(self.waiting.failures[0].value))
        self.assert_nothing_left()
