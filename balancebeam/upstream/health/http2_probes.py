"""Health checks over HTTP/2: of a path, and of a service by grpc.health.v1."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Callable

from twisted.internet.protocol import Factory

from balancebeam import __version__
from balancebeam.protocols.grpc_health import (
    PATH,
    SERVING,
    STATUS_CODES,
    STATUS_NAMES,
    GrpcMessageError,
    encode_check,
    parse_status,
)
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http2.hpack_encoder import encode_fields
from balancebeam.upstream.health.http2_check import CheckResponse, Http2Check
from balancebeam.upstream.health.probe_endpoints import build_server_endpoint
from balancebeam.upstream.health.verdicts import FindTls, Unhealthy, host_of, judge_status
from balancebeam.upstream.server import Server

Fields = list[tuple[bytes, bytes]]

# Sends a request to a server: its fields without `:scheme` and `:authority`, and its content.
SendRequest = Callable[[Server, Fields, bytes], Awaitable[CheckResponse]]

_USER_AGENT = b"balancebeam/" + __version__.encode()


def http2_connector(reactor: Any, timeout: float, find_tls: FindTls) -> SendRequest:
    """
    Return a function that sends one request on a connection of its own.

    Args:
        reactor: The reactor.
        timeout: Connect timeout in seconds.
        find_tls: Returns TLS for a connection to a server.
    """

    async def send(server: Server, fields: Fields, content: bytes) -> CheckResponse:
        tls = find_tls(server)
        endpoint = build_server_endpoint(reactor, server, timeout, tls)
        pseudo = [
            (b":scheme", b"http" if tls is None else b"https"),
            (b":authority", host_of(server).encode()),
        ]
        block = encode_fields([*pseudo, *fields, (b"user-agent", _USER_AGENT)])
        factory = Factory.forProtocol(lambda: Http2Check(block, content))
        connection: Any = await endpoint.connect(factory)
        response: CheckResponse = await connection.result
        return response

    return send


class Http2Probe:
    """A server is healthy if it responds to a GET request with an expected status."""

    def __init__(self, send: SendRequest, path: str, statuses: tuple[int, int]) -> None:
        """
        Args:
            send: Sends the request.
            path: Target of the request.
            statuses: First and last status of a healthy server.
        """
        self._send = send
        self._path = path
        self._statuses = statuses

    async def check(self, server: Server) -> str:
        fields = [(b":method", b"GET"), (b":path", self._path.encode())]
        head = (await self._send(server, fields, b"")).head
        locations = field_values(head.forward_bytes, b"location")
        location = locations[0].decode("latin-1") if locations else None
        return judge_status(self._path, host_of(server), head.status, self._statuses, location)


class GrpcProbe:
    """A server is healthy if its health service reports SERVING for a service."""

    def __init__(self, send: SendRequest, service: str) -> None:
        """
        Args:
            send: Sends the request.
            service: The name of the service; empty for the server as a whole.
        """
        self._send = send
        self._service = service

    async def check(self, server: Server) -> str:
        fields = [
            (b":method", b"POST"),
            (b":path", PATH),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        ]
        response = await self._send(server, fields, encode_check(self._service))
        status = response.head.status
        if status != 200:
            raise Unhealthy(f"gRPC health check was answered with HTTP status {status}")
        code = response.field(b"grpc-status")
        if code != b"0":
            if code is None:
                raise Unhealthy("gRPC health check was answered without grpc-status")
            name = STATUS_CODES.get(code, code[:10].decode("latin-1"))
            raise Unhealthy(f"gRPC health check was answered with {name}")
        try:
            serving = parse_status(response.content)
        except GrpcMessageError as error:
            raise Unhealthy(f"gRPC health check was answered with an invalid {error}") from None
        seen = f"gRPC health check was answered with {STATUS_NAMES.get(serving, serving)}"
        if serving != SERVING:
            raise Unhealthy(seen)
        return seen
