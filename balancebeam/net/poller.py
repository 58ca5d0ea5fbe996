"""
Events for the data connections, a batch at a time.

Twisted wraps each event of each connection in a log context of its own, which
costs a fifth of a small request. An epoll object can itself be polled, so the
data connections register with an epoll of ours, and that one is a single
reader of the ordinary reactor: one log context serves a whole batch.
"""

from __future__ import annotations

import select
from typing import Any, Callable

from twisted.internet import error
from twisted.internet.interfaces import IDelayedCall, IReactorFDSet, IReadDescriptor
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

# That the peer has ended; PyPy has no name for it.
EPOLLRDHUP = getattr(select, "EPOLLRDHUP", 0x2000)

# What readers wait for: to hear of an end together with the last bytes before it
# saves a turn, and both can be passed on at once.
READ_EVENTS = select.EPOLLIN | EPOLLRDHUP if hasattr(select, "epoll") else 0

# Events of one batch. The reactor's timers and other readers get their turn
# between batches.
MAX_EVENTS = 256


def build_data_reactor(reactor: Any) -> Any:
    """
    The reactor that data connections shall use: `reactor` itself where the
    platform has no epoll, else a `BatchPoller` in front of it.
    """
    return BatchPoller(reactor) if hasattr(select, "epoll") else reactor


@implementer(IReactorFDSet, IReadDescriptor)
class BatchPoller:
    """
    Stands in for `reactor` with Twisted's transports.

    It is registered with the reactor only while something is registered with
    it, so it leaves nothing behind. Level-triggered, as the reactor is.
    """

    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._epoll: select.epoll | None = None
        self._selectables: dict[int, Any] = {}
        self._masks: dict[int, int] = {}
        # Descriptors of which something was removed while a batch was being
        # served. What is known of them is out of date, and the kernel may have
        # given the number to somebody else; the next batch knows better.
        self._stale_fds: set[int] = set()
        # Descriptors of those that say `poll_first`.
        self._priority_fds: set[int] = set()
        # Descriptors that are not to be read for now.
        self._paused_fds: set[int] = set()
        # Descriptors that nobody wants to hear of any more, and that the kernel
        # still watches. Most are closed before the batch is over, and closing
        # one ends that as well.
        self._pending_unregister: set[int] = set()
        # Those that are to be told, once nobody is in the middle of something,
        # that they are closed, and those that are to end their output.
        self._pending_disconnects: list[Any] = []
        self._pending_shutdowns: list[Any] = []
        self._dispatching = False

    # What transports use of a reactor.

    def callLater(
        self, delay: float, call: Callable[..., object], *args: Any, **kw: Any
    ) -> IDelayedCall:
        delayed: IDelayedCall = self._reactor.callLater(delay, call, *args, **kw)
        return delayed

    def seconds(self) -> float:
        seconds: float = self._reactor.seconds()
        return seconds

    def addReader(self, selectable: Any) -> None:
        self._add(selectable, READ_EVENTS)

    def addWriter(self, selectable: Any) -> None:
        self._add(selectable, select.EPOLLOUT)

    def removeReader(self, selectable: Any) -> None:
        if self._paused_fds:
            descriptor = selectable.fileno()
            if descriptor in self._paused_fds and self._selectables[descriptor] is selectable:
                self._paused_fds.discard(descriptor)
                self._stale_fds.add(descriptor)
                if not self._masks[descriptor]:
                    self._drop_registration(descriptor)
                return
        self._remove(selectable, READ_EVENTS)

    def removeWriter(self, selectable: Any) -> None:
        self._remove(selectable, select.EPOLLOUT)

    def pause_reader(self, selectable: Any) -> None:
        """
        Do not have `selectable` read until it is added again, but have its
        `connectionLost` called should its peer reset the connection meanwhile.
        `removeReader` forgets it altogether.
        """
        descriptor = selectable.fileno()
        if self._selectables.get(descriptor) is selectable:
            self._paused_fds.add(descriptor)
            self._remove(selectable, READ_EVENTS)

    def transfer_registration(self, writer: Any, reader: Any) -> None:
        """`reader` has the descriptor now, of which `writer` waited for a first sign."""
        descriptor = writer.fileno() if writer.fileno() >= 0 else reader.fileno()
        assert self._epoll is not None
        self._epoll.modify(descriptor, READ_EVENTS)
        self._masks[descriptor] = READ_EVENTS
        self._selectables[descriptor] = reader
        self._stale_fds.add(descriptor)

    def defer_disconnect(self, selectable: Any) -> None:
        """Have the `connectionLost` of `selectable`, which was in order, called in a moment."""
        self._pending_disconnects.append(selectable)
        if not self._dispatching and len(self._pending_disconnects) == 1:
            self._reactor.callLater(0, self._run_deferred)

    def defer_shutdown(self, selectable: Any) -> None:
        """
        Have `selectable` end its output when this batch has been served: if
        its peer turns out to be at its end too, it is closed instead.
        """
        if self._dispatching:
            self._pending_shutdowns.append(selectable)
        else:
            selectable.shutdown_write()

    def forget_fd(self, descriptor: int) -> None:
        """The descriptor, which nobody wants to hear of any more, is closed."""
        self._pending_unregister.discard(descriptor)

    def _run_deferred(self) -> None:
        self._dispatching = True
        while self._pending_disconnects or self._pending_shutdowns:
            leaving, self._pending_disconnects = self._pending_disconnects, []
            for selectable in leaving:
                # One that is aborting ends in another way.
                if not selectable.disconnected and not getattr(selectable, "_aborting", False):
                    self._disconnect(selectable, CONNECTION_DONE, False)
            ending, self._pending_shutdowns = self._pending_shutdowns, []
            for selectable in ending:
                selectable.shutdown_write()
        self._dispatching = False
        if self._pending_unregister:
            self._flush_unregister()

    def _flush_unregister(self) -> None:
        unwanted, self._pending_unregister = self._pending_unregister, set()
        if self._epoll is not None:
            for descriptor in unwanted:
                self._unregister(descriptor)

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

    def _registered(self, bit: int) -> list[Any]:
        return [s for fd, s in self._selectables.items() if self._masks[fd] & bit]

    def _add(self, selectable: Any, bit: int) -> None:
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
                # An event that is known already is silent about what could be
                # read, and a hang-up with nothing to read would be a reset.
                self._stale_fds.add(descriptor)
        else:
            if descriptor in self._pending_unregister:
                # It is wanted again, or somebody else has its number.
                self._pending_unregister.discard(descriptor)
                self._unregister(descriptor)
            self._epoll.register(descriptor, bit)
        self._masks[descriptor] = mask | bit
        self._selectables[descriptor] = selectable
        if getattr(selectable, "poll_first", False):
            self._priority_fds.add(descriptor)

    def _remove(self, selectable: Any, bit: int) -> None:
        descriptor = selectable.fileno()
        mask = self._masks.get(descriptor, 0)
        if not mask & bit or self._selectables[descriptor] is not selectable:
            return
        assert self._epoll is not None
        mask &= ~bit
        self._stale_fds.add(descriptor)
        if mask or descriptor in self._paused_fds:
            self._masks[descriptor] = mask
            # Errors and hang-ups are always told of, and once is enough for
            # what cannot be done away with by reading.
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
            # The descriptor was closed first, which unregisters it as well.
            self._log.debug("unregistering {fd}: {reason}", fd=descriptor, reason=failure)

    def _close(self) -> None:
        assert self._epoll is not None
        self._pending_unregister.clear()
        self._reactor.removeReader(self)
        self._epoll.close()
        self._epoll = None

    # What the reactor uses of us.

    def fileno(self) -> int:
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        return "balancebeam"

    def connectionLost(self, reason: Failure) -> None:
        """The reactor is shutting down and disconnects everybody."""
        for selectable in self.removeAll():
            selectable.connectionLost(reason)

    def doRead(self) -> None:
        """Serve what is ready, at most `MAX_EVENTS` events."""
        if self._epoll is None:
            return
        selectables = self._selectables
        stale, paused = self._stale_fds, self._paused_fds
        stale.clear()
        readable = select.EPOLLIN
        events = self._epoll.poll(0, MAX_EVENTS)
        first = self._priority_fds
        servers = [pair for pair in events if pair[0] in first]
        if 0 < len(servers) < len(events):
            # Servers before clients: what a server said, or that it left, is to
            # be known before a client's request is sent on its connection.
            events = servers + [pair for pair in events if pair[0] not in first]
        self._dispatching = True
        for descriptor, event in events:
            if stale and descriptor in stale:
                continue
            selectable = selectables.get(descriptor)
            if selectable is None:
                continue
            if descriptor in paused and not (self._masks[descriptor] or event & select.EPOLLERR):
                # Both sides have said all, and some of it is still to be read.
                continue
            try:
                if event == readable:
                    reason, reading = selectable.doRead(), True
                elif event == READ_EVENTS:
                    read = getattr(selectable, "read_before_eof", selectable.doRead)
                    reason, reading = read(), True
                    if reason is None and descriptor not in stale:
                        reason = selectable.doRead()
                else:
                    reason, reading = _dispatch_event(selectable, event)
            except Exception as failure:
                self._log.failure("while serving {selectable}", selectable=selectable)
                reason, reading = failure, False
            if reason is not None:
                self._disconnect(selectable, reason, reading)
        if self._pending_disconnects or self._pending_shutdowns or self._pending_unregister:
            self._run_deferred()
        self._dispatching = False

    def _disconnect(self, selectable: Any, reason: Exception, reading: bool) -> None:
        """As the reactor does it: an end of input may be half of an end."""
        self.removeReader(selectable)
        try:
            if reading and isinstance(reason, error.ConnectionDone):
                selectable.readConnectionLost(connectionDone)
            else:
                self.removeWriter(selectable)
                orderly = reason is CONNECTION_DONE
                selectable.connectionLost(connectionDone if orderly else Failure(reason))
        except Exception:
            self._log.failure("while disconnecting {selectable}", selectable=selectable)


HANGUP_EVENTS = select.EPOLLHUP | select.EPOLLERR if hasattr(select, "epoll") else 0


def _dispatch_event(selectable: Any, event: int) -> tuple[Any, bool]:
    """Serve any combination of events; returns the reason it ended, and while reading?"""
    if event & HANGUP_EVENTS and not event & select.EPOLLIN:
        # Reading would have told of an orderly end; this is none.
        return CONNECTION_LOST, False
    reason = None
    if event & select.EPOLLIN:
        reason = selectable.doRead()
        if reason is not None:
            return reason, True
    if event & select.EPOLLOUT and selectable.fileno() != -1:
        reason = selectable.doWrite()
    return reason, False
