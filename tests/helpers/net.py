"""Reactors and protocols for tests of `balancebeam.net`, over real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock


class FakeReactor(Clock):
    """Records its readers; to add one twice or remove an unknown one is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.remove(reader)


class FakeReadWriteReactor(FakeReactor):
    """Records readers and writers, which may be added and removed repeatedly."""

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
    """A protocol and producer that records its calls."""

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
        """Do nothing: `connectionLost` records the close."""


def receive_pending(peer: socket.socket, size: int = 100) -> bytes:
    """Return what a non-blocking socket has received; empty on EOF and on errors."""
    try:
        return peer.recv(size)
    except OSError:
        return b""
