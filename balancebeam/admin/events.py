"""
Server-sent events of the admin API: `GET /events`.

A viewer gets a `snapshot` event at once and every second, and a `change` event when the state of
a server changes. Every event is encoded once, whatever the number of viewers. The format is that
of https://html.spec.whatwg.org/multipage/server-sent-events.html.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from balancebeam.admin.slices import Slices
from balancebeam.admin.snapshot import SnapshotBuilder, change_json
from balancebeam.admin.state_changes import MAX_CHANGES, StateChange, StateChanges
from balancebeam.admin.traffic import TrafficSampler
from balancebeam.net.periodic import PeriodicCall

CONTENT_TYPE = b"text/event-stream"

# Open streams. A quarter of the connections of the listener, so that operator commands and
# scrapes are not closed in favor of forgotten browser tabs.
MAX_VIEWERS = 64

# Seconds between two snapshots.
INTERVAL = 1.0

# Seconds after which a viewer with a full buffer is disconnected. Meanwhile it gets no events, so
# that its buffer holds the transport's 64 KiB and one snapshot at most.
STALL_TIMEOUT = 10.0


@implementer(IPushProducer)
class Viewer:
    """
    An open stream.

    Attributes:
        request: The request for it.
        paused_at: When the transport's buffer became full, in seconds of the reactor; `None` if
            it is not full.
        waiting: Whether the snapshot in progress is sent to it.
    """

    def __init__(self, request: Request, seconds: Callable[[], float]) -> None:
        """
        Args:
            request: The request; its response has been started.
            seconds: The clock of the reactor.
        """
        self.request = request
        self.paused_at: float | None = None
        self.waiting = True
        self._seconds = seconds

    def pauseProducing(self) -> None:
        if self.paused_at is None:
            self.paused_at = self._seconds()

    def resumeProducing(self) -> None:
        self.paused_at = None

    def stopProducing(self) -> None:
        """Do nothing: the end of the request is notified as well."""

    def send(self, event: bytes) -> None:
        """Send an event, unless the viewer has not read the previous ones."""
        if self.paused_at is None:
            self.request.write(event)

    def finish(self) -> None:
        """End the stream and close the connection when all has been sent."""
        channel: Any = self.request.channel
        # The next request may belong to the new process of a hot restart.
        channel.persistent = 0
        self.request.unregisterProducer()
        self.request.finish()

    def abort(self) -> None:
        """Close the connection, whatever has not been sent."""
        channel: Any = self.request.channel
        channel.transport.abortConnection()


class EventStreams:
    """
    The open streams of the admin listener, and their events.

    Attributes:
        viewers: The open streams in the order of their requests.
        snapshots: The number of snapshots made so far.
        dropped: The number of viewers that did not read.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        sampler: TrafficSampler,
        builder: SnapshotBuilder,
        changes: StateChanges,
        slices: Slices,
    ) -> None:
        """
        Create the streams; `start` begins the samples.

        Args:
            reactor: The clock.
            sampler: Sampled every second, with and without viewers.
            builder: Makes the snapshots, while there are viewers.
            changes: The changes of server states.
            slices: Makes the texts of the snapshots.
        """
        self.viewers: dict[Viewer, None] = {}
        self.snapshots = self.dropped = 0
        self._reactor = reactor
        self._sampler = sampler
        self._builder = builder
        self._changes = changes
        self._slices = slices
        self._ticks = PeriodicCall(
            reactor,
            INTERVAL,
            self._tick,
            lambda failure: self._log.failure("admin events stopped", failure),
        )
        self._pending: deque[StateChange] = deque(maxlen=MAX_CHANGES)
        self._flush: IDelayedCall | None = None
        # The snapshot in progress.
        self._making: Deferred[list[bytes]] | None = None
        # The last snapshot event, and when it was made.
        self._snapshot = b""
        self._snapshot_at = 0.0

    def start(self) -> None:
        """Begin to sample and to send."""
        self._changes.on_change = self._state_changed
        self._ticks.start()

    def stop(self) -> None:
        """End all streams and all timers."""
        if self._changes.on_change == self._state_changed:
            self._changes.on_change = None
        self._ticks.stop()
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        self._pending.clear()
        self._cancel_snapshot()
        self.close()

    @property
    def full(self) -> bool:
        """Whether there are as many viewers as allowed."""
        return len(self.viewers) >= MAX_VIEWERS

    def add(self, request: Request) -> None:
        """Answer `request` with a stream; its status and headers are set."""
        viewer = Viewer(request, self._reactor.seconds)
        self.viewers[viewer] = None
        finished: Deferred[None] = request.notifyFinish()
        finished.addBoth(lambda result: self.viewers.pop(viewer, None))
        request.registerProducer(viewer, True)
        # Clients that reconnect share the snapshot of this second.
        if self._snapshot and self._reactor.seconds() - self._snapshot_at < INTERVAL:
            viewer.waiting = False
            viewer.send(self._snapshot)
        elif self._making is None:
            self._make_snapshot()

    def close(self, denied: Callable[[Request], bool] = lambda request: True) -> None:
        """End the streams whose request is `denied`, or all; clients may connect again."""
        self._snapshot = b""
        for viewer in list(self.viewers):
            if not denied(viewer.request):
                continue
            # From here on no event is written to it.
            del self.viewers[viewer]
            if viewer.paused_at is None:
                viewer.finish()
            else:
                viewer.abort()

    def _make_snapshot(self) -> None:
        """Make a snapshot and send it to the viewers that wait for it."""
        self._making = making = self._slices.make(self._builder.pieces())
        making.addCallback(self._snapshot_made).addErrback(self._snapshot_failed)

    def _cancel_snapshot(self) -> None:
        making, self._making = self._making, None
        if making is not None:
            making.cancel()

    def _snapshot_made(self, parts: list[bytes]) -> None:
        self._making = None
        self._snapshot = _event(b"snapshot", b"".join(parts))
        self._snapshot_at = self._reactor.seconds()
        self.snapshots += 1
        for viewer in list(self.viewers):
            if viewer.waiting:
                viewer.waiting = False
                viewer.send(self._snapshot)

    def _snapshot_failed(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            # The next one may succeed.
            self._making = None
            self._log.failure("admin events not sent", failure)

    def _tick(self) -> None:
        try:
            self._sampler.sample()
            self._drop_stalled()
            # A snapshot that a new viewer got since the last tick was made before this sample.
            self._snapshot = b""
            for viewer in self.viewers:
                viewer.waiting = True
            # One that takes longer than a second, of a busy process, is not begun again.
            if self.viewers and self._making is None:
                self._make_snapshot()
        except Exception:
            # The next tick may succeed; an error here must not end the streams.
            self._log.failure("admin events not sent")

    def _drop_stalled(self) -> None:
        now = self._reactor.seconds()
        for viewer in list(self.viewers):
            if viewer.paused_at is not None and now - viewer.paused_at >= STALL_TIMEOUT:
                del self.viewers[viewer]
                self.dropped += 1
                viewer.abort()

    def _state_changed(self, change: StateChange) -> None:
        """Send `change` in the next turn of the event loop, when the transition is complete."""
        self._pending.append(change)
        if self._flush is None:
            self._flush = self._reactor.callLater(0, self._send_changes)

    def _send_changes(self) -> None:
        self._flush = None
        events = b"".join(_event(b"change", change_json(change)) for change in self._pending)
        self._pending.clear()
        self._snapshot = b""
        for viewer in list(self.viewers):
            viewer.send(events)
        if self._making is not None:
            # It may have the states before these changes.
            self._cancel_snapshot()
            self._make_snapshot()


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)
