"""
Snapshots of runtime changes: taken from pools, restored into pools.

A snapshot holds only what differs from the configuration: registered servers,
changed weights and admin states. On restore the configuration wins where it
changed the same value in the meantime.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from twisted.logger import Logger

from balancebeam.core.settings import AdminState, ServerSettings, ServerSource
from balancebeam.state.codec import ServerState, State
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet


class PersistedPool(Protocol):
    """A pool whose runtime changes are persisted."""

    @property
    def server_set(self) -> ServerSet:
        """The servers of the pool."""

    @property
    def health(self) -> HealthService:
        """The service that sets weights and admin states."""


def take_snapshot(pools: Mapping[str, PersistedPool]) -> State:
    """Return everything in `pools` that differs from the configuration."""
    saved = {}
    for name, pool in pools.items():
        servers = tuple(
            _server_state(server)
            for server in pool.server_set.servers
            if _has_runtime_changes(server)
        )
        if servers:
            saved[name] = servers
    return State(saved)


def restore(state: State, pools: Mapping[str, PersistedPool], log: Logger) -> None:
    """Apply `state` to `pools`, except where the configuration has changed since."""
    for name, servers in state.pools.items():
        pool = pools.get(name)
        if pool is None:
            log.warn("ignoring saved state of unknown pool {name!r}", name=name)
            continue
        for saved in servers:
            _restore_server(saved, pool)


def _has_runtime_changes(server: Server) -> bool:
    if server.source is ServerSource.DEMO:
        # Demo servers get new ports at every start.
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
        tls=registered and server.uses_tls,
    )


def _restore_server(saved: ServerState, pool: PersistedPool) -> None:
    server = pool.server_set.find(saved.address)
    if server is None:
        if not saved.registered:
            # Removed from the configuration: its weight and admin state expire with it.
            return
        weight = 1 if saved.weight is None else saved.weight
        settings = ServerSettings(saved.address, weight, tls=saved.tls)
        server = pool.server_set.add(settings, ServerSource.REGISTERED)
    elif saved.weight is not None and saved.configured_weight == server.configured_weight:
        pool.health.set_weight(server, saved.weight)
    pool.health.set_admin_state(server, saved.admin_state)
