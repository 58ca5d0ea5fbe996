"""A stream transport that is layered on another one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from balancebeam.net.transport import batch_scheduler, unacked_bytes


class TransportWrapper:
    """
    Base class of transports that change the bytes, and delegate everything else.

    They are the protocol of the transport below.

    Attributes:
        lower: The transport below.
    """

    __slots__ = ("lower",)

    def __init__(self, lower: Any) -> None:
        self.lower = lower

    # IProtocol

    def makeConnection(self, transport: Any) -> None:
        """Do nothing: the transport below was given to the constructor."""

    def connectionMade(self) -> None:
        """Do nothing: the transport below was connected before."""

    def logPrefix(self) -> str:
        return "balancebeam"

    # StreamTransport

    @property
    def nothing_buffered(self) -> bool:
        """The kernel has all output written so far, and the connection is not closing."""
        flushed: bool = self.lower.nothing_buffered
        return flushed

    def is_flushed(self) -> bool:
        """As `nothing_buffered`, which transports of Twisted endpoints do not have: true there."""
        return bool(getattr(self.lower, "nothing_buffered", True))

    @property
    def bytes_received(self) -> int:
        """Bytes received by the transport below."""
        return getattr(self.lower, "bytes_received", 0)

    @property
    def bytes_sent(self) -> int:
        """Bytes written to the transport below."""
        return getattr(self.lower, "bytes_sent", 0)

    def unacked_bytes(self) -> int:
        """See `HasUnackedBytes`; counts the bytes of the transport below."""
        return unacked_bytes(self.lower)

    def call_after_batch(self, function: Callable[[], object]) -> None:
        """See `DataReactor.call_after_batch`."""
        batch_scheduler(self.lower)(function)

    def pauseProducing(self) -> None:
        self.lower.pauseProducing()

    def resumeProducing(self) -> None:
        self.lower.resumeProducing()

    def getHost(self) -> Any:
        return self.lower.getHost()

    def getPeer(self) -> Any:
        return self.lower.getPeer()

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.lower.setTcpNoDelay(enabled)

    def setTcpKeepAlive(self, enabled: bool) -> None:
        self.lower.setTcpKeepAlive(enabled)
