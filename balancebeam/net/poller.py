"""
An epoll instance for data connections, which handles events in batches.

Twisted's reactor wraps each event of each connection in a log context, which
takes a fifth of the time of a small request. An epoll instance can itself be
polled, so data connections are registered with one of their own, and that one
is a single reader of Twisted's reactor: one log context per batch.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.net.epoll_events import READ_EVENTS, dispatch_event
from balancebeam.net.interfaces import (
    ClosingTransport,
    DataReactor,
    Reader,
    Selectable,
    Writer,
)
from balancebeam.net.plain_reactor import PlainReactor

# Events per batch; timers and other readers of the reactor wait until it is handled.
# HAProxy fetches 200 events at a time (tune.maxpollevents), nginx 512 (epoll_events).
MAX_EVENTS = 256


def build_data_reactor(reactor: Any) -> DataReactor:
    """
    Return the reactor for data connections.

    Args:
        reactor: Twisted's reactor.

    Returns:
        A `BatchPoller` in front of `reactor`, or a `PlainReactor` where the platform
        has no epoll.
    """
    return BatchPoller(reactor) if hasattr(select, "epoll") else PlainReactor(reactor)


@implementer(IReactorFDSet, IReadDescriptor)
class BatchPoller:
    """
    The reactor of data connections (see `DataReactor`), level-triggered like Twisted's.

    It is registered with `reactor` only while it has registrations itself, so
    nothing is left behind when the last connection is closed.

    Args:
        reactor: Twisted's reactor, for timers and for the epoll descriptor.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        # By descriptor: a `Reader`, a `Writer` or both, depending on `_masks`.
        self._selectables: dict[int, Any] = {}
        # By descriptor: the events it is registered for; 0 while paused.
        self._masks: dict[int, int] = {}
        # Descriptors whose registration was reduced or replaced during the current
        # batch. The remaining events of the batch are out of date for them (the
        # kernel may have reused the number), and are reported again if still true.
        self._stale_fds: set[int] = set()
        # Descriptors of selectables with `poll_first`.
        self._priority_fds: set[int] = set()
        # Descriptors registered by `pause_reader`.
        self._paused_fds: set[int] = set()
        # Descriptors removed during the current batch that epoll still has. Most
        # are closed before the batch ends, which removes them as well, so that
        # the call of epoll_ctl(2) is saved.
        self._pending_unregister: set[int] = set()
        # Transports to be closed, and to be half-closed, at the end of the batch.
        self._pending_disconnects: list[ClosingTransport] = []
        self._pending_shutdowns: list[ClosingTransport] = []
        # Called at the end of the batch, before transports are closed.
        self._pending_calls: list[Callable[[], object]] = []
        self._dispatching = False

    # IReactorTime

    def callLater(
        self, delay: float, callable: Callable[..., object], *args: object, **kwargs: object
    ) -> IDelayedCall:
        delayed: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kwargs)
        return delayed

    def seconds(self) -> float:
        seconds: float = self._reactor.seconds()
        return seconds

    # IReactorFDSet, for selectables of this package: hence the narrower types

    def addReader(self, reader: Reader) -> None:  # type: ignore[override]
        self._add(reader, READ_EVENTS)

    def addWriter(self, writer: Writer) -> None:  # type: ignore[override]
        self._add(writer, select.EPOLLOUT)

    def removeReader(self, reader: Selectable) -> None:  # type: ignore[override]
        if self._paused_fds:
            descriptor = reader.fileno()
            if descriptor in self._paused_fds and self._selectables[descriptor] is reader:
                self._paused_fds.discard(descriptor)
                self._stale_fds.add(descriptor)
                if not self._masks[descriptor]:
                    self._drop_registration(descriptor)
                return
        self._remove(reader, READ_EVENTS)

    def removeWriter(self, writer: Selectable) -> None:  # type: ignore[override]
        self._remove(writer, select.EPOLLOUT)

    def getReaders(self) -> list[Any]:
        return self._registered(select.EPOLLIN)

    def getWriters(self) -> list[Any]:
        return self._registered(select.EPOLLOUT)

    def removeAll(self) -> list[Any]:
        selectables = list(self._selectables.values())
        self._selectables.clear()
        self._masks.clear()
        self._priority_fds.clear()
        self._paused_fds.clear()
        if self._epoll is not None:
            self._close()
        return selectables

    # Extensions (DataReactor)

    def pause_reader(self, reader: Reader) -> None:
        """
        Stop reading until `addReader` is called again.

        If the peer resets the connection meanwhile, `connectionLost` of `reader` is
        called. After `removeReader` nothing is reported any more.
        """
        descriptor = reader.fileno()
        if self._selectables.get(descriptor) is reader:
            self._paused_fds.add(descriptor)
            self._remove(reader, READ_EVENTS)

    def transfer_registration(self, writer: Writer, reader: Reader) -> None:
        """
        Replace `writer`, a connector, by `reader`, the transport of the same descriptor.

        One epoll_ctl(2) instead of two.
        """
        descriptor = writer.fileno() if writer.fileno() >= 0 else reader.fileno()
        assert self._epoll is not None
        self._epoll.modify(descriptor, READ_EVENTS)
        self._masks[descriptor] = READ_EVENTS
        self._selectables[descriptor] = reader
        self._stale_fds.add(descriptor)

    def defer_disconnect(self, transport: ClosingTransport) -> None:
        """Call `connectionLost` of `transport` with `ConnectionDone` after the batch."""
        self._pending_disconnects.append(transport)
        if not self._dispatching and len(self._pending_disconnects) == 1:
            self._reactor.callLater(0, self._run_deferred)

    def defer_shutdown(self, transport: ClosingTransport) -> None:
        """
        Half-close `transport` after the batch.

        If the peer's FIN is in the same batch, the transport is closed instead,
        and shutdown(2) is saved.
        """
        if self._dispatching:
            self._pending_shutdowns.append(transport)
        else:
            transport.shutdown_write()

    def call_after_batch(self, function: Callable[[], object]) -> None:
        """Call `function` once the events of the current batch are handled."""
        self._pending_calls.append(function)
        if not self._dispatching and len(self._pending_calls) == 1:
            self._reactor.callLater(0, self._run_deferred)

    def forget_fd(self, descriptor: int) -> None:
        """Note that `descriptor` is closed: epoll has dropped its registration."""
        self._pending_unregister.discard(descriptor)

    def _run_deferred(self) -> None:
        """Write, close and half-close what was deferred, which may defer more."""
        self._dispatching = True
        while self._pending_calls or self._pending_disconnects or self._pending_shutdowns:
            self._run_calls()
            disconnects, self._pending_disconnects = self._pending_disconnects, []
            for transport in disconnects:
                # `abortConnection` has scheduled its own `connectionLost`.
                if not transport.disconnected and not transport._aborting:
                    self._disconnect(transport, CONNECTION_DONE, False)
            shutdowns, self._pending_shutdowns = self._pending_shutdowns, []
            for transport in shutdowns:
                # An exception here would reach Twisted's reactor, which would close this
                # poller, and with it every connection and listening socket.
                try:
                    transport.shutdown_write()
                except Exception as failure:
                    self._log.failure(
                        "half-close of {selectable} failed; closing it", selectable=transport
                    )
                    self._disconnect(transport, failure, False)
        self._dispatching = False
        if self._pending_unregister:
            self._flush_unregister()

    def _run_calls(self) -> None:
        calls, self._pending_calls = self._pending_calls, []
        for function in calls:
            try:
                function()
            except Exception:
                self._log.failure("deferred call of {function} failed", function=function)

    def _flush_unregister(self) -> None:
        descriptors, self._pending_unregister = self._pending_unregister, set()
        if self._epoll is not None:
            for descriptor in descriptors:
                self._unregister(descriptor)

    def _registered(self, bit: int) -> list[Any]:
        return [s for fd, s in self._selectables.items() if self._masks[fd] & bit]

    def _add(self, selectable: Selectable, bit: int) -> None:
        descriptor = selectable.fileno()
        mask = self._masks.get(descriptor, 0)
        if mask & bit and self._selectables[descriptor] is selectable:
            return
        paused = descriptor in self._paused_fds
        if paused and bit == READ_EVENTS:
            self._paused_fds.discard(descriptor)
        if self._epoll is None:
            self._epoll = select.epoll()
            self._reactor.addReader(self)
        if mask or paused:
            self._epoll.modify(descriptor, mask | bit)
            if bit == READ_EVENTS:
                # An event of this batch was fetched without EPOLLIN, so a hang-up
                # with unread bytes would be mistaken for a reset.
                self._stale_fds.add(descriptor)
        else:
            if descriptor in self._pending_unregister:
                # Added again in the same batch, or the number was reused.
                self._pending_unregister.discard(descriptor)
                self._unregister(descriptor)
            self._epoll.register(descriptor, bit)
        self._masks[descriptor] = mask | bit
        self._selectables[descriptor] = selectable
        if selectable.poll_first:
            self._priority_fds.add(descriptor)

    def _remove(self, selectable: Selectable, bit: int) -> None:
        descriptor = selectable.fileno()
        mask = self._masks.get(descriptor, 0)
        if not mask & bit or self._selectables[descriptor] is not selectable:
            return
        assert self._epoll is not None
        mask &= ~bit
        self._stale_fds.add(descriptor)
        if mask or descriptor in self._paused_fds:
            self._masks[descriptor] = mask
            # epoll always reports EPOLLERR and EPOLLHUP. A paused descriptor does
            # not read them away, so they are edge-triggered: reported once.
            self._epoll.modify(descriptor, mask or select.EPOLLET)
            return
        self._drop_registration(descriptor)

    def _drop_registration(self, descriptor: int) -> None:
        assert self._epoll is not None
        del self._masks[descriptor], self._selectables[descriptor]
        self._priority_fds.discard(descriptor)
        if not self._selectables:
            self._close()
        elif self._dispatching:
            self._pending_unregister.add(descriptor)
        else:
            self._unregister(descriptor)

    def _unregister(self, descriptor: int) -> None:
        assert self._epoll is not None
        try:
            self._epoll.unregister(descriptor)
        except OSError as failure:
            # The descriptor was closed before, which unregisters it too.
            self._log.debug(
                "descriptor {fd} not unregistered from epoll: {reason}",
                fd=descriptor,
                reason=failure,
            )

    def _close(self) -> None:
        assert self._epoll is not None
        self._pending_unregister.clear()
        self._reactor.removeReader(self)
        self._epoll.close()
        self._epoll = None

    # IReadDescriptor

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "balancebeam"

    def connectionLost(self, reason: Failure) -> None:
        """Close all connections: the reactor is shutting down."""
        for selectable in self.removeAll():
            try:
                selectable.connectionLost(reason)
            except Exception:
                self._log.failure("closing {selectable} failed", selectable=selectable)

    def doRead(self) -> None:
        """Handle the events that are ready, at most `MAX_EVENTS` of them."""
        if self._epoll is None:
            return
        selectables = self._selectables
        stale, paused = self._stale_fds, self._paused_fds
        stale.clear()
        readable = select.EPOLLIN
        events = self._epoll.poll(0, MAX_EVENTS)
        priority = self._priority_fds
        servers = [pair for pair in events if pair[0] in priority]
        if 0 < len(servers) < len(events):
            # Upstream connections before clients: that a server sent data or closed
            # must be known before a client's request is sent on its connection.
            events = servers + [pair for pair in events if pair[0] not in priority]
        self._dispatching = True
        for descriptor, event in events:
            if stale and descriptor in stale:
                continue
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if descriptor in paused and not (self._masks[descriptor] or event & select.EPOLLERR):
                # EPOLLHUP alone: both sides have sent a FIN, and unread bytes remain.
                continue
            try:
                if event == readable:
                    reason, reading = selectable.doRead(), True
                elif event == READ_EVENTS:
                    reason, reading = selectable.read_before_eof(), True
                    if reason is None and descriptor not in stale:
                        reason = selectable.doRead()
                else:
                    reason, reading = dispatch_event(selectable, event)
            except Exception as failure:
                self._log.failure("event of {selectable} failed; closing it", selectable=selectable)
                reason, reading = failure, False
            if reason is not None:
                self._disconnect(selectable, reason, reading)
        if (
            self._pending_calls
            or self._pending_disconnects
            or self._pending_shutdowns
            or self._pending_unregister
        ):
            self._run_deferred()
        self._dispatching = False

    def _disconnect(self, selectable: Any, reason: Exception, reading: bool) -> None:
        """Close `selectable`, or only its input on EOF (`PosixReactorBase` does the same)."""
        try:
            self.removeReader(selectable)
            if reading and isinstance(reason, error.ConnectionDone):
                selectable.readConnectionLost(connectionDone)
            else:
                self.removeWriter(selectable)
                clean = reason is CONNECTION_DONE
                selectable.connectionLost(connectionDone if clean else Failure(reason))
        except Exception:
            self._log.failure("closing {selectable} failed", selectable=selectable)
