"""Asking a server whether it is well."""

from __future__ import annotations

from typing import Any
from typing import Protocol as Interface

from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from balancebeam import __version__
from balancebeam.core.addresses import ServerAddress, UnixAddress
from balancebeam.core.settings import HealthCheckSettings
from balancebeam.protocols.proxy_protocol import encode_proxy_header
from balancebeam.upstream.server import Server

# What a server says before it is cut off: all of a head, and some of the body.
_MAX_BYTES = 64 * 1024


class Unhealthy(Exception):
    """A server that is reached, but does not say that it is well."""


class Probe(Interface):
    """One way of asking."""

    async def check(self, server: Server) -> str:
        """What was seen of a server that is well; raises whatever tells that it is not."""


def build_probe(settings: HealthCheckSettings, reactor: Any) -> Probe:
    """The probe that `checks` want."""
    if settings.path is None:
        return ConnectProbe(reactor, settings.effective_timeout)
    return HttpProbe(reactor, settings.path, settings.status, settings.effective_timeout)


class ConnectProbe:
    """A server is well that accepts a connection."""

    def __init__(self, reactor: Any, timeout: float) -> None:
        self._reactor = reactor
        self._timeout = timeout

    async def check(self, server: Server) -> str:
        endpoint = _BoundedEndpoint(self._reactor, server, self._timeout)
        connection: Any = await endpoint.connect(Factory.forProtocol(Protocol))
        connection.transport.loseConnection()
        return "it accepts connections"


class HttpProbe:
    """A server is well that answers GET `path` with a status in `statuses`."""

    def __init__(self, reactor: Any, path: str, statuses: tuple[int, int], timeout: float) -> None:
        self._reactor = reactor
        self._path = path
        self._statuses = statuses
        self._timeout = timeout

    async def check(self, server: Server) -> str:
        endpoint = _BoundedEndpoint(self._reactor, server, self._timeout)
        agent = Agent.usingEndpointFactory(self._reactor, _FixedEndpointFactory(endpoint))
        host = "localhost" if isinstance(server.address, UnixAddress) else server.name
        # Not all that can be connected to can stand in a URL.
        response: Any = await HTTPClient(agent).get(
            f"http://localhost{self._path}",
            headers=Headers({"Host": [host], "User-Agent": [f"balancebeam/{__version__}"]}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        # However long the body is: the head has said it all.
        reader: Any = Protocol()
        response.deliverBody(reader)
        reader.transport.loseConnection()
        first, last = self._statuses
        seen = f"GET {self._path} was answered with {response.code}"
        if not first <= response.code <= last:
            raise Unhealthy(seen)
        return seen


@implementer(IAgentEndpointFactory)
class _FixedEndpointFactory:
    """Has an agent connect to one place, whatever the URI."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    """
    Connects to a server for a conversation that cannot become long, and greets
    it as it wants to be greeted.
    """

    def __init__(self, reactor: Any, server: Server, timeout: float) -> None:
        self._endpoint = _build_endpoint(reactor, server.address, timeout)
        version = server.proxy_protocol
        self._preamble = b"" if version is None else encode_proxy_header(version, None)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        inner: Any = protocolFactory
        # Nobody wants to hear of each check twice.
        inner.noisy = False
        factory = _BoundedFactory(protocolFactory)
        factory.preamble = self._preamble
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


class _BoundedProtocol(ProtocolWrapper):
    """Ends a connection from which too much comes, such as one 1xx after the other."""

    _bytes_received = 0

    def makeConnection(self, transport: Any) -> None:
        transport.write(self.factory.preamble)
        super().makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._bytes_received += len(data)
        if self._bytes_received > _MAX_BYTES:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            super().dataReceived(data)


class _BoundedFactory(WrappingFactory):
    protocol = _BoundedProtocol
    noisy = False
    preamble = b""


def _build_endpoint(reactor: Any, address: ServerAddress, timeout: float) -> IStreamClientEndpoint:
    if isinstance(address, UnixAddress):
        return UNIXClientEndpoint(reactor, address.path, timeout)
    if isIPAddress(address.host):
        return TCP4ClientEndpoint(reactor, address.host, address.port, timeout)
    if isIPv6Address(address.host):
        return TCP6ClientEndpoint(reactor, address.host, address.port, timeout)
    return HostnameEndpoint(reactor, address.host, address.port, timeout)
