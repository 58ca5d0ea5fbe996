"""
Structural interfaces (PEP 544) between transports, reactors and protocols.

They are checked by mypy only; nothing at run time calls `isinstance` on them,
except on `HasUnackedBytes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure


@runtime_checkable
class HasUnackedBytes(Protocol):
    """A transport that reports how much of its output the peer has acknowledged."""

    def unacked_bytes(self) -> int:
        """0 once the peer has acknowledged everything; changes with every acknowledgement."""


class StreamTransport(HasUnackedBytes, Protocol):
    """
    What protocols of clients and of upstream servers use of a transport.

    Attributes:
        nothing_buffered: the kernel has all output written so far, and the
            connection is not closing. Only on transports of this package.
        eof_truncated: the peer's EOF came without the close_notify alert of TLS, so that what it
            sent last may be cut. Only on transports of this package.
    """

    @property
    def nothing_buffered(self) -> bool: ...

    @property
    def eof_truncated(self) -> bool: ...

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def loseWriteConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def getHost(self) -> Any: ...

    def getPeer(self) -> Any: ...

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def setTcpKeepAlive(self, enabled: bool) -> None: ...


class Selectable(Protocol):
    """
    A file descriptor that can be registered with a `DataReactor`.

    Attributes:
        poll_first: its events are handled before the other events of a batch.
    """

    poll_first: bool

    def fileno(self) -> int: ...

    def connectionLost(self, reason: Failure) -> None: ...


class Reader(Selectable, Protocol):
    """A selectable that reads. `doRead` returns the reason if the connection has ended."""

    def doRead(self) -> Any: ...

    def read_before_eof(self) -> Any:
        """As `doRead`, when a FIN is known to follow the received bytes."""

    def readConnectionLost(self, reason: Failure) -> None: ...


class Writer(Selectable, Protocol):
    """A selectable that writes. `doWrite` returns the reason if the connection has ended."""

    def doWrite(self) -> Any: ...


class ClosingTransport(Reader, Protocol):
    """
    A transport whose close or half-close a `DataReactor` can defer.

    Attributes:
        disconnected: `connectionLost` has been called.
        _aborting: `abortConnection` has been called, which closes it as well.
    """

    disconnected: int
    _aborting: bool

    def shutdown_write(self) -> None: ...


class DataReactor(Protocol):
    """
    The reactor of data connections: `BatchPoller`, or `PlainReactor` without epoll.

    The first six methods are of `IReactorFDSet` and `IReactorTime`, and all that
    Twisted's transports use of a reactor.
    """

    def addReader(self, reader: Reader) -> None: ...

    def addWriter(self, writer: Writer) -> None: ...

    def removeReader(self, reader: Selectable) -> None: ...

    def removeWriter(self, writer: Selectable) -> None: ...

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall: ...

    def seconds(self) -> float: ...

    def pause_reader(self, reader: Reader) -> None:
        """
        Stop reading until `addReader` is called again.

        A reset by the peer is still reported where the platform supports it.
        """

    def transfer_registration(self, writer: Writer, reader: Reader) -> None:
        """Replace `writer`, a connector, by `reader`, the transport of the same descriptor."""

    def defer_disconnect(self, transport: ClosingTransport) -> None:
        """Call `connectionLost` with `ConnectionDone` once the current events are handled."""

    def defer_shutdown(self, transport: ClosingTransport) -> None:
        """Call `shutdown_write`, at the latest once the current events are handled."""

    def call_after_batch(self, function: Callable[[], object]) -> None:
        """Call `function` once the current events are handled: one write for all of them."""

    def forget_fd(self, descriptor: int) -> None:
        """Note that a descriptor has been closed, after its registration was removed."""
