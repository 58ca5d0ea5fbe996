"""
Outgoing connections to upstream servers.

Twisted's TCP connector resolves the address again, defers twice to the next
iteration of the reactor, and calls connect(2) twice to learn the result. Servers
without keep-alive, and every TCP client, would pay that for each connection.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import error, unix
from twisted.python.failure import Failure

from balancebeam.core.addresses import ServerAddress, TcpAddress, UnixAddress
from balancebeam.net.interfaces import DataReactor
from balancebeam.net.transport import TcpClientTransport, UnixClientTransport

# Saves the system call that sets O_NONBLOCK (Linux, BSD).
_SOCK_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)


class Connector:
    """
    One attempt to connect over TCP. It has no time limit of its own.

    Args:
        address: the server; its host is an IP address.
        factory: a `ClientFactory`. `buildProtocol` or `clientConnectionFailed` is
            called when the attempt has ended, never before `connect` has returned.
        reactor: the reactor of data connections.

    Attributes:
        state: "connecting", "connected" or "disconnected", as of Twisted's connectors.
        poll_first: see `Selectable`.
    """

    poll_first = True

    def __init__(self, address: TcpAddress, factory: Any, reactor: DataReactor) -> None:
        self.state = "connecting"
        self._address = address
        self._factory = factory
        self._reactor = reactor
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Start the attempt."""
        try:
            family, sockaddr = _socket_address(self._address)
            self._socket = socket.socket(family, socket.SOCK_STREAM | _SOCK_NONBLOCK)
            if not _SOCK_NONBLOCK:
                self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self._socket.connect_ex(sockaddr)
        except OSError as failure:
            number = failure.errno or errno.EIO
        if number in (0, errno.EINPROGRESS):
            self._reactor.addWriter(self)
        else:
            self._reactor.callLater(0, self._fail, _connect_error(number))

    def stopConnecting(self) -> None:
        """Cancel the attempt, which fails with `UserError`."""
        self._fail(error.UserError())

    # IWriteDescriptor

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "balancebeam"

    def doWrite(self) -> None:
        """Replace this connector by a transport, or fail: the result is in SO_ERROR."""
        connected = self._socket
        if connected is None:
            return
        number = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(_connect_error(number))
            return
        self._socket = None
        transport = TcpClientTransport(connected, self._reactor)
        protocol = self._factory.buildProtocol(None)
        self.state = "connected"
        transport.protocol = protocol
        self._reactor.transfer_registration(self, transport)
        protocol.makeConnection(transport)

    def connectionLost(self, reason: Failure) -> None:
        """Fail with the socket's error: the poller reported a hang-up."""
        number = 0
        if self._socket is not None:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._fail(_connect_error(number or errno.ECONNRESET))

    def _fail(self, reason: BaseException) -> None:
        if self.state != "connecting":
            return
        self.state = "disconnected"
        if self._socket is not None:
            self._reactor.removeWriter(self)
            descriptor = self._socket.fileno()
            self._socket.close()
            self._socket = None
            self._reactor.forget_fd(descriptor)
        self._factory.clientConnectionFailed(self, Failure(reason))


class UnixConnector(unix.Connector):
    """Twisted's connector over Unix sockets, with a transport of this package."""

    def _makeTransport(self) -> Any:
        return UnixClientTransport(self.address, self, self.reactor, self.checkPID)


def connect(
    server_address: ServerAddress, factory: Any, reactor: DataReactor
) -> Connector | UnixConnector:
    """
    Start to connect to a server.

    Args:
        server_address: a Unix socket, or an IP address and a port.
        factory: a `ClientFactory`, which is notified of the result.
        reactor: the reactor of data connections.

    Returns:
        The connector. It has no time limit: the caller calls `stopConnecting`.
    """
    connector: Connector | UnixConnector
    if isinstance(server_address, UnixAddress):
        connector = UnixConnector(server_address.path, factory, None, reactor, 0)
    else:
        connector = Connector(server_address, factory, reactor)
    connector.connect()
    return connector


def _connect_error(number: int) -> error.ConnectError:
    """Return Twisted's exception for an errno of connect(2)."""
    failure: error.ConnectError = error.getConnectError((number, os.strerror(number)))
    return failure


def _socket_address(address: TcpAddress) -> tuple[int, Any]:
    """Return the family and the socket address of `address`, whose host is an IP address."""
    if ":" not in address.host:
        return socket.AF_INET, (address.host, address.port)
    # Converts the zone of a link-local address ("fe80::1%eth0") into its number.
    resolved = socket.getaddrinfo(
        address.host, address.port, socket.AF_INET6, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
    )
    return socket.AF_INET6, resolved[0][4]
