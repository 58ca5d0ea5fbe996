"""
Connecting over TCP, in as few steps as it takes.

Twisted's connector asks for the address again, defers twice to the next turn
of the loop, and connects twice to find out that it is connected. Servers that
close after each answer, and every TCP client, pay for that.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Callable

from twisted.internet import error
from twisted.python.failure import Failure

from balancebeam.core.addresses import TcpAddress

# Saves a system call where there is such a thing.
_SOCK_NONBLOCK = getattr(socket, "SOCK_NONBLOCK", 0)

# What makes a transport of a connected socket: socket, reactor.
TransportFactory = Callable[[socket.socket, Any], Any]


class Connector:
    """
    One attempt to connect to `address`, whose host is an IP address. `factory`, a
    `ClientFactory`, hears how it ended, but not before `connect` has returned.
    Who waits for too long says `stopConnecting`.

    `state` is "connecting", "connected" or "disconnected", as that of Twisted's.
    """

    # See `BatchPoller`.
    poll_first = True

    def __init__(
        self, address: TcpAddress, factory: Any, transport_factory: TransportFactory, reactor: Any
    ) -> None:
        self.state = "connecting"
        self._address = address
        self._factory = factory
        self._transport_factory = transport_factory
        self._reactor = reactor
        self._socket: socket.socket | None = None

    def connect(self) -> None:
        """Begin."""
        try:
            family, address = _socket_address(self._address)
            self._socket = socket.socket(family, socket.SOCK_STREAM | _SOCK_NONBLOCK)
            if not _SOCK_NONBLOCK:
                self._socket.setblocking(False)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = self._socket.connect_ex(address)
        except OSError as failure:
            number = failure.errno or errno.EIO
        if number in (0, errno.EINPROGRESS):
            self._reactor.addWriter(self)
        else:
            reason = error.getConnectError((number, os.strerror(number)))
            self._reactor.callLater(0, self._fail, reason)

    def stopConnecting(self) -> None:
        """Give up."""
        self._fail(error.UserError())

    # What the reactor uses.

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "balancebeam"

    def doWrite(self) -> None:
        """The socket is connected, or will never be."""
        connected = self._socket
        if connected is None:
            return
        number = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._fail(error.getConnectError((number, os.strerror(number))))
            return
        self._socket = None
        transport = self._transport_factory(connected, self._reactor)
        protocol = self._factory.buildProtocol(None)
        self.state = "connected"
        transport.protocol = protocol
        if hasattr(self._reactor, "transfer_registration"):
            self._reactor.transfer_registration(self, transport)
        else:
            self._reactor.removeWriter(self)
            transport.startReading()
        protocol.makeConnection(transport)

    def connectionLost(self, reason: Failure) -> None:
        """The poller saw the socket hang up."""
        number = 0
        if self._socket is not None:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        number = number or errno.ECONNRESET
        self._fail(error.getConnectError((number, os.strerror(number))))

    def _fail(self, reason: BaseException) -> None:
        if self.state != "connecting":
            return
        self.state = "disconnected"
        if self._socket is not None:
            self._reactor.removeWriter(self)
            descriptor = self._socket.fileno()
            self._socket.close()
            self._socket = None
            if hasattr(self._reactor, "forget_fd"):
                self._reactor.forget_fd(descriptor)
        self._factory.clientConnectionFailed(self, Failure(reason))


def _socket_address(address: TcpAddress) -> tuple[int, Any]:
    """The family and the address of a socket, for the host of `address`, an IP address."""
    if ":" not in address.host:
        return socket.AF_INET, (address.host, address.port)
    # For the number of the zone, if there is one.
    found = socket.getaddrinfo(
        address.host, address.port, socket.AF_INET6, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
    )
    return socket.AF_INET6, found[0][4]
