"""Listeners described by Twisted server endpoint descriptions, such as `tcp:80`."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.internet.protocol import ServerFactory

from balancebeam.core.addresses import EndpointAddress

#: Endpoints that only bind one socket, so that a new process can adopt it.
PLAIN_ENDPOINT_PREFIXES = ("tcp:", "tcp4:", "tcp6:")


def parse_endpoint(address: EndpointAddress, reactor: Any) -> IStreamServerEndpoint:
    """Build the endpoint that `address` describes. Raises `ValueError` if it is invalid."""
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, address.description)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"invalid endpoint description: {error}") from error
    return endpoint


def listen_on_endpoint(
    address: EndpointAddress, factory: ServerFactory, reactor: Any
) -> IListeningPort:
    """
    Listen at the endpoint that `address` describes.

    Raises:
        ValueError: the description is invalid.
        OSError: the socket cannot be bound, or the endpoint does not listen synchronously.
    """
    results: list[Any] = []
    parse_endpoint(address, reactor).listen(factory).addBoth(results.append)
    # Endpoints that only bind a socket have a result at once. It is needed here: a
    # failure has to end the start or the reload, as for any other address.
    if not results or not IListeningPort.providedBy(results[0]):
        raise OSError(results[0].getErrorMessage() if results else "the endpoint has not listened")
    port: IListeningPort = results[0]
    return port
