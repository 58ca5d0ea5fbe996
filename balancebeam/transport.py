"""
Listening and connecting, with transports that write at once.

Twisted's `write` keeps the bytes and asks the poller to call back when the
socket can take them: two system calls and one more turn of the loop for bytes
that the kernel nearly always takes at once. These transports try the socket
first and fall back to that path for what it does not take.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from typing import Any

from twisted.internet import address, tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from balancebeam.connecting import Connector
from balancebeam.model import ServerAddress, TcpAddress, UnixAddress

# Connections that wait for accept(2). nginx has 511.
BACKLOG = 1024


class _WritesAtOnce:
    """
    Mixed into Twisted's stream transports.

    `direct` is true while the socket may be written to past the buffer: the
    buffer is empty and nothing of the connection's end has begun. Twisted
    says so through `startWriting` and `stopWriting`, which it calls whenever
    bytes or an end are outstanding, and when nothing is any more.
    """

    fileno: Callable[[], int]
    direct = True
    _ending = False
    # Whether `Splice` may do its reading and writing.
    splices = True
    # Octets that the kernel took from a backlog.
    taken = 0

    def write(self: Any, data: bytes) -> None:
        if self.direct and self.connected:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # The ordinary path meets the same error, and reports it in
                # its own time instead of in the middle of a caller's work.
                sent = 0
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        super().write(data)  # type: ignore[misc]

    def doRead(self: Any) -> Any:
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.protocol.dataReceived(data)
        return None

    def writeSomeData(self: Any, data: bytes) -> Any:
        taken = super().writeSomeData(data)  # type: ignore[misc]
        if isinstance(taken, int):
            self.taken += taken
        return taken

    def outstanding(self: Any) -> int:
        """
        A number that changes whenever the peer takes something, 0 when it has
        all: the octets in the kernel's buffer, less those that went there from
        a backlog which is still there.
        """
        if self.direct:
            self.taken = 0
        try:
            waiting = fcntl.ioctl(self.fileno(), termios.TIOCOUTQ, bytes(4))
        except (OSError, ValueError):
            return -int(self.taken)
        return int.from_bytes(waiting, sys.byteorder) - int(self.taken)

    def startWriting(self: Any) -> None:
        self.direct = False
        super().startWriting()  # type: ignore[misc]

    def stopWriting(self: Any) -> None:
        super().stopWriting()  # type: ignore[misc]
        self.direct = not self._ending

    def loseConnection(self: Any, *arguments: Any) -> None:
        self._ending = True
        self.direct = False
        super().loseConnection(*arguments)  # type: ignore[misc]

    def loseWriteConnection(self: Any) -> None:
        self._ending = True
        super().loseWriteConnection()  # type: ignore[misc]

    def abortConnection(self: Any) -> None:
        self._ending = True
        self.direct = False
        super().abortConnection()  # type: ignore[misc]

    def startTLS(self: Any, *arguments: Any, **keywords: Any) -> None:
        self._ending = True
        self.direct = False
        super().startTLS(*arguments, **keywords)  # type: ignore[misc]


class TcpServerTransport(_WritesAtOnce, tcp.Server):
    """A client's connection over TCP."""

    def pauseProducing(self) -> None:
        # Who resets a connection that nobody reads has to be noticed too. (A
        # server that does so may have said something before, which is read.)
        pause = getattr(self.reactor, "pause_reader", self.reactor.removeReader)
        pause(self)


class TcpClientTransport(_WritesAtOnce, tcp.Connection):
    """A connection to a server over TCP, which stands."""

    served_first = True

    def __init__(self, connected: socket.socket, reactor: Any) -> None:
        # Its protocol is not known yet.
        nobody: Any = None
        super().__init__(connected, nobody, reactor)
        self.connected = 1
        self.logstr = "balancebeam"

    def getHost(self) -> address.IPv4Address | address.IPv6Address:
        return _address(self.socket.getsockname())

    def getPeer(self) -> address.IPv4Address | address.IPv6Address:
        return _address(self.socket.getpeername())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):x}>"


class UnixServerTransport(_WritesAtOnce, unix.Server):
    """A client's connection over a Unix socket."""


class UnixClientTransport(_WritesAtOnce, unix.Client):
    """A connection to a server over a Unix socket."""

    served_first = True


class TcpPort(tcp.Port):
    transport = TcpServerTransport


class UnixPort(unix.Port):
    transport = UnixServerTransport


class UnixConnector(unix.Connector):
    def _makeTransport(self) -> Any:
        return UnixClientTransport(self.address, self, self.reactor, self.checkPID)


def listen(
    where: TcpAddress | UnixAddress, factory: IProtocolFactory, reactor: Any
) -> IListeningPort:
    """
    Listen at `where`.

    A Unix socket left behind by a process that is gone is replaced. Raises
    `twisted.internet.error.CannotListenError`.
    """
    port: Any
    if isinstance(where, UnixAddress):
        port = UnixPort(where.path.encode(), factory, BACKLOG, reactor=reactor, wantPID=1)
    else:
        interface = "" if where.host == "0.0.0.0" else where.host
        port = TcpPort(where.port, factory, BACKLOG, interface, reactor)
    port.startListening()
    listening: IListeningPort = port
    return listening


def connect(where: ServerAddress, factory: Any, timeout: float, reactor: Any) -> Any:
    """
    Begin to connect to `where`, whose host is an IP address; the factory, a
    `ClientFactory`, hears of success and failure. Returns the connector.
    """
    connector: Any
    if isinstance(where, UnixAddress):
        connector = UnixConnector(where.path, factory, timeout, reactor, 0)
    else:
        connector = Connector(where, factory, timeout, TcpClientTransport, reactor)
    connector.connect()
    return connector


def _address(found: Any) -> address.IPv4Address | address.IPv6Address:
    """An address as sockets give it, in Twisted's words."""
    if len(found) == 2:
        return address.IPv4Address("TCP", *found)
    return address.IPv6Address("TCP", *found)


def peer_name(peer: object) -> str:
    """The text by which servers hear of a client: its IP address, if it has one."""
    if isinstance(peer, (address.IPv4Address, address.IPv6Address)):
        host = peer.host.partition("%")[0]
        # A dual-stack listener sees IPv4 clients in this form.
        return host[7:] if host.startswith("::ffff:") and "." in host else host
    return "unknown"
