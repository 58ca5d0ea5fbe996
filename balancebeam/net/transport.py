"""
Transports that write at once, and connecting with them; `ports` listens.

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

from twisted.internet import abstract, address, tcp, unix
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from balancebeam.core.addresses import ServerAddress, UnixAddress
from balancebeam.net.connector import Connector

# Has what is sent wait for what follows it.
_MSG_MORE = getattr(socket, "MSG_MORE", 0)


class DirectWriteMixin:
    """
    Mixed into Twisted's stream transports.

    `nothing_buffered` is true while the socket may be written to past the buffer: the
    buffer is empty and nothing of the connection's end has begun. Twisted
    says so through `startWriting` and `stopWriting`, which it calls whenever
    bytes or an end are outstanding, and when nothing is any more.
    """

    fileno: Callable[[], int]
    nothing_buffered = True
    _closing = False
    # Whether the peer has still to be told that nothing more comes.
    _fin_pending = False
    # Whether `SplicePipe` may do its reading and writing.
    can_splice = True
    # Nobody else has the descriptor, so closing it ends the connection.
    _shouldShutdown = False
    # Octets that the kernel took from a backlog.
    kernel_bytes = 0

    def write(self: Any, data: bytes) -> None:
        if self.nothing_buffered and self.connected:
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

    def read_before_eof(self: Any) -> Any:
        """As `doRead`, when the peer has ended already."""
        eof_pending = getattr(self.protocol, "eof_pending", None)
        if eof_pending is not None:
            eof_pending()
        return self.doRead()

    def write_more(self: Any, data: bytes) -> None:
        """
        Write what most likely nothing but an end follows, and surely that or
        more: both may go out together, in one segment less.
        """
        if self.nothing_buffered and self.connected and _MSG_MORE:
            try:
                sent = self.socket.send(data, _MSG_MORE)
            except OSError:
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        self.write(data)

    def writeSomeData(self: Any, data: bytes) -> Any:
        taken = super().writeSomeData(data)  # type: ignore[misc]
        if isinstance(taken, int):
            self.kernel_bytes += taken
        return taken

    def unacked_bytes(self: Any) -> int:
        """
        A number that changes whenever the peer takes something, 0 when it has
        all: the octets in the kernel's buffer, less those that went there from
        a backlog which is still there.
        """
        if self.nothing_buffered:
            self.kernel_bytes = 0
        return _send_queue_bytes(self.fileno()) - int(self.kernel_bytes)

    def startWriting(self: Any) -> None:
        self.nothing_buffered = False
        super().startWriting()  # type: ignore[misc]

    def stopWriting(self: Any) -> None:
        super().stopWriting()  # type: ignore[misc]
        self.nothing_buffered = not self._closing

    def loseConnection(self: Any, *arguments: Any) -> None:
        all_out = self.nothing_buffered or self._writeDisconnected
        at_once = all_out and self.connected and self.producer is None
        self._closing = True
        self._fin_pending = False
        self.nothing_buffered = False
        soon = getattr(self.reactor, "defer_disconnect", None)
        if at_once and soon is not None:
            # Everything is out: there is nothing to wait for.
            self.disconnecting = 1
            self.stopReading()
            soon(self)
        else:
            super().loseConnection(*arguments)  # type: ignore[misc]

    def loseWriteConnection(self: Any) -> None:
        at_once = self.nothing_buffered and self.connected
        self._closing = True
        self.nothing_buffered = False
        if at_once:
            self._writeDisconnecting = self._writeDisconnected = self._fin_pending = True
            soon = getattr(self.reactor, "defer_shutdown", None)
            if soon is None:
                self.shutdown_write()
            else:
                soon(self)
        else:
            super().loseWriteConnection()  # type: ignore[misc]

    def shutdown_write(self: Any) -> None:
        """Tell the peer that nothing more comes, unless the connection is over meanwhile."""
        if self._fin_pending and self.connected and not self._aborting:
            self._fin_pending = False
            self._closeWriteConnection()

    def _closeSocket(self: Any, orderly: bool) -> None:
        descriptor = self.fileno()
        super()._closeSocket(orderly)  # type: ignore[misc]
        closed = getattr(self.reactor, "forget_fd", None)
        if closed is not None:
            closed(descriptor)

    def abortConnection(self: Any) -> None:
        self._closing = True
        self.nothing_buffered = False
        super().abortConnection()  # type: ignore[misc]

    def startTLS(self: Any, *arguments: Any, **keywords: Any) -> None:
        self._closing = True
        self.nothing_buffered = False
        super().startTLS(*arguments, **keywords)  # type: ignore[misc]


class TcpServerTransport(DirectWriteMixin, tcp.Server):
    """
    A client's connection over TCP. `peer` is the client's address, `number` the
    number of the connection at its `port`.
    """

    options_set = True

    def __init__(
        self,
        accepted: socket.socket,
        protocol: Any,
        peer: tuple[Any, ...],
        port: tcp.Port,
        number: int,
        reactor: Any,
    ) -> None:
        # Twisted's writes texts about a connection that hardly anybody reads.
        tcp.Connection.__init__(self, accepted, protocol, reactor)
        if len(peer) != 2:
            self._addressType = address.IPv6Address
        self.server = port
        self.client = peer
        self.sessionno = number
        self.hostname = peer[0]
        self.logstr = "balancebeam"
        self.connected = 1
        self.startReading()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} #{self.sessionno} of {self.hostname}>"

    def pauseProducing(self) -> None:
        # Who resets a connection that nobody reads has to be noticed too. (A
        # server that does so may have said something before, which is read.)
        pause = getattr(self.reactor, "pause_reader", self.reactor.removeReader)
        pause(self)


class TcpClientTransport(DirectWriteMixin, tcp.Connection):
    """A connection to a server over TCP, which stands."""

    poll_first = True
    options_set = True

    def __init__(self, connected: socket.socket, reactor: Any) -> None:
        # What Twisted's would do, but for a system call that has been made.
        abstract.FileDescriptor.__init__(self, reactor)
        self.socket = connected
        self.fileno = connected.fileno
        self.connected = 1
        self.logstr = "balancebeam"

    def getHost(self) -> address.IPv4Address | address.IPv6Address:
        return _twisted_address(self.socket.getsockname())

    def getPeer(self) -> address.IPv4Address | address.IPv6Address:
        return _twisted_address(self.socket.getpeername())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):x}>"


class UnixServerTransport(DirectWriteMixin, unix.Server):
    """A client's connection over a Unix socket."""


class UnixClientTransport(DirectWriteMixin, unix.Client):
    """A connection to a server over a Unix socket."""

    poll_first = True


class UnixConnector(unix.Connector):
    def _makeTransport(self) -> Any:
        return UnixClientTransport(self.address, self, self.reactor, self.checkPID)


def connect(server_address: ServerAddress, factory: Any, reactor: Any) -> Any:
    """
    Begin to connect to `server_address`, whose host is an IP address; the factory, a
    `ClientFactory`, hears of success and failure. Returns the connector, which
    knows no time limit.
    """
    connector: Any
    if isinstance(server_address, UnixAddress):
        connector = UnixConnector(server_address.path, factory, None, reactor, 0)
    else:
        connector = Connector(server_address, factory, TcpClientTransport, reactor)
    connector.connect()
    return connector


def unacked_bytes(transport: Any) -> int:
    """As transports of ours say it; others, of endpoints, do not, and the kernel is asked."""
    ours = getattr(transport, "unacked_bytes", None)
    waiting: int = _send_queue_bytes(transport.fileno()) if ours is None else ours()
    return waiting


def _send_queue_bytes(descriptor: int) -> int:
    """Octets that wait in the kernel for the peer to take them."""
    try:
        waiting = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int.from_bytes(waiting, sys.byteorder)


def set_socket_options(transport: Any) -> None:
    """
    Have a TCP connection send what it has at once, and find out when its peer
    is gone. Ours to clients are that way from the first; for those to servers
    see `enable_keepalive`.
    """
    if not getattr(transport, "options_set", False) and ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)


def enable_keepalive(transport: Any) -> None:
    """
    Have the kernel ask, when a TCP connection is silent for long, whether its
    peer is still there. Connections that last get here; others, the kernel
    would not ask about, and need not spend a system call on it.
    """
    if ITCPTransport.providedBy(transport):
        transport.setTcpKeepAlive(True)


def _twisted_address(sockname: Any) -> address.IPv4Address | address.IPv6Address:
    """An address as sockets give it, in Twisted's words."""
    if len(sockname) == 2:
        return address.IPv4Address("TCP", *sockname)
    return address.IPv6Address("TCP", *sockname)


def peer_ip(peer: object) -> str:
    """The text by which servers hear of a client: its IP address, if it has one."""
    if isinstance(peer, (address.IPv4Address, address.IPv6Address)):
        host = peer.host.partition("%")[0]
        # A dual-stack listener sees IPv4 clients in this form.
        return host[7:] if host.startswith("::ffff:") and "." in host else host
    return "unknown"
