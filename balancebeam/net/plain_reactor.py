"""A `DataReactor` for platforms without epoll, on top of Twisted's reactor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone

from balancebeam.net.interfaces import ClosingTransport, Reader, Selectable, Writer


class PlainReactor:
    """
    Registers data connections with `reactor` itself.

    Args:
        reactor: a provider of `IReactorFDSet` and `IReactorTime`.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    def addReader(self, reader: Reader) -> None:
        self._reactor.addReader(reader)

    def addWriter(self, writer: Writer) -> None:
        self._reactor.addWriter(writer)

    def removeReader(self, reader: Selectable) -> None:
        self._reactor.removeReader(reader)

    def removeWriter(self, writer: Selectable) -> None:
        self._reactor.removeWriter(writer)

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        delayed: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return delayed

    def seconds(self) -> float:
        seconds: float = self._reactor.seconds()
        return seconds

    def pause_reader(self, reader: Reader) -> None:
        """Stop reading; a reset is noticed only when reading resumes, or by a write."""
        self._reactor.removeReader(reader)

    def transfer_registration(self, writer: Writer, reader: Reader) -> None:
        """Remove the connector `writer` and add its transport `reader`."""
        self._reactor.removeWriter(writer)
        self._reactor.addReader(reader)

    def defer_disconnect(self, transport: ClosingTransport) -> None:
        """Close the transport in the next iteration of the reactor."""
        self._reactor.callLater(0, self._disconnect, transport)

    def defer_shutdown(self, transport: ClosingTransport) -> None:
        """Half-close the transport at once: without batches there is nothing to gain."""
        transport.shutdown_write()

    def call_after_batch(self, function: Callable[[], object]) -> None:
        """Call `function` in the next iteration of the reactor."""
        self._reactor.callLater(0, function)

    def forget_fd(self, descriptor: int) -> None:
        """Do nothing: Twisted's reactors find descriptors by their selectable."""

    def _disconnect(self, transport: ClosingTransport) -> None:
        # `abortConnection` has scheduled its own `connectionLost`.
        if not transport.disconnected and not transport._aborting:
            self._reactor.removeReader(transport)
            self._reactor.removeWriter(transport)
            transport.connectionLost(connectionDone)
