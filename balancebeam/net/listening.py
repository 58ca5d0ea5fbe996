"""
Listening sockets on TCP and Unix addresses.

Connections accepted here get the transports of `balancebeam.net.transport`. Sockets are
created by `listen`, or taken over from another process by `adopt_listening_socket`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE
from twisted.logger import Logger
from twisted.python.failure import Failure

from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.net.descriptors import (
    RETRY_INTERVAL,
    SHORTAGE_ERRORS,
    accept_limit,
    can_accept,
    shortage_log,
)
from balancebeam.net.interfaces import DataReactor
from balancebeam.net.transport import TcpServerTransport, UnixServerTransport

if TYPE_CHECKING:
    _Base = tcp.Port
else:
    _Base = object

# Connections that the kernel queues for accept(2), if net.core.somaxconn allows it
# (4096 since Linux 5.4). nginx uses 511.
BACKLOG = 1024

# Connections accepted per event, so that a burst does not delay established
# connections. HAProxy's former default (tune.maxaccept); Twisted accepts 100.
MAX_ACCEPTS_PER_EVENT = 64


class ImmediateCloseMixin(_Base):
    """
    Mixin for Twisted's listening ports that accepts, pauses, and closes without losing connections.

    Twisted closes a port in a later iteration of the reactor, and the kernel
    resets connections that were queued in between.

    Clients wait in the listen queue while accepting is paused: between `pause_accepting`
    and `resume_accepting`, and while descriptors are short (see `descriptors`).

    Attributes:
        poll_first: see `Selectable`.
        accepting: not paused by `pause_accepting`.
    """

    poll_first = False
    accepting = True
    _log = Logger()
    # Runs while descriptors are short.
    _descriptor_retry: IDelayedCall | None = None
    _accept_limit = 0
    # shutdown(2) would stop the socket in a new process that shares it.
    _shouldShutdown = False

    def read_before_eof(self) -> None:
        """As `doRead`: a listening socket has no EOF."""
        self.doRead()

    def doRead(self) -> None:
        """Accept up to `MAX_ACCEPTS_PER_EVENT` connections."""
        listening = self.socket
        accept_limit = self._accept_limit or self._read_accept_limit()
        for _ in range(MAX_ACCEPTS_PER_EVENT):
            try:
                accepted, peer = listening.accept()
            except BlockingIOError:
                return
            except OSError as failure:
                if failure.errno in SHORTAGE_ERRORS:
                    self._wait_for_descriptors()
                else:
                    # The client has gone, or a firewall rejected it (accept(2)).
                    self._log.info("connection not accepted: {reason}", reason=failure)
                return
            number = accepted.fileno()
            self._connect_client(accepted, peer)
            if number >= accept_limit:
                self._wait_for_descriptors()
                return
            if not self.accepting:
                return

    def _connect_client(self, accepted: socket.socket, peer: Any) -> None:
        """Build protocol and transport of an accepted connection; a failure closes only that."""
        transport: Any = None
        factory: Any = self.factory
        try:
            if len(peer) == 4 and isinstance(peer, tuple) and peer[3]:
                # A link-local address: replace the number of the zone by its name.
                numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                peer = (socket.getnameinfo(peer, numeric)[0], *peer[1:])
            protocol = factory.buildProtocol(self._buildAddr(peer))
            if protocol is None:
                accepted.close()
                return
            self.sessionno += 1
            reactor: Any = self.reactor
            transport = self.transport(accepted, protocol, peer, self, self.sessionno, reactor)
            protocol.makeConnection(transport)
        except Exception:
            self._log.failure("accepted connection of {port} failed; closing it", port=self)
            if transport is None:
                accepted.close()
            else:
                transport.abortConnection()

    def pause_accepting(self) -> None:
        """Leave clients in the listen queue until `resume_accepting`."""
        self.accepting = False
        self.stopReading()

    def resume_accepting(self) -> None:
        """Accept clients again, unless descriptors are short."""
        self.accepting = True
        if self.connected and self._descriptor_retry is None:
            self.startReading()

    def _read_accept_limit(self) -> int:
        self._accept_limit = accept_limit()
        return self._accept_limit

    def _wait_for_descriptors(self) -> None:
        """Pause until descriptors are free, which is tested periodically."""
        reactor: Any = self.reactor
        self.stopReading()
        if self._descriptor_retry is None:
            shortage_log.report(reactor.seconds(), "no connections are accepted")
        self._descriptor_retry = reactor.callLater(RETRY_INTERVAL, self._test_descriptors)

    def _test_descriptors(self) -> None:
        if not can_accept(self.fileno()):
            self._wait_for_descriptors()
            return
        self._descriptor_retry = None
        if self.accepting:
            self.startReading()

    def _stop_waiting(self) -> None:
        """Stop to wait for descriptors: the port is closed."""
        retry, self._descriptor_retry = self._descriptor_retry, None
        if retry is not None:
            retry.cancel()

    def connectionLost(self, reason: Failure) -> None:
        self._stop_waiting()
        super().connectionLost(reason)

    def loseConnection(self, connDone: Failure = Failure(CONNECTION_DONE)) -> Deferred[None]:
        """
        Accept the connections that the kernel has queued, then close the socket.

        While accepting is paused none are accepted: their number is limited.
        """
        if self.connected:
            poll = select.poll()
            poll.register(self.fileno(), select.POLLIN)
            # Bounded by the length of the queue: clients may connect without end.
            for _ in range(BACKLOG):
                if not self.accepting or self._descriptor_retry is not None or not poll.poll(0):
                    break
                self.doRead()
            self.stopReading()
            self.connectionLost(connDone)
        return succeed(None)

    stopListening = loseConnection


class TcpPort(ImmediateCloseMixin, tcp.Port):
    """A listening TCP socket."""

    transport: Any = TcpServerTransport

    def startListening(self) -> None:
        super().startListening()
        # Accepted sockets inherit both options, which saves two calls for each.
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class UnixPort(ImmediateCloseMixin, unix.Port):
    """
    A listening Unix socket.

    Attributes:
        inherited_socket: a listening socket of another process to use instead of
            a new one.
        keep_path: do not unlink the socket file on close, because another
            process uses it too.
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
        # As `unix.Port.startListening` does: the bound method of the socket costs 30 ns
        # less per call (CPython 3.11) than a method that delegates to it.
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.connected = True
        self.startReading()

    def connectionLost(self, reason: Failure) -> None:
        path = self.getHost().name
        if not self.keep_path and path and not path.startswith(b"\0"):
            # It may have been removed by hand.
            with suppress(OSError):
                os.unlink(path)
        if self.lockFile is not None:
            self.lockFile.unlock()
        # Not `unix.Port.connectionLost`, which unlinks unconditionally.
        self._stop_waiting()
        tcp.Port.connectionLost(self, reason)


def listen(
    address: TcpAddress | UnixAddress,
    factory: IProtocolFactory,
    reactor: DataReactor,
    mode: int = 0o666,
) -> IListeningPort:
    """
    Create a listening socket.

    A socket file left behind by a process that has exited is replaced.

    Args:
        address: where to listen. The host is an IP address or a name.
        factory: makes the protocols of accepted connections.
        reactor: the reactor of data connections.
        mode: permissions of a socket file.

    Raises:
        CannotListenError: the address is in use or cannot be bound.
        OSError: the path of a Unix socket is taken by another kind of file.
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
    Remove a socket file on which no process listens.

    Twisted does so too, but finds out by a lock file, which a process that has
    inherited its socket does not have.

    Raises:
        OSError: there is a file of another kind, which is kept.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "a file exists that is not a socket")
    if os.path.lexists(path + ".lock"):
        return
    with socket.socket(socket.AF_UNIX) as client, suppress(OSError):
        client.setblocking(False)
        try:
            client.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)


def adopt_listening_socket(
    descriptor: int, factory: IProtocolFactory, reactor: DataReactor
) -> IListeningPort:
    """
    Listen with a socket that another process has bound, and may still use.

    Args:
        descriptor: a listening socket (TCP or Unix), owned by the port afterwards.
        factory: makes the protocols of accepted connections.
        reactor: the reactor of data connections.

    Raises:
        OSError: the descriptor is not a socket.
    """
    listening = socket.socket(fileno=descriptor)
    listening.set_inheritable(False)
    listening.setblocking(False)
    port: Any
    if listening.family == socket.AF_UNIX:
        port = UnixPort(os.fsencode(listening.getsockname()), factory, reactor=reactor)
        port.inherited_socket = listening
        port.keep_path = True
    else:
        # `_fromListeningDescriptor` duplicates the descriptor.
        with listening:
            port = TcpPort._fromListeningDescriptor(reactor, descriptor, listening.family, factory)
    port.startListening()
    adopted: IListeningPort = port
    return adopted
