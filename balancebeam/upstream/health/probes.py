"""
Probes: one active health check of one server, over TCP or HTTP.

They use Twisted's endpoints and treq, because checks are rare. With TLS, no session is resumed,
so that each check verifies the certificate of the server. A server that misbehaves
is bounded: in time by the caller, which cancels, and in bytes by `_BoundedProtocol`.
"""

from __future__ import annotations

import typing
from http import HTTPStatus
from typing import Any, Callable, Optional

from treq.client import HTTPClient
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
)
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from balancebeam import __version__
from balancebeam.core.addresses import ServerAddress, UnixAddress
from balancebeam.core.settings import HealthCheckSettings
from balancebeam.net.tls_transport import TlsTransport
from balancebeam.protocols.proxy_protocol import encode_proxy_header
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server
from balancebeam.upstream.tls_handshake import TlsHandshakeError, describe_handshake_error

# Returns TLS for a connection to a server; `None` for a connection without TLS.
FindTls = Callable[[Server], Optional[ServerTls]]

# Bytes read of a response before the connection is aborted: enough for any head, as nginx
# (8 KiB) and Apache (64 KiB) limit them, and for the start of the body.
_MAX_BYTES = 64 * 1024


# Characters of a Location field in a message: enough for the path of a login page.
_MAX_LOCATION = 200


class Unhealthy(Exception):
    """
    The server responded, but not with a status that counts as healthy.

    Attributes:
        detail: The complete request and response, for the first failure; empty if it adds
            nothing to the text.
    """

    def __init__(self, text: str, detail: str = "") -> None:
        super().__init__(text)
        self.detail = detail


class Probe(typing.Protocol):
    """Checks one server."""

    async def check(self, server: Server) -> str:
        """
        Check `server`.

        Returns:
            What was seen of a healthy server, as text for logs.

        Raises:
            Unhealthy: Its response has the wrong status.
            Exception: Whatever prevented a response.
        """


def _no_tls(server: Server) -> ServerTls | None:
    return None


def build_probe(settings: HealthCheckSettings, reactor: Any, find_tls: FindTls = _no_tls) -> Probe:
    """Build the probe for `settings`: over HTTP if they have a path, else over TCP."""
    timeout = settings.effective_timeout
    if settings.path is None:
        return ConnectProbe(reactor, timeout, find_tls)
    return HttpProbe(reactor, settings.path, settings.status, timeout, find_tls)


class ConnectProbe:
    """A server is healthy if it accepts a connection, and completes the TLS handshake."""

    def __init__(self, reactor: Any, timeout: float, find_tls: FindTls = _no_tls) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._find_tls = find_tls

    async def check(self, server: Server) -> str:
        tls = self._find_tls(server)
        endpoint = _build_server_endpoint(self._reactor, server, self._timeout, tls)
        connection: Any = await endpoint.connect(Factory.forProtocol(Protocol))
        connection.transport.loseConnection()
        return "connection accepted" if tls is None else "TLS handshake completed"


class HttpProbe:
    """A server is healthy if it responds to a GET request with an expected status."""

    def __init__(
        self,
        reactor: Any,
        path: str,
        statuses: tuple[int, int],
        timeout: float,
        find_tls: FindTls = _no_tls,
    ) -> None:
        """
        Args:
            reactor: The reactor.
            path: Target of the request.
            statuses: First and last status of a healthy server.
            timeout: Connect timeout in seconds.
            find_tls: Returns TLS for a connection to a server.
        """
        self._find_tls = find_tls
        self._reactor = reactor
        self._path = path
        self._statuses = statuses
        self._timeout = timeout

    async def check(self, server: Server) -> str:
        tls = self._find_tls(server)
        endpoint = _build_server_endpoint(self._reactor, server, self._timeout, tls)
        agent = Agent.usingEndpointFactory(self._reactor, _FixedEndpointFactory(endpoint))
        host = "localhost" if isinstance(server.address, UnixAddress) else server.name
        # The URL names another host, because not every address is valid in a URL:
        # Unix sockets, IPv6 addresses with a zone.
        response: Any = await HTTPClient(agent).get(
            # With TLS too: the endpoint, not the agent, performs the handshake.
            f"http://localhost{self._path}",
            headers=Headers({"Host": [host], "User-Agent": [f"balancebeam/{__version__}"]}),
            allow_redirects=False,
            unbuffered=True,
            reactor=self._reactor,
        )
        # The status decides; close without reading the body.
        reader: Any = Protocol()
        response.deliverBody(reader)
        reader.transport.loseConnection()
        first, last = self._statuses
        seen = f"GET {self._path} was answered with {response.code}"
        if not first <= response.code <= last:
            raise Unhealthy(seen, self._describe(host, response))
        return seen

    def _describe(self, host: str, response: Any) -> str:
        """Return the request, the unexpected response and the expected statuses."""
        code = response.code
        phrase = f" {HTTPStatus(code).phrase}" if code in list(HTTPStatus) else ""
        locations = response.headers.getRawHeaders("location") or ()
        location = "".join(f" (Location: {value[:_MAX_LOCATION]!a})" for value in locations[:1])
        first, last = self._statuses
        return (
            f"GET {self._path} with Host {host} was answered with {code}{phrase}{location}: "
            f"expected a status from {first} to {last}"
        )


@implementer(IAgentEndpointFactory)
class _FixedEndpointFactory:
    """Makes an agent connect to one endpoint, whatever the URI."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint


@implementer(IStreamClientEndpoint)
class _BoundedEndpoint:
    """
    Connects to a server, with a limit to the bytes that it may send.

    The connection starts with a PROXY header if the server expects one.
    """

    def __init__(self, reactor: Any, server: Server, timeout: float) -> None:
        self._endpoint = _build_endpoint(reactor, server.address, timeout)
        version = server.proxy_protocol
        self._preamble = b"" if version is None else encode_proxy_header(version, None)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        inner: Any = protocolFactory
        # No log lines from the factory: the result of the check is logged if it matters.
        inner.noisy = False
        factory = _BoundedFactory(protocolFactory)
        factory.preamble = self._preamble
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda protocol: protocol.wrappedProtocol)


class _BoundedProtocol(ProtocolWrapper):
    """Aborts a connection that sends too many bytes, such as endless 1xx responses."""

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
    """Builds `_BoundedProtocol`s, which first send `preamble`."""

    protocol = _BoundedProtocol
    noisy = False
    preamble = b""


@implementer(IStreamClientEndpoint)
class _TlsEndpoint:
    """Performs a TLS handshake on each connection of another endpoint."""

    def __init__(self, endpoint: IStreamClientEndpoint, tls: ServerTls) -> None:
        self._endpoint = endpoint
        self._tls = tls

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        factory = _HandshakeFactory(self._tls, protocolFactory)
        connecting: Deferred[Any] = self._endpoint.connect(factory)
        return connecting.addCallback(lambda _: factory.completed)


class _HandshakeFactory(Factory):
    """
    Builds the `_Handshake` of one connection.

    Attributes:
        completed: Fires with the application protocol; fails with `TlsHandshakeError`.
    """

    noisy = False

    def __init__(self, tls: ServerTls, wrapped_factory: IProtocolFactory) -> None:
        self.tls = tls
        # `Any`: its declared `buildProtocol` takes no `None`, which ours may get.
        self.wrapped_factory: Any = wrapped_factory
        self.completed: Deferred[Any] = Deferred()

    def buildProtocol(self, addr: IAddress | None) -> _Handshake:
        factory: Any = self.wrapped_factory
        handshake = _Handshake(self.tls, factory.buildProtocol(addr))
        self.completed = handshake.completed
        return handshake


class _Handshake(Protocol):
    """
    Runs one handshake, and then attaches `application`.

    Attributes:
        completed: Fires with the application protocol; fails with `TlsHandshakeError`.
    """

    transport: Any

    def __init__(self, tls: ServerTls, application: Any) -> None:
        self._tls = tls
        self._application = application
        self.completed: Deferred[Any] = Deferred(lambda _: self.transport.abortConnection())

    def connectionMade(self) -> None:
        context, name = self._tls.context, self._tls.server_hostname
        try:
            upper = TlsTransport(
                self.transport, context, self, server_side=False, server_hostname=name
            )
        except ValueError as error:
            # The name is not valid in SNI, or there is none to verify.
            self._fail(str(error))
            return
        self.transport.wrappedProtocol = upper
        upper.start()

    def handshake_completed(self, transport: TlsTransport) -> None:
        completed, application = self.completed, self._application
        transport.attach(application)
        completed.callback(application)

    def handshake_failed(self, transport: TlsTransport, error: Exception) -> None:
        self._fail(describe_handshake_error(error))

    def _fail(self, text: str) -> None:
        self.transport.loseConnection()
        if not self.completed.called:
            self.completed.errback(TlsHandshakeError(f"TLS handshake failed: {text}"))


def _build_server_endpoint(
    reactor: Any, server: Server, timeout: float, tls: ServerTls | None
) -> IStreamClientEndpoint:
    endpoint = _BoundedEndpoint(reactor, server, timeout)
    return endpoint if tls is None else _TlsEndpoint(endpoint, tls)


def _build_endpoint(reactor: Any, address: ServerAddress, timeout: float) -> IStreamClientEndpoint:
    if isinstance(address, UnixAddress):
        return UNIXClientEndpoint(reactor, address.path, timeout)
    if isIPAddress(address.host):
        return TCP4ClientEndpoint(reactor, address.host, address.port, timeout)
    if isIPv6Address(address.host):
        return TCP6ClientEndpoint(reactor, address.host, address.port, timeout)
    return HostnameEndpoint(reactor, address.host, address.port, timeout)
