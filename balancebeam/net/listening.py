"""Listening sockets, whose transports write at once."""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.net.transport import TcpServerTransport, UnixServerTransport

# Connections that wait for accept(2). nginx has 511.
BACKLOG = 1024

# Connections that are accepted before others get their turn.
MAX_ACCEPTS_PER_EVENT = 64


class ImmediateCloseMixin:
    """
    Mixed into Twisted's listening ports: in the time between the last look at
    who waits and the end of the socket, others could come, and be reset.
    """

    # A successor may listen with the same socket.
    _shouldShutdown = False

    def loseConnection(self: Any, connDone: Failure = Failure(CONNECTION_DONE)) -> Deferred[None]:
        """Listen no more; who has been accepted by the kernel already is let in."""
        if self.connected:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            # So often and no more: others may come without end.
            for _ in range(BACKLOG):
                if not poll.poll(0):
                    break
                self.doRead()
            self.stopReading()
            self.connectionLost(connDone)
        return succeed(None)

    stopListening = loseConnection


class TcpPort(ImmediateCloseMixin, tcp.Port):
    """A listening socket."""

    transport: Any = TcpServerTransport

    def startListening(self) -> None:
        super().startListening()
        # Connections have from the first what their port has.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def doRead(self) -> None:
        """Accept who waits, some of them at a time."""
        listening, reactor = self.socket, self.reactor
        factory: Any = self.factory
        for _ in range(MAX_ACCEPTS_PER_EVENT):
            try:
                accepted, peer = listening.accept()
            except BlockingIOError:
                return
            except OSError:
                # Twisted knows what to do when there are no descriptors left.
                super().doRead()
                return
            if len(peer) == 4 and peer[3]:
                # An address of a link, which the name of its zone belongs to.
                numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])
            protocol = factory.buildProtocol(self._buildAddr(peer))
            if protocol is None:
                accepted.close()
                continue
            self.sessionno += 1
            transport = self.transport(accepted, protocol, peer, self, self.sessionno, reactor)
            protocol.makeConnection(transport)


class UnixPort(ImmediateCloseMixin, unix.Port):
    """
    A listening socket in the file system, or one that somebody else has
    `inherited_socket`. One that is `keep_path` stays there: others listen with it, too.
    """

    transport = UnixServerTransport
    inherited_socket: socket.socket | None = None
    keep_path = False

    def startListening(self) -> None:
        if self.inherited_socket is None:
            super().startListening()
            return
        factory: Any = self.factory
        factory.doStart()
        self.socket, self.inherited_socket = self.inherited_socket, None
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.numberAccepts = MAX_ACCEPTS_PER_EVENT
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        path = self.getHost().name
        if not self.keep_path and path and not path.startswith(b"\0"):
            # Somebody may have removed it by hand.
            with suppress(OSError):
                os.unlink(path)
        if self.lockFile is not None:
            self.lockFile.unlock()
        tcp.Port.connectionLost(self, reason)


def listen(
    address: TcpAddress | UnixAddress, factory: IProtocolFactory, reactor: Any, mode: int = 0o666
) -> IListeningPort:
    """
    Listen at `address`; a socket in the file system has this `mode`.

    A Unix socket left behind by a process that is gone is replaced. Raises
    `twisted.internet.error.CannotListenError`.
    """
    port: Any
    if isinstance(address, UnixAddress):
        _unlink_stale_socket(address.path)
        port = UnixPort(address.path.encode(), factory, BACKLOG, mode, reactor, 1)
    else:
        interface = "" if address.host == "0.0.0.0" else address.host
        port = TcpPort(address.port, factory, BACKLOG, interface, reactor)
    port.startListening()
    listening: IListeningPort = port
    return listening


def _unlink_stale_socket(path: str) -> None:
    """
    Remove a Unix socket behind which nobody is any more. Twisted does so where
    a lock is left as well, but who inherits a socket has none. Raises `OSError`
    where there is something else, which is left alone.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file that is no socket")
    if os.path.lexists(path + ".lock"):
        return
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def adopt_listening_socket(
    descriptor: int, factory: IProtocolFactory, reactor: Any
) -> IListeningPort:
    """
    Go on listening with a socket that somebody else has opened, and may still
    listen with. Raises `OSError`.
    """
    opened = socket.socket(fileno=descriptor)
    opened.set_inheritable(False)
    opened.setblocking(False)
    port: Any
    if opened.family == socket.AF_UNIX:
        port = UnixPort(os.fsencode(opened.getsockname()), factory, reactor=reactor)
        port.inherited_socket = opened
        port.keep_path = True
    else:
        with opened:
            port = TcpPort._fromListeningDescriptor(reactor, descriptor, opened.family, factory)
    port.startListening()
    listening: IListeningPort = port
    return listening
