"""
Endpoints of health checks: bounded connections to a server, with PROXY header and TLS.

With TLS, no session is resumed, so that each check verifies the certificate of the server. A
server that misbehaves is bounded: in time by the caller, which cancels, and in bytes by
`_BoundedProtocol`.
"""

from __future__ import annotations

from typing import Any

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
from zope.interface import implementer

from balancebeam.core.addresses import ServerAddress, UnixAddress
from balancebeam.net.tls_transport import TlsTransport
from balancebeam.protocols.proxy_protocol import encode_proxy_header
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server
from balancebeam.upstream.tls_handshake import (
    NO_HTTP2,
    TlsHandshakeError,
    describe_handshake_error,
    has_negotiated_http2,
)

# Bytes read of a response before the connection is aborted: enough for any head, as nginx
# (8 KiB) and Apache (64 KiB) limit them, and for the start of the body.
_MAX_BYTES = 64 * 1024


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
        if self._tls.http2 and not has_negotiated_http2(transport):
            self._fail(NO_HTTP2)
            return
        transport.attach(application)
        completed.callback(application)

    def handshake_failed(self, transport: TlsTransport, error: Exception) -> None:
        self._fail(describe_handshake_error(error))

    def _fail(self, text: str) -> None:
        self.transport.loseConnection()
        if not self.completed.called:
            self.completed.errback(TlsHandshakeError(f"TLS handshake failed: {text}"))


def build_server_endpoint(
    reactor: Any, server: Server, timeout: float, tls: ServerTls | None
) -> IStreamClientEndpoint:
    """
    Return the endpoint of connections to `server`.

    Args:
        reactor: The reactor.
        server: The server.
        timeout: Connect timeout in seconds.
        tls: TLS of the connections; `None` for none.
    """
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
