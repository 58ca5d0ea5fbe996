"""A protocol that forwards bytes unchanged between two connections."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.socket_options import set_socket_options
from balancebeam.net.splice import SplicePipe, can_splice
from balancebeam.net.transport import DirectWriteMixin, unacked_bytes

log = Logger()

# A flow is spliced after `MIN_LARGE_READS` reads in a row of at least `LARGE_READ`
# bytes: half a megabyte, so that only long transfers pay for a pipe.
LARGE_READ = 16 * 1024
MIN_LARGE_READS = 32


def is_clean_close(reason: Failure) -> bool:
    """Whether a connection was closed, not reset or aborted."""
    # Nearly always the first test decides: `check` compares names of classes.
    return reason is connectionDone or reason.check(ConnectionDone) is not None


@implementer(IHalfCloseableProtocol, IPushProducer)
class Relay(Protocol):
    """
    One end of a relay: forwards received bytes to the connection of `peer`.

    Backpressure, half-closes and closes are propagated in both directions. Long flows are
    spliced (see `SplicePipe`).

    Attributes:
        peer: the other end, from `connect_peer` until this connection is closed.
        bytes_received: bytes received so far.
        read_closed: the remote side has sent a FIN.
        closing: the connection is closed, or is about to be.
        aborted: `abort` was called.
    """

    transport: StreamTransport  # type: ignore[assignment]  # ITransport in Twisted's Protocol

    def __init__(self) -> None:
        self.peer: Relay | None = None
        self.bytes_received = 0
        self.read_closed = False
        self.closing = False
        self.aborted = False
        # `peer.transport.write`. To keep it saves 25 of 95 ns per read over looking it
        # up through `peer` (CPython 3.11).
        self._write_to_peer: Callable[[bytes], object] | None = None
        # See `notify_first_read`; `None` after the first read.
        self._on_first_read: Callable[[], object] | None = None
        self._last_unacked_bytes: int | None = None
        self._stalled_since = 0.0
        # In a row; see `MIN_LARGE_READS`.
        self._large_reads = 0
        self._splice: SplicePipe | None = None

    def connect_peer(self, peer: Relay) -> None:
        """Forward received bytes to `peer`, and vice versa."""
        self.peer, peer.peer = peer, self
        for source, target in ((self, peer), (peer, self)):
            source._write_to_peer = target.transport.write
            if isinstance(source.transport, DirectWriteMixin):
                source.transport.notify_eof = True

    def preread(self, data: bytes) -> None:
        """Handle bytes received before `connect_peer`. They are dropped here."""

    # IProtocol

    def connectionMade(self) -> None:
        set_socket_options(self.transport)
        self.transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        size = len(data)
        self.bytes_received += size
        write = self._write_to_peer
        if write is not None:
            write(data)
        else:
            self.preread(data)
        if size < LARGE_READ:
            self._large_reads = 0
        else:
            self._large_reads += 1
            if self._large_reads >= MIN_LARGE_READS:
                self._start_splice()

    def notify_first_read(self, callback: Callable[[], object]) -> None:
        """Call `callback` when the first bytes are forwarded to `peer`."""
        self._on_first_read = callback
        if self._write_to_peer is not None:
            self._forward_with(self._write_to_peer)

    def _forward_with(self, write: Callable[[bytes], object]) -> None:
        """Forward with `write` from now on, after the callback for the first bytes."""
        callback = self._on_first_read
        if callback is None:
            self._write_to_peer = write
            return

        def forward_first(data: bytes) -> None:
            self._on_first_read = None
            self._write_to_peer = write
            callback()
            write(data)

        self._write_to_peer = forward_first

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        self._stop_splice()
        peer, self.peer = self.peer, None
        if peer is not None:
            peer._stop_splice()
            # Breaks the reference cycle of the two ends: what is left to the garbage
            # collector costs more than the rest of a short connection.
            self._write_to_peer = self._on_first_read = None

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        self.read_closed = True
        peer = self.peer
        if peer is not None:
            peer.half_close()
            if peer.read_closed:
                # FINs were received on both connections.
                self.close()

    def writeConnectionLost(self) -> None:
        """Do nothing: the FIN of the other side has been sent."""

    # IPushProducer

    def pauseProducing(self) -> None:
        if self.peer is not None:
            self.peer.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self.peer is not None and not self.peer.closing and not self.peer.read_closed:
            self.peer.transport.resumeProducing()

    def stopProducing(self) -> None:
        """Do nothing: `connectionLost` follows."""

    # Splicing

    def eof_pending(self) -> None:
        """Prepare for the last bytes before a FIN (see `DirectWriteMixin.notify_eof`)."""
        if self.peer is not None:
            target = self.peer.transport
            if isinstance(target, DirectWriteMixin):
                self._forward_with(target.write_more)

    def _start_splice(self) -> None:
        """Replace reads and writes by a pipe, if both transports allow it."""
        self._large_reads = 0
        peer = self.peer
        if peer is None or self.closing or peer.closing or self.read_closed:
            return
        if can_splice(self.transport, peer.transport):
            try:
                self._splice = SplicePipe(
                    self.transport, peer.transport, self._count_bytes, self._stop_splice
                )
            except OSError as failure:
                log.debug("{relay} not spliced: {reason}", relay=self, reason=failure)

    def _count_bytes(self, count: int) -> None:
        self.bytes_received += count

    def _stop_splice(self) -> None:
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.close()

    # Closing

    def half_close(self) -> None:
        """Send a FIN: the peer's connection has received one. Close if both have."""
        if self.read_closed:
            self.close()
        elif not self.closing:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def close(self) -> None:
        """Close the connection once its output is flushed."""
        if not self.closing:
            self.closing = True
            self.transport.unregisterProducer()
            self.transport.loseConnection()

    def abort(self) -> None:
        """Close the connection at once, with a reset if it is TCP."""
        self.closing = True
        if not self.aborted:
            self.aborted = True
            self.transport.abortConnection()

    def abort_if_stalled(self, now: float, timeout: float) -> None:
        """
        Abort a closing connection whose remote side acknowledges nothing.

        Args:
            now: the time of the current sweep, in seconds.
            timeout: seconds without an acknowledgement after which it is aborted.
        """
        if not self.closing or self.aborted:
            return
        unacked = unacked_bytes(self.transport)
        if unacked != self._last_unacked_bytes:
            self._last_unacked_bytes = unacked
            self._stalled_since = now
        elif now - self._stalled_since >= timeout:
            self.abort()
