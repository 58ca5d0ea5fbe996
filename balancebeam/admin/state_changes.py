"""Recent changes of server states, for the admin page and its events."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

from attrs import frozen

from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet

# Changes in memory: an hour of a pool in which a server fails every half a minute.
MAX_CHANGES = 100

_REMOVED = "removed"


@frozen
class StateChange:
    """
    One change of the state of a server.

    Attributes:
        time: Seconds since the epoch.
        pool: The name of the pool.
        server: The address of the server.
        previous: The state before; empty for a server that was added.
        state: The state now: that of `Server.status`, or "removed".
        reason: What changed the state.
    """

    time: float
    pool: str
    server: str
    previous: str
    state: str
    reason: str


class StateChanges:
    """
    Records the changes of the states of all servers, whether or not the page is open.

    Attributes:
        recent: The latest changes, from the oldest to the newest.
        total: The number of changes since the start.
        on_change: Called with each change; it must not change servers.
    """

    def __init__(self, wall_time: Callable[[], float]) -> None:
        """
        Args:
            wall_time: Returns the time of day in seconds since the epoch.
        """
        self.recent: deque[StateChange] = deque(maxlen=MAX_CHANGES)
        self.total = 0
        self.on_change: Callable[[StateChange], object] | None = None
        self._wall_time = wall_time
        # The state of each server, and the cause of its last change.
        self._last: WeakKeyDictionary[Server, tuple[str, object]] = WeakKeyDictionary()

    def watch(self, pool: str, server_set: ServerSet) -> None:
        """Record the changes of the servers of `pool` from now on."""
        for server in server_set.servers:
            self._last[server] = (server.status, _cause(server))
        server_set.observe(partial(self._notified, pool))

    def _notified(self, pool: str, server: Server) -> None:
        last = self._last.get(server)
        state, cause = _REMOVED if server.removed else server.status, _cause(server)
        previous, reason = "", f"added ({server.source.value})"
        if last is not None:
            if state not in (last[0], _REMOVED) and cause == last[1]:
                # A cooldown expired, and the server is up for a trial request only. The result
                # of that request is recorded, if it changes the state.
                return
            previous = last[0]
            reason = "removed from the pool" if server.removed else server.status_reason
        self._last[server] = (state, cause)
        if state != previous:
            self._record(pool, server, previous, state, reason)

    def _record(self, pool: str, server: Server, previous: str, state: str, reason: str) -> None:
        change = StateChange(self._wall_time(), pool, server.name, previous, state, reason)
        self.recent.append(change)
        self.total += 1
        if self.on_change is not None:
            self.on_change(change)


def _cause(server: Server) -> object:
    """Return a value that differs after every recorded change of the status."""
    return server.status_since, server.status_reason
