"""Pipes between two transports over real sockets, without a running reactor."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from balancebeam.net.plain_reactor import PlainReactor
from balancebeam.net.splice import SplicePipe
from balancebeam.net.transport import TcpServerTransport
from tests.helpers.net import FakeReadWriteReactor, RecordingProtocol


class SpliceTests(SynchronousTestCase):
    """One direction of a flow, from the peer of `source` to the peer of `target`."""

    def setUp(self) -> None:
        if not hasattr(os, "splice"):
            raise SkipTest("this Python has no splice")
        self.reactor = FakeReadWriteReactor()
        self.sender, self.source = self.connect()
        self.receiver, self.target = self.connect()
        self.counts: list[int] = []
        self.pipe = SplicePipe(self.source, self.target, self.counts.append, self.fail)
        self.addCleanup(self.close)

    def connect(self) -> tuple[socket.socket, TcpServerTransport]:
        """A peer, and the transport that is connected to it."""
        accepted, peer = socket.socketpair()
        for end in (accepted, peer):
            end.setblocking(False)
        self.addCleanup(peer.close)
        protocol, no_port = RecordingProtocol(), None
        transport: Any = TcpServerTransport(
            accepted,
            protocol,
            ("127.0.0.1", 1),
            no_port,  # type: ignore[arg-type]
            1,
            PlainReactor(self.reactor),
        )
        protocol.makeConnection(transport)
        return peer, transport

    def close(self) -> None:
        """Close the pipe, and abort the transports."""
        self.pipe.close()
        for transport in (self.source, self.target):
            if transport.connected:
                transport.abortConnection()
        self.reactor.advance(0)

    def fill(self) -> int:
        """Send and splice until the pipe cannot be emptied; return the bytes sent."""
        sent = 0
        while self.source in self.reactor.readers:
            sent += self.sender.send(bytes(50_000))
            self.source.doRead()
        return sent

    def received(self) -> int:
        """The number of bytes that the receiver gets until none are left."""
        total = 0
        while True:
            try:
                data = self.receiver.recv(1 << 20)
            except BlockingIOError:
                return total
            if not data:
                return total
            total += len(data)

    def test_bytes_are_counted(self) -> None:
        """Spliced bytes count as received and sent on the transports, once each."""
        sent, received = self.fill(), 0
        self.assertLess(self.target.bytes_sent, sent)
        while self.target in self.reactor.writers:
            received += self.received()
            self.target.doWrite()
        received += self.received()
        self.assertEqual((received, sum(self.counts)), (sent, sent))
        self.assertEqual((self.source.bytes_received, self.target.bytes_sent), (sent, sent))

    def test_bytes_of_a_connection_that_is_cut(self) -> None:
        """Bytes that are lost with the pipe count as received, not as sent."""
        sent = self.fill()
        self.target.abortConnection()
        self.close()
        received = self.received()
        self.assertLess(received, sent)
        self.assertEqual((self.source.bytes_received, self.target.bytes_sent), (sent, received))
