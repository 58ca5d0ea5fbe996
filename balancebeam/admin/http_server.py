"""
The HTTP server of the admin listener: `twisted.web` with limits.

It limits body size, number of connections and time per request, keeps bodies in
memory, and answers malformed requests with a JSON body.
"""

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

# Bytes of a request body. Valid bodies are short: an address and a weight.
MAX_BODY = 64 * 1024

# Open connections; a further one closes the oldest.
MAX_CONNECTIONS = 256

# Seconds to receive a complete request, from the end of the previous response or
# from the start of the connection. Bytes received do not extend it.
REQUEST_TIMEOUT = 60

# Seconds for the client to read the response, if its request was rejected before it
# was complete. The lingering_timeout of nginx, 5 s, serves the same purpose.
LINGERING_TIMEOUT = 2

# Digits of a Content-Length. int() takes quadratic time for long ones, or raises.
_MAX_DIGITS = 18


class AdminRequest(Request):
    """A request whose body is kept in memory and never parsed as a form."""

    _body_size = 0

    def gotLength(self, length: int | None) -> None:
        # With a longer or an unknown length, twisted.web would spool the body to a file.
        super().gotLength(0)

    def handleContentChunk(self, data: bytes) -> None:
        self._body_size += len(data)
        if self._body_size > MAX_BODY:
            channel: Any = self.channel
            channel.reject(413, "the request body is too large")
        else:
            super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        # As in twisted.web, except that it also parses forms before authorization, and
        # answers some requests without calling the resource.
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
    A connection with a time limit per request; every rejection has a response.

    Attributes:
        site: The factory.
        rejected: Whether a request was rejected before it was complete; further
            input is ignored.
        response_pending: Whether a request is complete and its response is not.
    """

    site: Any = None
    rejected = False
    response_pending = False

    def reject(self, status: int, text: str) -> None:
        """Reject the current request with `status`, and ignore all further input."""
        if self.rejected:
            return
        self.rejected = True
        response = error(status, text)
        head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n"
        values = (status, reason_phrase(status), response.content_type, len(response.body))
        transport: Any = self.transport
        transport.write(head % values + b"Connection: close\r\n\r\n" + response.body)
        # Closing while the client sends would reset the connection, and the client
        # might not receive the response.
        transport.loseWriteConnection()
        self.setTimeout(LINGERING_TIMEOUT)

    def resetTimeout(self) -> None:
        """Do nothing: received bytes do not extend the time for a request."""

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
        accepted: bool = super().headerReceived(line)
        return accepted

    def allHeadersReceived(self) -> None:
        if self.length is not None and self.length > MAX_BODY:
            # Before 100 Continue is sent.
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
        # A private method, but the only one that twisted.web calls for every malformed
        # request; its own version sends a response without a body.
        self.reject(400, "malformed request")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.connections.pop(self, None)
        super().connectionLost(reason)


class AdminSite(Site):
    """
    The protocol factory of the admin listener.

    Attributes:
        connections: The open connections, from the oldest to the newest.
    """

    noisy = False
    protocol: Any = AdminChannel

    def __init__(self, resource: IResource, reactor: Any) -> None:
        super().__init__(
            resource, requestFactory=AdminRequest, reactor=reactor, timeout=REQUEST_TIMEOUT
        )
        self.displayTracebacks = False
        self.connections: dict[Any, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = super().buildProtocol(addr)
        if len(self.connections) >= MAX_CONNECTIONS:
            # The oldest, because the newest may be an administrator looking into
            # the number of connections.
            self._close(next(iter(self.connections)))
        self.connections[channel] = None
        return channel

    def startFactory(self) -> None:
        """Do nothing: `Site` would start the clock of its access log."""

    def stopFactory(self) -> None:
        """Do nothing: `startFactory` has started nothing."""

    def log(self, request: Any) -> None:
        """Do nothing: `AdminOperations` logs every change."""

    def close_all(self) -> None:
        """Close every connection; one with a pending response (of a reload, say) after it."""
        for channel in list(self.connections):
            if channel.response_pending:
                channel.persistent = 0
            else:
                self._close(channel)

    def _close(self, channel: Any) -> None:
        self.connections.pop(channel, None)
        if channel.transport is not None:
            channel.transport.abortConnection()
