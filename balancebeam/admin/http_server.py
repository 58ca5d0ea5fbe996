"""The admin listener's side of HTTP, which is `twisted.web`'s, with bounds."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import Request, Site

from balancebeam.admin.responses import error
from balancebeam.protocols.http1.local_reply import reason_phrase

# Octets of a body. What can be asked for here is short.
MAX_BODY = 64 * 1024

# Connections; the oldest has to make room.
MAX_CONNECTIONS = 256

# Seconds from an answer, or the connection's beginning, until the next request is complete.
REQUEST_TIMEOUT = 60

# Seconds in which the client of a request that was rejected halfway may read why.
LINGERING_TIMEOUT = 2

# Digits of a Content-Length. `int` takes its time for long ones, or raises.
_MAX_DIGITS = 18


class AdminRequest(Request):
    """A request whose body is kept in memory, and is nothing but octets."""

    _body_size = 0

    def gotLength(self, length: int | None) -> None:
        # Otherwise a long body, or one of unknown length, would go to a file.
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            channel: Any = self.channel
            channel.reject(413, "the request body is too large")
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # What `twisted.web` does, but it would also take forms apart, for
        # everybody, and answer some requests without asking a resource.
        channel: Any = self.channel
        content: Any = self.content
        content.seek(0)
        self.args = {}
        self.method, self.uri, self.clientproto = command, path, version
        self.path = path.partition(b"?")[0]
        self.site = channel.site
        self.setHeader(b"Date", datetimeToString())
        self.render(self.site.resource)


class AdminChannel(HTTPChannel):
    """
    A connection on which a request may not take for ever, and gets an answer in
    any case. `response_pending` is from the end of a request to that of its answer.
    """

    site: Any = None
    rejected = False
    response_pending = False

    def reject(self, status: int, text: str) -> None:
        """Answer what can be read no further, and read no other."""
        if self.rejected:
            return
        self.rejected = True
        answer = error(status, text)
        head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
        fields = (status, reason_phrase(status), answer.content_type, len(answer.body))
        transport: Any = self.transport
        transport.write(head % fields + b"Connection: close\r\n\r\n" + answer.body)
        # Closing while it sends would reset the connection, and it might never read this.
        transport.loseWriteConnection()
        self.setTimeout(LINGERING_TIMEOUT)

    def resetTimeout(self) -> None:
        """No octet prolongs the time for a request."""

    def dataReceived(self, data: bytes) -> None:
        if not self.rejected:
            super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self.rejected:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if not self.rejected:
            super().rawDataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.reject(431, "the request head is too large")

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value.strip()) > _MAX_DIGITS:
            self.reject(413, "the request body is too large")
            return False
        fine: bool = super().headerReceived(line)
        return fine

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_BODY:
            # Before the client is told to go on with it.
            self.reject(413, "the request body is too large")
        elif not self.rejected:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        if not self.rejected:
            self.response_pending = True
            super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        self.response_pending = False
        super().requestDone(request)

    def _respondToBadRequestAndDisconnect(self) -> None:
        self.reject(400, "the request cannot be read")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.pop(self, None)
        super().connectionLost(reason)


class AdminSite(Site):
    """Listens for the operator."""

    noisy = False
    protocol: Any = AdminChannel

    def __init__(self, resource: IResource, reactor: Any) -> None:
        super().__init__(
            resource, requestFactory=AdminRequest, reactor=reactor, timeout=REQUEST_TIMEOUT
        )
        self.displayTracebacks = False
        # From the oldest to the newest.
        self.connections: dict[Any, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = super().buildProtocol(addr)
        if len(self.connections) >= MAX_CONNECTIONS:
            # Who is let in last may be the operator, who wants to know what all the others do.
            self._close(next(iter(self.connections)))
        self.connections[channel] = None
        return channel

    def startFactory(self) -> None:
        """`Site` would keep a clock for its log here."""

    def stopFactory(self) -> None:
        """Nothing was started."""

    def log(self, request: Any) -> None:
        """What the operator does is logged where it is done."""

    def close_all(self) -> None:
        """Close every connection; those where somebody waits, such as for a reload, after that."""
        for channel in list(self.connections):
            if channel.response_pending:
                channel.persistent = 0
            else:
                self._close(channel)

    def _close(self, channel: Any) -> None:
        self.connections.pop(channel, None)
        if channel.transport is not None:
            channel.transport.abortConnection()
