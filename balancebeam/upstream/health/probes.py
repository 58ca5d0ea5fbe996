"""
Probes: one active health check of one server, over TCP, HTTP or gRPC.

They use Twisted's endpoints and, for HTTP/1.1, treq, because checks are rare. A server that
misbehaves is bounded: in time by the caller, which cancels, and in bytes by its endpoint.
"""

from __future__ import annotations

import typing
from http import HTTPStatus
from typing import Any, Callable, Optional

from treq.client import HTTPClient
from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from balancebeam import __version__
from balancebeam.core.addresses import UnixAddress
from balancebeam.core.settings import HTTP2, HealthCheckSettings
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.health.errors import Unhealthy
from balancebeam.upstream.health.grpc_probe import check_grpc_health
from balancebeam.upstream.health.http2_check import Http2Check
from balancebeam.upstream.health.probe_endpoints import build_server_endpoint
from balancebeam.upstream.server import Server

# Returns TLS for a connection to a server; `None` for a connection without TLS.
FindTls = Callable[[Server], Optional[ServerTls]]

# Whether requests to a server use HTTP/2.
UsesHttp2 = Callable[[Server], bool]

# Characters of a Location field in a message: enough for the path of a login page.
_MAX_LOCATION = 200


class Probe(typing.Protocol):
    """Checks one server."""

    async def check(self, server: Server) -> str:
        """
        Check `server`.

        Returns:
            What was seen of a healthy server, as text for logs.

        Raises:
            Unhealthy: Its response is not that of a healthy server.
            Exception: Whatever prevented a response.
        """


def _no_tls(server: Server) -> ServerTls | None:
    return None


def _has_http2(server: Server) -> bool:
    return server.protocol == HTTP2


def build_probe(
    settings: HealthCheckSettings,
    reactor: Any,
    find_tls: FindTls = _no_tls,
    uses_http2: UsesHttp2 = _has_http2,
) -> Probe:
    """Build the probe for `settings`: over gRPC, over HTTP if they have a path, else over TCP."""
    timeout = settings.effective_timeout
    if settings.grpc is not None:
        return GrpcProbe(reactor, settings.grpc, timeout, find_tls)
    if settings.path is None:
        return ConnectProbe(reactor, timeout, find_tls)
    return HttpProbe(reactor, settings.path, settings.status, timeout, find_tls, uses_http2)


class ConnectProbe:
    """A server is healthy if it accepts a connection, and completes the TLS handshake."""

    def __init__(self, reactor: Any, timeout: float, find_tls: FindTls = _no_tls) -> None:
        self._reactor = reactor
        self._timeout = timeout
        self._find_tls = find_tls

    async def check(self, server: Server) -> str:
        tls = self._find_tls(server)
        endpoint = build_server_endpoint(self._reactor, server, self._timeout, tls)
        connection: Any = await endpoint.connect(Factory.forProtocol(Protocol))
        connection.transport.loseConnection()
        return "connection accepted" if tls is None else "TLS handshake completed"


class GrpcProbe:
    """A server is healthy if grpc.health.v1 says that the service is serving."""

    def __init__(
        self, reactor: Any, service: str, timeout: float, find_tls: FindTls = _no_tls
    ) -> None:
        """
        Args:
            reactor: The reactor.
            service: The name of the service; empty for the server as a whole.
            timeout: Connect timeout, and deadline of the call, in seconds.
            find_tls: Returns TLS for a connection to a server.
        """
        self._reactor = reactor
        self._service = service
        self._timeout = timeout
        self._find_tls = find_tls

    async def check(self, server: Server) -> str:
        tls = self._find_tls(server)
        endpoint = build_server_endpoint(self._reactor, server, self._timeout, tls)
        return await check_grpc_health(
            endpoint, server, self._service, self._timeout, secure=tls is not None
        )


class HttpProbe:
    """A server is healthy if it responds to a GET request with an expected status."""

    def __init__(
        self,
        reactor: Any,
        path: str,
        statuses: tuple[int, int],
        timeout: float,
        find_tls: FindTls = _no_tls,
        uses_http2: UsesHttp2 = _has_http2,
    ) -> None:
        """
        Args:
            reactor: The reactor.
            path: Target of the request.
            statuses: First and last status of a healthy server.
            timeout: Connect timeout in seconds.
            find_tls: Returns TLS for a connection to a server.
            uses_http2: Whether requests to a server use HTTP/2; so does its check then.
        """
        self._find_tls = find_tls
        self._uses_http2 = uses_http2
        self._reactor = reactor
        self._path = path
        self._statuses = statuses
        self._timeout = timeout

    async def check(self, server: Server) -> str:
        tls = self._find_tls(server)
        endpoint = build_server_endpoint(self._reactor, server, self._timeout, tls)
        host = "localhost" if isinstance(server.address, UnixAddress) else server.name
        if self._uses_http2(server):
            code, locations = await self._request_http2(endpoint, host, tls is not None)
        else:
            code, locations = await self._request_http1(endpoint, host)
        first, last = self._statuses
        seen = f"GET {self._path} was answered with {code}"
        if not first <= code <= last:
            raise Unhealthy(seen, self._describe(host, code, locations))
        return seen

    async def _request_http1(
        self, endpoint: IStreamClientEndpoint, host: str
    ) -> tuple[int, list[str]]:
        """Return the status of the response, and the values of Location."""
        agent = Agent.usingEndpointFactory(self._reactor, _FixedEndpointFactory(endpoint))
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
        return response.code, response.headers.getRawHeaders("location") or []

    async def _request_http2(
        self, endpoint: IStreamClientEndpoint, host: str, secure: bool
    ) -> tuple[int, list[str]]:
        """Do the same as `_request_http1`, over HTTP/2."""
        fields = (
            (b":method", b"GET"),
            (b":scheme", b"https" if secure else b"http"),
            (b":authority", host.encode()),
            (b":path", self._path.encode()),
            (b"user-agent", f"balancebeam/{__version__}".encode()),
        )
        client = Http2Check(fields, head_only=True)
        connecting: Any = connectProtocol(endpoint, client)
        await connecting
        response = await client.response
        location = response.fields.get(b"location")
        return response.status, [] if location is None else [location.decode("latin-1")]

    def _describe(self, host: str, code: int, locations: list[str]) -> str:
        """Return the request, the unexpected response and the expected statuses."""
        phrase = f" {HTTPStatus(code).phrase}" if code in list(HTTPStatus) else ""
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
