"""A few tiny servers inside the process: something to balance on a fresh machine."""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet.defer import DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings, ServerSource
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet


class _Hello(Resource):
    """Says which server it is, and what it was asked."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        method, uri = (
            request.method.decode("ascii", "replace"),
            request.uri.decode("ascii", "replace"),
        )
        return f"Hello from {self._name}. You asked for {method} {uri}\n".encode()


class DemoService(service.Service):
    """Starts `count` servers on free loopback ports and adds them to `server_set`."""

    _log = Logger()

    def __init__(self, count: int, server_set: ServerSet, reactor: Any) -> None:
        self.count = count
        self.server_set = server_set
        self._reactor = reactor
        self._ports: list[IListeningPort] = []
        self._servers: list[Server] = []

    def startService(self) -> None:
        super().startService()
        for number in range(1, self.count + 1):
            name = f"demo server {number}"
            # Quiet: its requests are in nobody's interest.
            site = Site(_Hello(name), reactor=self._reactor)
            site.noisy = False
            site.log = lambda request: None  # type: ignore[method-assign]
            port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
            self._ports.append(port)
            address = TcpAddress("127.0.0.1", port.getHost().port)
            self._servers.append(self.server_set.add(ServerSettings(address), ServerSource.DEMO))
            self._log.info("{name} is at {address}", name=name, address=str(address))

    def stopService(self) -> Any:
        super().stopService()
        while self._servers:
            server = self._servers.pop()
            if not server.removed:
                self.server_set.remove(server)
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])
