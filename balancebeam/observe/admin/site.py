"""The admin listener's side of HTTP, which is `twisted.web`'s, with bounded bodies."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

# Octets of a body. What can be asked for here is short.
MOST_BODY = 64 * 1024

_TOO_LARGE = (
    b"HTTP/1.1 413 Content Too Large\r\nContent-Type: application/json\r\n"
    b"Content-Length: 61\r\nConnection: close\r\n\r\n"
    b'{"status": "error", "data": "the request body is too large"}\n'
)


class AdminRequest(Request):
    """A request whose body is refused as soon as it is too large."""

    too_large = False
    _octets = 0

    def gotLength(self, length: int | None) -> None:
        super().gotLength(min(length, MOST_BODY) if length is not None else None)
        if length is not None and length > MOST_BODY:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._octets += len(data)
        if self._octets > MOST_BODY:
            self._refuse()
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if not self.too_large:
            super().requestReceived(command, path, version)

    def _refuse(self) -> None:
        if not self.too_large:
            self.too_large = True
            channel: Any = self.channel
            channel.transport.write(_TOO_LARGE)
            channel.loseConnection()


class AdminSite(Site):
    """Listens for the operator."""

    noisy = False

    def __init__(self, resource: IResource, reactor: Any) -> None:
        super().__init__(resource, requestFactory=AdminRequest, reactor=reactor, timeout=60)
        self.displayTracebacks = False
        self.connections: set[Any] = set()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = super().buildProtocol(addr)
        self.connections.add(channel)
        lost = channel.connectionLost

        def connection_lost(reason: Any) -> None:
            self.connections.discard(channel)
            lost(reason)

        channel.connectionLost = connection_lost
        return channel

    def startFactory(self) -> None:
        """`Site` would keep a clock for its log here."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """What the operator does is logged where it is done."""

    def close_all(self) -> None:
        """Close every connection."""
        for channel in list(self.connections):
            transport: Any = channel.transport
            if transport is not None:
                transport.abortConnection()
