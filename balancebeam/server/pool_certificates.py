"""Watches the files of `[pool.tls]`: CA certificates of servers, and client certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from attrs import frozen
from twisted.application import service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from balancebeam.core.errors import ConfigError
from balancebeam.net.periodic import PeriodicCall
from balancebeam.server.certificates import CHECK_INTERVAL
from balancebeam.server.pool import PoolService
from balancebeam.upstream.pool_tls import PoolTls


@frozen
class _Change:
    """
    Files of a pool that have changed.

    Attributes:
        pool: The name of the pool.
        old: TLS of the pool before.
        new: TLS with the new files; `None` if they cannot be used.
        problems: The reasons, if so.
    """

    pool: str
    old: PoolTls
    new: PoolTls | None
    problems: tuple[str, ...] = ()


class PoolCertificateService(service.Service):
    """Uses changed files of `[pool.tls]` for new connections, without a reload."""

    name = "pool-certificates"
    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        find_pools: Callable[[], Mapping[str, PoolService]],
        defer_to_thread: Callable[..., Deferred[Any]],
    ) -> None:
        """
        Args:
            clock: Triggers the checks.
            find_pools: Returns the pools by name.
            defer_to_thread: Runs a blocking call in the reactor's thread pool.
        """
        self._find_pools = find_pools
        self._defer_to_thread = defer_to_thread
        self._checks = PeriodicCall(
            clock,
            CHECK_INTERVAL,
            self._check,
            lambda failure: self._log.failure("checks of [pool.tls] stopped", failure),
        )

    def startService(self) -> None:
        super().startService()
        self.update()

    def stopService(self) -> Any:
        self._checks.stop()
        return super().stopService()

    def update(self) -> None:
        """Check the files periodically while any pool has some; called after a reload."""
        if not self.running:
            return
        if self._watched():
            self._checks.start()
        else:
            self._checks.stop()

    def _watched(self) -> dict[str, PoolTls]:
        pools = self._find_pools()
        watched = {name: pool.connections.tls for name, pool in pools.items()}
        return {name: tls for name, tls in watched.items() if tls.has_files}

    def _check(self) -> Deferred[None]:
        reading = maybeDeferred(self._defer_to_thread, _read_changed, self._watched())
        reading.addCallback(self._apply)
        return reading.addErrback(
            lambda failure: self._log.failure("files of [pool.tls] not checked", failure)
        )

    def _apply(self, changes: list[_Change]) -> None:
        pools = self._find_pools()
        for change in changes:
            pool = pools.get(change.pool)
            if not self.running or pool is None or pool.connections.tls is not change.old:
                # A reload has read the files meanwhile.
                continue
            for problem in change.problems:
                self._log.error("TLS to servers not reloaded: {problem}", problem=problem)
            if change.new is not None and change.new.client is not change.old.client:
                pool.set_tls(change.new)
                self._log.info("pool {pool}: tls: files reloaded", pool=change.pool)


def _read_changed(watched: Mapping[str, PoolTls]) -> list[_Change]:
    """Read the files of pools that have changed. Runs in a thread."""
    changes = []
    for name, tls in watched.items():
        try:
            new = tls.read_again()
        except ConfigError as error:
            changes.append(_Change(name, tls, None, tuple(error.problems)))
        else:
            if new is not None:
                changes.append(_Change(name, tls, new))
    return changes
