"""Health checks by grpc.health.v1."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import connectProtocol
from twisted.internet.interfaces import IStreamClientEndpoint

from balancebeam import __version__
from balancebeam.core.addresses import UnixAddress
from balancebeam.protocols.grpc import (
    CONTENT_TYPE,
    OK,
    GrpcError,
    decode_message,
    decode_status_message,
    encode_message,
    is_grpc_content_type,
)
from balancebeam.protocols.grpc_health import (
    CHECK_PATH,
    SERVING,
    decode_response,
    encode_request,
    serving_status_name,
)
from balancebeam.upstream.health.errors import Unhealthy
from balancebeam.upstream.health.http2_check import Fields, Http2Check, Http2CheckResponse
from balancebeam.upstream.server import Server

# Characters of a grpc-message in a message.
_MAX_TEXT = 200


def describe_check(service: str) -> str:
    """Return what is checked, as text for logs."""
    return f"gRPC health check of {service!r}" if service else "gRPC health check"


async def check_grpc_health(
    endpoint: IStreamClientEndpoint, server: Server, service: str, timeout: float, secure: bool
) -> str:
    """
    Check a server once.

    Args:
        endpoint: Connects to the server, with TLS if it uses that.
        server: The server.
        service: The service to check; empty for the server as a whole.
        timeout: The deadline of the call in seconds.
        secure: The server uses TLS.

    Returns:
        What was seen of a healthy server, as text for logs.

    Raises:
        Unhealthy: The server has answered something else.
        Exception: Whatever prevented an answer.
    """
    fields = _request_fields(server, timeout, secure)
    client = Http2Check(fields, encode_message(encode_request(service)))
    connecting: Any = connectProtocol(endpoint, client)
    await connecting
    answered = f"{describe_check(service)} was answered"
    try:
        status = read_status(await client.response)
    except GrpcError as error:
        raise Unhealthy(f"{answered} {error}") from None
    seen = f"{answered} with {serving_status_name(status)}"
    if status != SERVING:
        raise Unhealthy(seen)
    return seen


def _request_fields(server: Server, timeout: float, secure: bool) -> Fields:
    host = "localhost" if isinstance(server.address, UnixAddress) else server.name
    return (
        (b":method", b"POST"),
        (b":scheme", b"https" if secure else b"http"),
        (b":authority", host.encode()),
        (b":path", CHECK_PATH.encode()),
        (b"content-type", CONTENT_TYPE),
        (b"te", b"trailers"),
        (b"grpc-timeout", b"%dm" % max(1, min(99_999_999, round(timeout * 1000)))),
        (b"user-agent", f"balancebeam/{__version__}".encode()),
    )


def read_status(response: Http2CheckResponse) -> int:
    """
    Return the serving status in a response.

    Raises:
        GrpcError: The response is an error, or not one of the service; the text follows
            "was answered".
    """
    fields = response.fields
    if response.status != 200:
        raise GrpcError(f"with HTTP status {response.status}")
    if not is_grpc_content_type(fields.get(b"content-type", b"")):
        raise GrpcError("without gRPC")
    code = fields.get(b"grpc-status", b"")
    if code != b"%d" % OK:
        text = decode_status_message(fields.get(b"grpc-message", b"").decode("latin-1"))
        suffix = f": {text[:_MAX_TEXT]!a}" if text else ""
        value = code.decode() if code.isdigit() else ascii(code.decode("latin-1"))
        raise GrpcError(f"with grpc-status {value[:_MAX_TEXT]}{suffix}")
    try:
        return decode_response(decode_message(response.content))
    except GrpcError as error:
        raise GrpcError(f"with an invalid message: {error}") from None
