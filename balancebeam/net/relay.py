"""One end of a connection through which bytes pass as they are."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.splice import SplicePipe, can_splice
from balancebeam.net.transport import set_socket_options, unacked_bytes

log = Logger()

# Reads of so many octets, so many in a row, make a flow one that is better
# spliced: about half a megabyte at once.
LARGE_READ = 16 * 1024
MIN_LARGE_READS = 32


def is_clean_close(reason: Failure) -> bool:
    """Whether a connection ended with all said, for this `reason`."""
    # Nearly always it is this one, and `check` looks at names.
    return reason is connectionDone or reason.check(ConnectionDone) is not None


@implementer(IHalfCloseableProtocol, IPushProducer)
class Relay(Protocol):
    """
    Passes what comes on to the `peer` end, and is paused while that takes no more.

    `bytes_received` counts what came. `read_closed` means that its peer sends no more.
    """

    transport: StreamTransport  # type: ignore[assignment]

    def __init__(self) -> None:
        self.peer: Relay | None = None
        self.bytes_received = 0
        self.read_closed = False
        self.closing = False
        self.aborted = False
        self._last_unacked_bytes: int | None = None
        self._stalled_since = 0.0
        # Large reads in a row.
        self._large_reads = 0
        self._splice: SplicePipe | None = None

    def forward(self, data: bytes) -> None:
        """Something has come while there is no other end: nobody is there to hear it."""

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)

    def connect_peer(self, peer: Relay) -> None:
        """From here on what comes goes to `peer`, and the other way round."""
        self.peer, peer.peer = peer, self
        # Where bytes go; looked up once and not for each of them.
        self.forward = peer.transport.write  # type: ignore[method-assign]
        peer.forward = self.transport.write  # type: ignore[method-assign]

    # What the transport does with it.

    def dataReceived(self, data: bytes) -> None:
        octets = len(data)
        self.bytes_received += octets
        self.forward(data)
        if octets < LARGE_READ:
            self._large_reads = 0
        else:
            self._large_reads += 1
            if self._large_reads >= MIN_LARGE_READS:
                self._start_splice()

    def eof_pending(self) -> None:
        """The peer has ended; what it said before is still to come."""
        if self.peer is not None:
            target = self.peer.transport
            self.forward = getattr(target, "write_more", target.write)  # type: ignore[method-assign]

    def _start_splice(self) -> None:
        """From here on bytes take the way past this process, if there is one."""
        self._large_reads = 0
        other = self.peer
        if other is None or self.closing or other.closing or self.read_closed:
            return
        if can_splice(self.transport, other.transport):
            try:
                self._splice = SplicePipe(
                    self.transport, other.transport, self._count_bytes, self._stop_splice
                )
            except OSError as failure:
                log.debug("no pipe for {relay}: {reason}", relay=self, reason=failure)

    def _count_bytes(self, count: int) -> None:
        self.bytes_received += count

    def _stop_splice(self) -> None:
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.close()

    def readConnectionLost(self) -> None:
        self.read_closed = True
        other = self.peer
        if other is not None:
            other.half_close()
            if other.read_closed:
                # Both have said all they had to say.
                self.close()

    def writeConnectionLost(self) -> None:
        """The other end has said all, and it is out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        self._stop_splice()
        other, self.peer = self.peer, None
        if other is not None:
            other._stop_splice()
            # What goes round in circles has to wait for the garbage collector,
            # which would have more to do than all the rest.
            del self.forward

    def pauseProducing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self.peer is not None and not self.peer.closing and not self.peer.read_closed:
            self.peer.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is going away, which `connectionLost` deals with."""

    # Ends.

    def half_close(self) -> None:
        """The other end sends no more; with what its own peer sends it goes on."""
        if self.read_closed:
            self.close()
        elif not self.closing:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close when all that was written is out."""
        if not self.closing:
            self.closing = True
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close at once, in a way that the peer can tell from a regular end."""
        self.closing = True
        if not self.aborted:
            self.aborted = True
            self.transport.abortConnection()

    def abort_if_stalled(self, now: float, timeout: float) -> None:
        """Wait no longer for a peer that takes nothing of the last for `timeout` seconds."""
        if not self.closing or self.aborted:
            return
        left = unacked_bytes(self.transport)
        if left != self._last_unacked_bytes:
            self._last_unacked_bytes = left
            self._stalled_since = now
        elif now - self._stalled_since >= timeout:
            self.abort()
