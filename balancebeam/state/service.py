"""The state service: restores the state file at start, and writes it after each change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from balancebeam.state.codec import encode_state
from balancebeam.state.snapshot import PersistedPool, restore, take_snapshot
from balancebeam.state.store import StateFile, load_state

GetPools = Callable[[], Mapping[str, PersistedPool]]


class StateService(service.Service):
    """
    Persists the runtime changes of pools in a state file.

    Attributes:
        path: The state file.
    """

    name = "state"
    log = Logger()

    def __init__(
        self, path: str, get_pools: GetPools, defer_to_thread: Callable[..., Deferred[Any]]
    ) -> None:
        """
        Create the service; the file is read when it starts.

        Args:
            path: The state file; it need not exist.
            get_pools: Returns the current pools by name.
            defer_to_thread: Runs a blocking call in the reactor's thread pool, as
                `twisted.internet.threads.deferToThread` does.
        """
        self.path = path
        self._get_pools = get_pools
        self._file = StateFile(path, defer_to_thread)

    def startService(self) -> None:
        super().startService()
        current = take_snapshot(self._get_pools())
        state = load_state(self.path)
        if state is not None:
            restore(state, self._get_pools(), self.log)
        if current.pools:
            # A reload has configured the file while the balancer was running:
            # changes made until now are newer than what the file holds.
            restore(current, self._get_pools(), self.log)
            self.save()

    def save(self) -> Deferred[None]:
        """
        Write a snapshot of the pools.

        Returns:
            A Deferred that fires after the write. It never fails: `StateFile`
            logs errors.
        """
        saving = self._file.save(encode_state(take_snapshot(self._get_pools())))
        return saving.addErrback(lambda failure: None)

    def stopService(self) -> Any:
        """Stop; the Deferred fires after the last write."""
        super().stopService()
        return self._file.flush()
