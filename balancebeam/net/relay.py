"""One end of a connection through which bytes pass as they are."""

from __future__ import annotations

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.net.interfaces import StreamTransport
from balancebeam.net.splice import Splice, can_splice
from balancebeam.net.transport import outstanding, tune

log = Logger()

# Reads of so many octets, so many in a row, make a flow one that is better
# spliced: about half a megabyte at once.
LARGE = 16 * 1024
LARGE_IN_ROW = 32


def is_orderly(reason: Failure) -> bool:
    """Whether a connection ended with all said, for this `reason`."""
    # Nearly always it is this one, and `check` looks at names.
    return reason is connectionDone or reason.check(ConnectionDone) is not None


@implementer(IHalfCloseableProtocol, IPushProducer)
class Link(Protocol):
    """
    Passes what comes on to the `other` end, and is paused while that takes no more.

    `octets` counts what came. `over` means that its peer sends no more.
    """

    transport: StreamTransport  # type: ignore[assignment]

    def __init__(self) -> None:
        self.other: Link | None = None
        self.octets = 0
        self.over = False
        self.closing = False
        self.aborted = False
        self._outstanding: int | None = None
        self._stuck_since = 0.0
        # Large reads in a row.
        self._large = 0
        self._splice: Splice | None = None

    def pass_on(self, data: bytes) -> None:
        """Something has come while there is no other end: nobody is there to hear it."""

    def connectionMade(self) -> None:
        tune(self.transport)
        self.transport.registerProducer(self, True)

    def join(self, other: Link) -> None:
        """From here on what comes goes to `other`, and the other way round."""
        self.other, other.other = other, self
        # Where bytes go; looked up once and not for each of them.
        self.pass_on = other.transport.write  # type: ignore[method-assign]
        other.pass_on = self.transport.write  # type: ignore[method-assign]

    # What the transport does with it.

    def dataReceived(self, data: bytes) -> None:
        octets = len(data)
        self.octets += octets
        self.pass_on(data)
        if octets < LARGE:
            self._large = 0
        else:
            self._large += 1
            if self._large >= LARGE_IN_ROW:
                self._begin_splice()

    def expect_end(self) -> None:
        """The peer has ended; what it said before is still to come."""
        if self.other is not None:
            target = self.other.transport
            self.pass_on = getattr(target, "write_last", target.write)  # type: ignore[method-assign]

    def _begin_splice(self) -> None:
        """From here on bytes take the way past this process, if there is one."""
        self._large = 0
        other = self.other
        if other is None or self.closing or other.closing or self.over:
            return
        if can_splice(self.transport, other.transport):
            try:
                self._splice = Splice(
                    self.transport, other.transport, self._count, self._end_splice
                )
            except OSError as failure:
                log.debug("no pipe for {link}: {why}", link=self, why=failure)

    def _count(self, octets: int) -> None:
        self.octets += octets

    def _end_splice(self) -> None:
        splice, self._splice = self._splice, None
        if splice is not None:
            splice.close()

    def readConnectionLost(self) -> None:
        self.over = True
        other = self.other
        if other is not None:
            other.end()
            if other.over:
                # Both have said all they had to say.
                self.close()

    def writeConnectionLost(self) -> None:
        """The other end has said all, and it is out."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closing = True
        self._end_splice()
        other, self.other = self.other, None
        if other is not None:
            other._end_splice()
            # What goes round in circles has to wait for the garbage collector,
            # which would have more to do than all the rest.
            del self.pass_on

    def pauseProducing(self) -> None:
        if self.other is not None:
            self.other.transport.pauseProducing()

    def resumeProducing(self) -> None:
        if self.other is not None and not self.other.closing and not self.other.over:
            self.other.transport.resumeProducing()

    def stopProducing(self) -> None:
        """The transport is going away, which `connectionLost` deals with."""

    # Ends.

    def end(self) -> None:
        """The other end sends no more; with what its own peer sends it goes on."""
        if self.over:
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

    def abort_if_stuck(self, now: float, limit: float) -> None:
        """Wait no longer for a peer that takes nothing of the last for `limit` seconds."""
        if not self.closing or self.aborted:
            return
        left = outstanding(self.transport)
        if left != self._outstanding:
            self._outstanding = left
            self._stuck_since = now
        elif now - self._stuck_since >= limit:
            self.abort()
