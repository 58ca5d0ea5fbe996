"""Demo servers inside the process, to try the balancer on a fresh machine."""

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
    """Responds with the name of the server and the request line."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def render(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        method = request.method.decode("ascii", "replace")
        uri = request.uri.decode("ascii", "replace")
        return f"Hello from {self._name}. Request: {method} {uri}\n".encode()


class DemoService(service.Service):
    """
    Starts demo servers on free loopback ports and adds them to a pool.

    Attributes:
        count: the number of demo servers.
        server_set: the servers of the pool.
    """

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
            # No access log of twisted.web: it would repeat every request in the log.
            site = Site(_Hello(name), reactor=self._reactor)
            site.noisy = False
            site.log = lambda request: None  # type: ignore[method-assign]  # Site has no option
            port = self._reactor.listenTCP(0, site, interface="127.0.0.1")
            self._ports.append(port)
            address = TcpAddress("127.0.0.1", port.getHost().port)
            self._servers.append(self.server_set.add(ServerSettings(address), ServerSource.DEMO))
            self._log.info("{name} listening on {address}", name=name, address=str(address))

    def stopService(self) -> Any:
        super().stopService()
        while self._servers:
            server = self._servers.pop()
            if not server.removed:
                self.server_set.remove(server)
        ports, self._ports = self._ports, []
        return DeferredList([maybeDeferred(port.stopListening) for port in ports])
