"""The balancer: a tree of services that starts, stops, drains and reloads as one service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from balancebeam.core.addresses import EndpointAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import Settings
from balancebeam.net import connector
from balancebeam.server.drain import not_ready_reason, start_drain
from balancebeam.server.endpoints import parse_endpoint
from balancebeam.server.listeners import BindAddress, InheritedSocket, Listener, bind_address
from balancebeam.server.reload import Reloader, ReloadTransaction
from balancebeam.server.service_tree import ServiceTree
from balancebeam.server.startup_log import log_demo_command, log_listeners
from balancebeam.upstream.connect_attempt import ConnectFunction


class BalancerService(ServiceTree):
    """
    A complete balancer.

    Starting it binds the listeners; stopping it closes them and every
    connection. See `ServiceTree` for its attributes and named children.
    """

    def __init__(
        self,
        settings: Settings,
        reactor: Any,
        random: Random,
        connect: ConnectFunction = connector.connect,
        clock: Callable[[], float] | None = None,
        load_settings: Callable[[], Settings] | None = None,
        find_inherited_sockets: Callable[[], Mapping[str, InheritedSocket]] | None = None,
    ) -> None:
        """
        Build the services; no socket is touched before the start.

        Args:
            settings: the settings to start with.
            reactor: the Twisted reactor.
            random: the source of random numbers for load balancing and request ids.
            connect: opens upstream connections; replaced in tests.
            clock: returns seconds and never runs backwards, for rate limits; by
                default `reactor.seconds`.
            load_settings: returns the settings for `reload` or raises
                `ConfigError`; by default the active settings.
            find_inherited_sockets: returns listening sockets by the text of their
                address, which are used instead of new ones. Called once.

        Raises:
            ConfigError: an endpoint description, a rate limit, a certificate, the ACME
                account or the token of the admin API is invalid.
        """
        super().__init__(
            settings, reactor, random, connect, clock, load_settings, find_inherited_sockets
        )
        self._reloader = Reloader(self)
        _validate_endpoints(settings, reactor)
        # Children start in this order and stop in reverse: the listeners start last,
        # and the access logs stop after the frontends and pools that write to them.
        self.ticker.setServiceParent(self)
        self.limiter.setServiceParent(self)
        self.access_logs.setServiceParent(self)
        self.certificates.setServiceParent(self)
        self.pool_certificates.setServiceParent(self)
        ReloadTransaction.prepare(self, settings).commit()
        self.listeners.setServiceParent(self)
        self.ticker.add(self.retired.reap)

    def privilegedStartService(self) -> None:
        # Bind before `twistd --uid` drops privileges, so that low ports are available.
        self._listen()
        super().privilegedStartService()

    def startService(self) -> None:
        """
        Bind the listeners, unless `privilegedStartService` has, and start all services.

        Raises:
            ConfigError: addresses or access log files are not available; nothing
                is left open.
        """
        self.draining = False
        self._listen()
        super().startService()
        # Not earlier: the state file and the demo have added their servers by now.
        log_listeners(self, self.listeners.listeners)
        if self.demo is not None:
            log_demo_command(self)

    def _listen(self) -> None:
        """Open the access logs and bind the listeners; a second call does nothing."""
        factories = self.connection_factories()
        problems: list[str] = []
        bound: dict[BindAddress, Listener] = {}
        try:
            self.access_logs.open()
        except ConfigError as error:
            problems += error.problems
        try:
            bound = self.bind(factories, self.settings)
        except ConfigError as error:
            problems += error.problems
        if problems:
            self.access_logs.close()
            self.listeners.activate({}, bound)
            raise ConfigError(*problems)
        self.activate_listeners(bound)

    def stopService(self) -> Any:
        self.admin_operations.stop()
        return super().stopService()

    def apply(self, settings: Settings) -> None:
        """
        Replace the active settings.

        What they do not change is not touched, and requests and connections in
        progress continue.

        Raises:
            ConfigError: a part of `settings` is invalid or not available; nothing
                has changed.
        """
        ReloadTransaction.prepare(self, settings).commit()

    def reload(self) -> list[str]:
        """
        Load the settings again and apply them.

        Returns:
            One line for each change.

        Raises:
            ConfigError: the settings are invalid or not available, or the balancer is
                draining; nothing has changed, and every problem has been logged.
        """
        return self._reloader.reload()

    @property
    def reloads(self) -> int:
        """The number of reloads."""
        return self._reloader.succeeded

    @property
    def reloads_failed(self) -> int:
        """The number of rejected reloads."""
        return self._reloader.failed

    @property
    def reloaded_at(self) -> float:
        """The time of the last reload in seconds since the epoch; 0 if there was none."""
        return self._reloader.last_success

    def drain(self, handing_over: bool = False) -> Deferred[None]:
        """
        Shut down gracefully: close the listeners and idle client connections, and
        let active requests finish for at most `drain_timeout` seconds, or
        `handover_timeout` after a hot restart.

        Args:
            handing_over: whether the new process of a hot restart serves the admin
                API; it is closed here then, otherwise it stays open.

        Returns:
            A Deferred that fires when no connection is left or the timeout expired.
        """
        return start_drain(self, handing_over)

    def not_ready_reason(self) -> str:
        """Why no traffic can be served; empty if the balancer is ready."""
        return not_ready_reason(self)


def _validate_endpoints(settings: Settings, reactor: Any) -> None:
    """Raise `ConfigError` if an endpoint description is invalid."""
    for frontend in settings.frontends:
        for address in frontend.bind:
            bound = bind_address(address)
            if isinstance(bound, EndpointAddress):
                try:
                    parse_endpoint(bound, reactor)
                except ValueError as error:
                    raise ConfigError(f"--bind: {address}: {error}") from error
