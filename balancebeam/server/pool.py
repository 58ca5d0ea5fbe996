"""One pool: its servers and all that watches, chooses and reaches them, as a service."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.application import service

from balancebeam.admission.admission import Admission
from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import (
    HealthCheckSettings,
    PoolSettings,
    RetrySettings,
    ServerSettings,
    ServerSource,
)
from balancebeam.net.ticker import Ticker
from balancebeam.upstream.connect_attempt import ConnectFunction
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.health.thresholds import CheckThresholds
from balancebeam.upstream.http1_pool import Http1Pool
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet
from balancebeam.upstream.tcp_pool import TcpPool
from balancebeam.web.resource import BalancerResource


@frozen
class SharedResources:
    """What all pools share. Data connections are served by `data_reactor`."""

    reactor: Any
    data_reactor: Any
    ticker: Ticker
    resolver: Resolver
    random: Random
    connect: ConnectFunction


class PoolService(service.MultiService):
    """
    The servers of one pool, for requests or, in `mode` "tcp", for connections.

    `dispatcher` is the way of a request; `admission` is asked about those that come
    through no frontend.
    """

    def __init__(
        self, settings: PoolSettings, mode: str, admission: Admission, shared: SharedResources
    ) -> None:
        super().__init__()
        self.name = f"pool:{settings.name}"
        self.settings = settings
        self.mode = mode
        self._shared = shared
        ticker = shared.ticker
        self.server_set = ServerSet(settings.servers)
        self.selector = SelectorService(self._build_algorithm, self.server_set)
        self.health = HealthService(self.server_set, ticker, *_health_arguments(settings))
        kind: type[ConnectionPool[Any]] = TcpPool if mode == "tcp" else Http1Pool
        self.connections = kind(
            shared.data_reactor,
            shared.resolver,
            settings.timeouts,
            ticker,
            shared.connect,
            self.health.request_failed,
        )
        self.dispatcher = BalancerResource(
            self.selector,
            self.health,
            admission,
            self.connections,
            self._retry_settings(),
            settings.queue,
            pool_name=settings.name,
        )
        self.checker: service.IService | None = None
        for child in (self.selector, self.health, self.connections):
            child.setServiceParent(self)
        self._start_health_checks()

    # When the settings change.

    def apply(self, settings: PoolSettings) -> None:
        """Go by `settings` from now on. What they do not change is not touched."""
        before, self.settings = self.settings, settings
        self._update_servers(before.servers, settings.servers)
        self.connections.timeouts = settings.timeouts
        self.dispatcher.apply(self._retry_settings(), settings.queue)
        if _health_arguments(before) != _health_arguments(settings):
            self.health.configure(*_health_arguments(settings))
        if before.active != settings.active:
            self._stop_health_checks()
            self._start_health_checks()
            if settings.active is None:
                self.health.clear_check_results()
        if before.algorithm != settings.algorithm:
            self.selector.set_algorithm(self._build_algorithm)
        for server in self.server_set.servers:
            load_tracked = self.selector.tracks_load or server.error_rate_window is not None
            server.track(load_tracked=load_tracked)

    def _update_servers(
        self, previous: Sequence[ServerSettings], desired: Sequence[ServerSettings]
    ) -> None:
        server_set = self.server_set
        old = {settings.address: settings for settings in previous}
        new = {settings.address: settings for settings in desired}
        for server in list(server_set.servers):
            if server.address not in new and server.source is ServerSource.CONFIGURED:
                server_set.remove(server)
        for address, settings in new.items():
            known = server_set.find(address)
            if settings == old.get(address):
                # One that is not there was taken out by the operator.
                continue
            if known is None:
                server_set.add(settings)
            else:
                self._update_server(known, old.get(address), settings)
        places = {address: place for place, address in enumerate(new)}
        server_set.reorder(lambda server: places.get(server.address, len(places)))

    def _update_server(
        self, server: Server, previous: ServerSettings | None, settings: ServerSettings
    ) -> None:
        """What the operator has set stays, unless it is just this that has changed."""
        server.source = ServerSource.CONFIGURED
        server.configure(settings)
        if previous is None or previous.weight != settings.weight:
            self.health.set_weight(server, settings.weight)
        else:
            self.server_set.notify(server)

    # Parts.

    def _build_algorithm(self) -> Any:
        return ALGORITHMS[self.settings.algorithm](self._shared.random)

    def _retry_settings(self) -> RetrySettings:
        if self.mode == "tcp":
            # A client is closed only when there is no server left to try.
            return evolve(self.settings.retries, attempts=sys.maxsize)
        return self.settings.retries

    def _start_health_checks(self) -> None:
        active = self.settings.active
        if active is None:
            return
        # Imported here because treq, which checks need, takes its time.
        from balancebeam.upstream.health.checker import CheckerService
        from balancebeam.upstream.health.probes import build_probe

        reactor = self._shared.reactor
        probe = build_probe(active, reactor)
        checker = CheckerService(probe, active, self.server_set, self.health, reactor)
        checker.setServiceParent(self)
        self.checker = checker

    def _stop_health_checks(self) -> None:
        checker: Any = self.checker
        self.checker = None
        if checker is not None:
            checker.disownServiceParent()

    # When the pool is no more.

    def drain(self) -> None:
        """Keep nothing that is not in use."""
        self._stop_health_checks()
        for server in self.server_set.servers:
            server.close_idle_connections()

    @property
    def has_connections(self) -> bool:
        """Whether any request, or connection, is not over."""
        return (
            bool(self.connections.connections or self.connections.attempts)
            or self.has_active_requests
        )

    @property
    def has_active_requests(self) -> bool:
        """Whether anybody waits for an answer."""
        return bool(self.dispatcher.queue) or any(
            server.in_flight for server in (*self.server_set.servers, *self.server_set.draining)
        )

    def unregister_timers(self) -> None:
        """It is gone for good."""
        for part in (self.health, self.connections, self.dispatcher):
            self._shared.ticker.remove(part.sweep)


def _health_arguments(settings: PoolSettings) -> tuple[Any, ...]:
    checks = settings.active or HealthCheckSettings()
    return (
        settings.passive,
        CheckThresholds(checks.fall, checks.rise),
        settings.slow_start,
        settings.timeouts.upstream,
    )
