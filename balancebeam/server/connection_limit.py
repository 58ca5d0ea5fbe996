"""The limit of the concurrent connections of one frontend (`max_connections`)."""

from __future__ import annotations

import typing
from collections.abc import Sequence

from balancebeam.downstream.context import ConnectionSet
from balancebeam.server.listeners import Listener


class ConnectionLimit:
    """
    Pauses the listeners of a frontend while it has as many connections as allowed.

    Clients wait in the listen queue meanwhile. A reload may give a listener to another
    frontend: only the limit that owns a listener pauses and resumes it.
    """

    def __init__(self, *connections: ConnectionSet[typing.Any]) -> None:
        """
        Args:
            connections: the sets of connections that count, all together.
        """
        self._connections = connections
        self._maximum: int | None = None
        self._listeners: Sequence[Listener] = ()
        self._paused = False

    def configure(self, maximum: int | None, listeners: Sequence[Listener]) -> None:
        """
        Apply new settings.

        Args:
            maximum: the connections allowed at once; `None` for no limit.
            listeners: the listeners of the frontend.
        """
        self._maximum, self._listeners = maximum, listeners
        on_change = None if maximum is None else self._check
        for connections in self._connections:
            connections.on_change = on_change
        for listener in listeners:
            listener.limit = self
        self._paused = self._reached()
        self._apply()

    def _reached(self) -> bool:
        count = sum(len(connections) for connections in self._connections)
        return self._maximum is not None and count >= self._maximum

    def _check(self) -> None:
        reached = self._reached()
        if reached is not self._paused:
            self._paused = reached
            self._apply()

    def _apply(self) -> None:
        for listener in self._listeners:
            if listener.limit is self:
                listener.set_accepting(not self._paused)
