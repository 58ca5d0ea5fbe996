"""A pool: its servers with their load balancing, health checks and connections."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from attrs import evolve, frozen
from twisted.application import service
from twisted.logger import Logger

from balancebeam.admin.state_changes import StateChanges
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
from balancebeam.net.interfaces import DataReactor
from balancebeam.net.ticker import Ticker
from balancebeam.observability.latency import PoolLatency
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.connect_attempt import ConnectFunction
from balancebeam.upstream.connection_pool import ConnectionPool
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.health.thresholds import CheckThresholds
from balancebeam.upstream.http_pool import HttpPool
from balancebeam.upstream.pool_tls import PoolTls
from balancebeam.upstream.resolver import Resolver
from balancebeam.upstream.selector import SelectorService
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet
from balancebeam.upstream.tcp_pool import TcpPool
from balancebeam.web.resource import BalancerResource


@frozen
class SharedResources:
    """
    Resources that all pools share.

    Attributes:
        reactor: the reactor of health checks.
        data_reactor: the reactor of upstream connections.
        ticker: the coarse clock and the sweeps for timeouts.
        resolver: the DNS cache.
        random: the source of random numbers for load balancing.
        connect: opens upstream connections.
        state_changes: records the changes of the states of servers.
    """

    reactor: Any
    data_reactor: DataReactor
    ticker: Ticker
    resolver: Resolver
    random: Random
    connect: ConnectFunction
    state_changes: StateChanges


class PoolService(service.MultiService):
    """
    One pool.

    Attributes:
        settings: the active settings.
        mode: "http" balances requests, "tcp" balances connections.
        server_set: the servers.
        selector: the load balancing algorithm.
        health: the health and ejection state of the servers.
        connections: the upstream connection pool.
        dispatcher: dispatches requests to the servers.
        checker: active health checks, if enabled.
        latency: the latency histograms.
    """

    _log = Logger()

    def __init__(
        self,
        settings: PoolSettings,
        mode: str,
        admission: Admission,
        shared: SharedResources,
        tls: PoolTls,
    ) -> None:
        """
        Args:
            settings: the settings of the pool.
            mode: "http" or "tcp".
            admission: the admission of requests that come through no frontend.
            shared: resources that all pools share.
            tls: TLS of the connections to servers, read from the files in `settings`.
        """
        super().__init__()
        self.name = f"pool:{settings.name}"
        self.settings = settings
        self.mode = mode
        self._shared = shared
        ticker = shared.ticker
        self.server_set = ServerSet(settings.servers)
        shared.state_changes.watch(settings.name, self.server_set)
        self.selector = SelectorService(self._build_algorithm, self.server_set)
        self.health = HealthService(self.server_set, ticker, *_health_arguments(settings))
        pool_class: type[ConnectionPool[Any]] = TcpPool if mode == "tcp" else HttpPool
        self.connections = pool_class(
            shared.data_reactor,
            shared.resolver,
            settings.timeouts,
            ticker,
            shared.connect,
            self.health.request_failed,
        )
        self.connections.set_protocol(settings.protocol)
        self.set_tls(tls)
        self.server_set.subscribe(self._enable_tls)
        self.dispatcher = BalancerResource(
            self.selector,
            self.health,
            admission,
            self.connections,
            self._retry_settings(),
            settings.queue,
            pool_name=settings.name,
        )
        self.latency = PoolLatency(self.dispatcher, self.server_set)
        ticker.add(self.latency.sweep)
        self.checker: service.IService | None = None
        for child in (self.selector, self.health, self.connections):
            child.setServiceParent(self)
        self._start_health_checks()

    def apply(self, settings: PoolSettings, tls: PoolTls) -> None:
        """Replace the settings, and TLS read from their files; the rest is not touched."""
        old, self.settings = self.settings, settings
        self._update_servers(old.servers, settings.servers)
        self.set_tls(tls)
        self.connections.timeouts = settings.timeouts
        self.connections.set_protocol(settings.protocol)
        self.dispatcher.apply(self._retry_settings(), settings.queue)
        if _health_arguments(old) != _health_arguments(settings):
            self.health.configure(*_health_arguments(settings))
        if old.active != settings.active:
            self._stop_health_checks()
            self._start_health_checks()
            if settings.active is None:
                self.health.clear_check_results()
        if old.algorithm != settings.algorithm:
            self.selector.set_algorithm(self._build_algorithm)
        for server in self.server_set.servers:
            load_tracked = self.selector.tracks_load or server.error_rate_window is not None
            server.track(load_tracked=load_tracked)

    def set_tls(self, tls: PoolTls) -> None:
        """Use `tls` for new connections, and log its warnings; see `ConnectionPool.set_tls`."""
        if any(server.uses_tls for server in self.server_set.servers):
            tls.enable()
        self.connections.set_tls(tls)
        for warning in tls.warnings:
            # Not with the key "warning", which Twisted's legacy observers take for a warning of
            # Python.
            self._log.warn("pool {pool}: tls: {detail}", pool=self.settings.name, detail=warning)

    def find_tls(self, server: Server) -> ServerTls | None:
        """TLS for a new connection to `server`; `None` for a connection without TLS."""
        return self.connections.find_tls(server)

    def enable_tls(self) -> None:
        """Build the TLS context for a server that is registered with TLS; see `PoolTls.enable`."""
        tls = self.connections.tls
        if tls.client is None:
            tls.enable()
            self.set_tls(tls)

    def _enable_tls(self) -> None:
        """Build the context when the first server with TLS was added, and not in a request."""
        servers = self.server_set.servers
        if self.connections.tls.client is None and any(server.uses_tls for server in servers):
            self.enable_tls()

    def uses_tls(self, server: Server) -> bool:
        """Return whether connections to `server` use TLS."""
        return self.connections.tls.applies_to(server)

    def _update_servers(
        self, previous: Sequence[ServerSettings], desired: Sequence[ServerSettings]
    ) -> None:
        """Add, reconfigure and remove the configured servers, and restore their order."""
        server_set = self.server_set
        old = {settings.address: settings for settings in previous}
        new = {settings.address: settings for settings in desired}
        for existing in list(server_set.servers):
            if existing.address not in new and existing.source is ServerSource.CONFIGURED:
                server_set.remove(existing)
        for address, settings in new.items():
            if settings == old.get(address):
                # If the server is missing, an administrator has removed it.
                continue
            server = server_set.find(address)
            if server is None:
                server_set.add(settings)
            else:
                self._update_server(server, old.get(address), settings)
        # Registered servers stay behind the configured servers.
        positions = {address: position for position, address in enumerate(new)}
        server_set.reorder(lambda server: positions.get(server.address, len(positions)))

    def _update_server(
        self, server: Server, previous: ServerSettings | None, settings: ServerSettings
    ) -> None:
        """Reconfigure a server; a weight set at run time stays unless the file changed it."""
        server.source = ServerSource.CONFIGURED
        server.configure(settings)
        if previous is None or previous.weight != settings.weight:
            self.health.set_weight(server, settings.weight)
        else:
            self.server_set.notify(server)

    def _build_algorithm(self) -> Any:
        return ALGORITHMS[self.settings.algorithm](self._shared.random)

    def _retry_settings(self) -> RetrySettings:
        if self.mode == "tcp":
            # A TCP client is disconnected only when no server is left to try.
            return evolve(self.settings.retries, attempts=sys.maxsize)
        return self.settings.retries

    def _start_health_checks(self) -> None:
        active = self.settings.active
        if active is None:
            return
        # Imported late: treq, which health checks need, is slow to import.
        from balancebeam.upstream.health.checker import CheckerService
        from balancebeam.upstream.health.probes import build_probe

        reactor = self._shared.reactor
        probe = build_probe(active, reactor, self.find_tls, self.connections.uses_http2)
        checker = CheckerService(probe, active, self.server_set, self.health, reactor)
        checker.setServiceParent(self)
        self.checker = checker

    def _stop_health_checks(self) -> None:
        checker: Any = self.checker
        self.checker = None
        if checker is not None:
            checker.disownServiceParent()

    def drain(self) -> None:
        """Stop health checks and close idle upstream connections."""
        self._stop_health_checks()
        for server in self.server_set.servers:
            server.close_idle_connections()

    @property
    def has_connections(self) -> bool:
        """Whether any request is active or any upstream connection is open."""
        return (
            bool(self.connections.connections or self.connections.attempts)
            or self.has_active_requests
        )

    @property
    def has_active_requests(self) -> bool:
        """Whether any request is queued or in flight."""
        return bool(self.dispatcher.queue) or any(
            server.in_flight for server in (*self.server_set.servers, *self.server_set.draining)
        )

    def unregister_timers(self) -> None:
        """Remove the sweeps of this pool from the ticker; it will not start again."""
        for sweep in (
            *(self.health.sweep, self.connections.sweep),
            *(self.dispatcher.sweep, self.latency.sweep),
        ):
            self._shared.ticker.remove(sweep)


def _health_arguments(settings: PoolSettings) -> tuple[Any, ...]:
    """The settings of a `HealthService`, in the order of its parameters."""
    checks = settings.active or HealthCheckSettings()
    return (
        settings.passive,
        CheckThresholds(checks.fall, checks.rise),
        settings.slow_start,
        settings.timeouts.upstream,
    )
