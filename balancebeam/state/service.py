"""What was set at run time, kept over restarts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from twisted.application import service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from balancebeam.admin.operations import Pool
from balancebeam.core.settings import AdminState, ServerSettings, ServerSource
from balancebeam.state.codec import ServerState, State, encode_state
from balancebeam.state.store import StateFile, load_state
from balancebeam.upstream.server import Server

GetPools = Callable[[], Mapping[str, Pool]]


class StateService(service.Service):
    """
    Keeps the file at `path` true to `pools`. `defer_to_thread` is the reactor's.
    """

    name = "state"
    log = Logger()

    def __init__(self, path: str, get_pools: GetPools, defer_to_thread: Any) -> None:
        self.path = path
        self._get_pools = get_pools
        self._file = StateFile(path, defer_to_thread)

    def startService(self) -> None:
        super().startService()
        before = take_snapshot(self._get_pools())
        state = load_state(self.path)
        if state is not None:
            restore(state, self._get_pools(), self.log)
        if before.pools:
            # The file has come late, by a reload: what was set meanwhile is newer.
            restore(before, self._get_pools(), self.log)
            self.save()

    def save(self) -> Deferred[None]:
        """Write what there is now; never fails, for `StateFile` tells the log."""
        saving = self._file.save(encode_state(take_snapshot(self._get_pools())))
        return saving.addErrback(lambda failure: None)

    def stopService(self) -> Any:
        super().stopService()
        return self._file.flush()


def nothing_to_save() -> Deferred[None]:
    """For those who keep no state."""
    return succeed(None)


def take_snapshot(pools: Mapping[str, Pool]) -> State:
    """What is not as the configuration says."""
    found = {}
    for name, pool in pools.items():
        servers = tuple(
            _server_state(server)
            for server in pool.server_set.servers
            if _has_runtime_changes(server)
        )
        if servers:
            found[name] = servers
    return State(found)


def restore(state: State, pools: Mapping[str, Pool], log: Logger) -> None:
    """Have `pools` be as `state` says, but for what the configuration has changed since."""
    for name, servers in state.pools.items():
        pool = pools.get(name)
        if pool is None:
            log.warn("the state knows of a pool {name!r}, which is no more", name=name)
            continue
        for known in servers:
            _restore_server(known, pool)


def _has_runtime_changes(server: Server) -> bool:
    if server.source is ServerSource.DEMO:
        return False
    registered = server.source is ServerSource.REGISTERED
    reweighted = server.weight != server.configured_weight
    return registered or reweighted or server.admin_state is not AdminState.READY


def _server_state(server: Server) -> ServerState:
    registered = server.source is ServerSource.REGISTERED
    reweighted = registered or server.weight != server.configured_weight
    return ServerState(
        address=server.address,
        weight=server.weight if reweighted else None,
        configured_weight=None if registered else server.configured_weight,
        admin_state=server.admin_state,
        registered=registered,
    )


def _restore_server(saved: ServerState, pool: Pool) -> None:
    server = pool.server_set.find(saved.address)
    if server is None:
        if not saved.registered:
            # It has left the file, and its marks with it.
            return
        settings = ServerSettings(saved.address, 1 if saved.weight is None else saved.weight)
        server = pool.server_set.add(settings, ServerSource.REGISTERED)
    elif saved.weight is not None and saved.configured_weight == server.configured_weight:
        pool.health.set_weight(server, saved.weight)
    pool.health.set_admin_state(server, saved.admin_state)
