"""
Probes: one active health check of one server, over TCP or HTTP.

They use Twisted's endpoints and treq, because checks are rare; see `probe_endpoints`, and
`http2_probes` for HTTP/2.
"""

from __future__ import annotations

from typing import Any, Callable

from treq.client import HTTPClient
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from balancebeam import __version__
from balancebeam.core.settings import HTTP2, HealthCheckSettings
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.health.http2_probes import GrpcProbe, Http2Probe, http2_connector
from balancebeam.upstream.health.probe_endpoints import build_server_endpoint
from balancebeam.upstream.health.verdicts import (
    FindTls,
    Probe,
    Unhealthy,
    host_of,
    judge_status,
)
from balancebeam.upstream.server import Server

__all__ = ["ConnectProbe", "HttpProbe", "Probe", "Unhealthy", "build_probe"]

# Returns whether requests to a server use HTTP/2.
UsesHttp2 = Callable[[Server], bool]


def _no_tls(server: Server) -> ServerTls | None:
    return None


def _uses_http2(server: Server) -> bool:
    return server.protocol == HTTP2


def build_probe(
    settings: HealthCheckSettings,
    reactor: Any,
    find_tls: FindTls = _no_tls,
    uses_http2: UsesHttp2 = _uses_http2,
) -> Probe:
    """
    Build the probe for `settings`: over gRPC or HTTP if they have a service or path, else TCP.

    Args:
        settings: The settings of the checks.
        reactor: The reactor.
        find_tls: Returns TLS for a connection to a server.
        uses_http2: Returns whether a server uses HTTP/2.
    """
    timeout = settings.effective_timeout
    connect = http2_connector(reactor, timeout, find_tls)
    if settings.grpc is not None:
        return GrpcProbe(connect, settings.grpc)
    if settings.path is None:
        return ConnectProbe(reactor, timeout, find_tls)
    http1 = HttpProbe(reactor, settings.path, settings.status, timeout, find_tls)
    return VersionProbe(http1, Http2Probe(connect, settings.path, settings.status), uses_http2)


class VersionProbe:
    """Checks each server over the HTTP version that its requests use."""

    def __init__(self, http1: Probe, http2: Probe, uses_http2: UsesHttp2) -> None:
        self._http1 = http1
        self._http2 = http2
        self._uses_http2 = uses_http2

    async def check(self, server: Server) -> str:
        probe = self._http2 if self._uses_http2(server) else self._http1
        return await probe.check(server)


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
        endpoint = build_server_endpoint(self._reactor, server, self._timeout, tls)
        agent = Agent.usingEndpointFactory(self._reactor, _FixedEndpointFactory(endpoint))
        host = host_of(server)
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
        locations = response.headers.getRawHeaders("location") or ()
        location = next((value for value in locations), None)
        return judge_status(self._path, host, response.code, self._statuses, location)


@implementer(IAgentEndpointFactory)
class _FixedEndpointFactory:
    """Makes an agent connect to one endpoint, whatever the URI."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint
