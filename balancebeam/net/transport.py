"""
Stream transports that write to the socket at once.

Twisted's `write` appends to a buffer and waits for the poller to report the
socket writable: two system calls and one more iteration of the reactor for bytes
that the kernel nearly always accepts immediately. The transports of this module
try `send(2)` first, and buffer only what the socket does not accept.

They run on a `DataReactor`. Listening sockets are in `listening`, connecting is in
`connector`; `_twisted` lists the private names of Twisted that are used here.
"""

from __future__ import annotations

import fcntl
import socket
import sys
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet import abstract, tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from balancebeam.net.addresses import twisted_address
from balancebeam.net.interfaces import DataReactor, HasUnackedBytes

if TYPE_CHECKING:
    _Base = tcp.Connection
else:
    _Base = object

# Delays a segment until more data or a FIN follows (Linux). 0 where it is missing.
_MSG_MORE = getattr(socket, "MSG_MORE", 0)


class DirectWriteMixin(_Base):
    """
    Mixin for Twisted's stream transports, which are subclasses of `tcp.Connection`.

    Attributes:
        poll_first: see `Selectable`.
        nothing_buffered: the buffer is empty and the connection is not closing, so
            the socket may be written to directly. Maintained by `startWriting`
            and `stopWriting`, which Twisted calls whenever output (bytes or a
            close) becomes pending, and when none is left.
        eof_truncated: a FIN was received where more was due; without TLS, no FIN shows that.
        notify_eof: the protocol has a method `eof_pending`, to be called before
            the last bytes are read (see `read_before_eof`).
        bytes_received: bytes read from the socket by `doRead`; splices add theirs.
        bytes_sent: bytes given to `write`, likewise; some may still be buffered.
        kernel_bytes: bytes moved from the buffer to the kernel since the buffer
            was last found empty by `unacked_bytes`.
    """

    # Twisted declares an `IReactorFDSet`, but its transports use less than that.
    reactor: DataReactor  # type: ignore[assignment]
    poll_first = False
    nothing_buffered = True
    eof_truncated = False
    notify_eof = False
    bytes_received = 0
    bytes_sent = 0
    kernel_bytes = 0
    # A close, half-close or abort has been requested.
    _closing = False
    # `loseWriteConnection` was called, and the socket is not shut down yet.
    _fin_pending = False
    # No other process holds the descriptor, so close(2) ends the connection
    # and Twisted's shutdown(2) before it would be one more system call.
    _shouldShutdown = False

    def write(self, data: bytes) -> None:
        self.bytes_sent += len(data)
        if self.nothing_buffered and self.connected:
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                # `doWrite` will meet and report the same error from the reactor,
                # not in the middle of the caller.
                sent = 0
            if sent == len(data):
                return
            if sent:
                data = data[sent:]
        super().write(data)

    # mypy compares it with the function that `tcp.Connection.abortConnection` assigns.
    def doRead(self) -> ConnectionLost | ConnectionDone | None:  # type: ignore[override]
        try:
            data = self.socket.recv(self.bufferSize)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not data:
            return CONNECTION_DONE
        self.bytes_received += len(data)
        self.protocol.dataReceived(data)
        return None

    def read_before_eof(self) -> ConnectionLost | ConnectionDone | None:
        """As `doRead`, when a FIN is known to follow the received bytes."""
        if self.notify_eof:
            self.protocol.eof_pending()  # type: ignore[attr-defined]  # promised by notify_eof
        return self.doRead()

    def write_more(self, data: bytes) -> None:
        """
        Write `data`, after which more data or, most likely, a FIN follows.

        MSG_MORE lets the FIN travel with the data, which saves a segment.
        """
        if self.nothing_buffered and self.connected and _MSG_MORE:
            try:
                sent = self.socket.send(data, _MSG_MORE)
            except OSError:
                sent = 0
            self.bytes_sent += sent
            if sent == len(data):
                return
            data = data[sent:]
        self.write(data)

    def writeSomeData(self, data: bytes) -> int | ConnectionLost:
        sent = super().writeSomeData(data)
        if isinstance(sent, int):
            self.kernel_bytes += sent
        return sent

    def unacked_bytes(self) -> int:
        """
        Measure the progress of output.

        Returns:
            0 once the peer has acknowledged everything, and a different number
            after every acknowledgement: SIOCOUTQ (the bytes in the kernel's send
            queue), minus the bytes moved there from a buffer that is not empty
            yet. That difference falls only when the peer acknowledges data, and
            is negative once it has acknowledged part of the buffer.
        """
        if self.nothing_buffered:
            self.kernel_bytes = 0
        return _send_queue_bytes(self.fileno()) - self.kernel_bytes

    def call_after_batch(self, function: Callable[[], object]) -> None:
        """See `DataReactor.call_after_batch`."""
        self.reactor.call_after_batch(function)

    def startWriting(self) -> None:
        self.nothing_buffered = False
        super().startWriting()

    def stopWriting(self) -> None:
        super().stopWriting()
        self.nothing_buffered = not self._closing

    def loseConnection(self) -> None:
        flushed = self.nothing_buffered or self._writeDisconnected
        at_once = flushed and self.connected and self.producer is None
        self._closing = True
        self._fin_pending = False
        self.nothing_buffered = False
        if at_once:
            self.disconnecting = 1
            self.stopReading()
            self.reactor.defer_disconnect(self)
        else:
            super().loseConnection()

    def loseWriteConnection(self) -> None:
        at_once = self.nothing_buffered and self.connected
        self._closing = True
        self.nothing_buffered = False
        if at_once:
            self._writeDisconnecting = self._writeDisconnected = self._fin_pending = True
            self.reactor.defer_shutdown(self)
        else:
            super().loseWriteConnection()

    def shutdown_write(self) -> None:
        """Send the pending FIN, unless the connection was closed or aborted meanwhile."""
        if self._fin_pending and self.connected and not self._aborting:
            self._fin_pending = False
            self._closeWriteConnection()

    def _closeSocket(self, orderly: bool) -> None:
        descriptor = self.fileno()
        super()._closeSocket(orderly)
        self.reactor.forget_fd(descriptor)

    def abortConnection(self) -> None:
        self._closing = True
        self.nothing_buffered = False
        super().abortConnection()

    def startTLS(self, *arguments: Any, **keywords: Any) -> None:
        self._closing = True
        self.nothing_buffered = False
        super().startTLS(*arguments, **keywords)


class TcpServerTransport(DirectWriteMixin, tcp.Server):
    """
    A client connection over TCP.

    Args:
        accepted: the connected socket.
        protocol: the protocol of the connection.
        peer: the client's address, as `accept()` returns it.
        port: the listening port.
        number: the ordinal number of the connection at `port`.
        reactor: the reactor of data connections.
    """

    def __init__(
        self,
        accepted: socket.socket,
        protocol: Any,
        peer: tuple[Any, ...],
        port: tcp.Port,
        number: int,
        reactor: DataReactor,
    ) -> None:
        # Not `tcp.Server.__init__`, which formats two texts for logs and `repr` for
        # every connection.
        tcp.Connection.__init__(self, accepted, protocol, reactor)  # type: ignore[arg-type]
        if len(peer) != 2:
            self._addressType = IPv6Address
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
        # `pause_reader` still reports a reset by the client, so that its request is
        # dropped. A server that resets may have sent data before, which is
        # read first; so upstream transports use Twisted's `pauseProducing`.
        self.reactor.pause_reader(self)


class TcpClientTransport(DirectWriteMixin, tcp.Connection):
    """A connection to an upstream server over TCP, made of a connected socket."""

    poll_first = True

    def __init__(self, connected: socket.socket, reactor: DataReactor) -> None:
        # As `tcp.Connection.__init__`, without setting O_NONBLOCK once more.
        abstract.FileDescriptor.__init__(self, reactor)  # type: ignore[arg-type]
        self.socket = connected
        self.fileno = connected.fileno
        self.connected = 1
        self.logstr = "balancebeam"

    def getHost(self) -> IPv4Address | IPv6Address:
        return twisted_address(self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address:
        return twisted_address(self.socket.getpeername())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):x}>"


class UnixServerTransport(DirectWriteMixin, unix.Server):
    """A client connection over a Unix socket."""


class UnixClientTransport(DirectWriteMixin, unix.Client):
    """A connection to an upstream server over a Unix socket."""

    poll_first = True


def unacked_bytes(transport: Any) -> int:
    """
    Measure the progress of output of any transport.

    Of transports of Twisted endpoints, which have no such method, the kernel's send
    queue alone is counted.
    """
    if isinstance(transport, HasUnackedBytes):
        return transport.unacked_bytes()
    return _send_queue_bytes(transport.fileno())


def batch_scheduler(transport: Any) -> Callable[[Callable[[], object]], object]:
    """
    Return the function that defers a call to the end of the current batch of events.

    For a transport of a Twisted endpoint, that is the next iteration of its reactor. A transport
    without a reactor, as a transport in memory, gets the call at once.
    """
    if hasattr(transport, "call_after_batch"):
        scheduler: Callable[[Callable[[], object]], object] = transport.call_after_batch
        return scheduler
    reactor = getattr(transport, "reactor", None)
    if reactor is None:
        return lambda function: function()
    return lambda function: reactor.callLater(0, function)


def _send_queue_bytes(descriptor: int) -> int:
    """Return the bytes in the send queue of a socket (SIOCOUTQ, tcp(7)); 0 if unknown."""
    try:
        queued = fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        return 0
    return int.from_bytes(queued, sys.byteorder)
