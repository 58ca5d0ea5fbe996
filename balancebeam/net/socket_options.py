"""TCP socket options of connections: TCP_NODELAY and SO_KEEPALIVE."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import ITCPTransport

from balancebeam.net.tls_transport import TlsTransport
from balancebeam.net.transport import DirectWriteMixin


def set_socket_options(transport: Any) -> None:
    """
    Enable TCP_NODELAY and SO_KEEPALIVE on a transport of a Twisted endpoint.

    Transports of this package have their options already: accepted sockets
    inherit both from the listening socket, and connectors set TCP_NODELAY and
    leave SO_KEEPALIVE to `enable_keepalive`.
    """
    transport = _socket_transport(transport)
    if not isinstance(transport, DirectWriteMixin) and ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)


def enable_keepalive(transport: Any) -> None:
    """
    Enable SO_KEEPALIVE on a connection that has lasted for a while.

    The kernel sends its first probe after two hours (tcp_keepalive_time), so
    short connections would pay a system call for nothing.
    """
    transport = _socket_transport(transport)
    if ITCPTransport.providedBy(transport):
        transport.setTcpKeepAlive(True)


def _socket_transport(transport: Any) -> Any:
    """The transport of the socket, below TLS if there is TLS."""
    return transport.lower if isinstance(transport, TlsTransport) else transport
