"""Interfaces through which the admin API reads and changes a running balancer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.defer import Deferred

from balancebeam.admin.state_changes import StateChanges
from balancebeam.core.settings import FrontendSettings, PoolSettings, Settings
from balancebeam.observability.interfaces import BalancerStats, FrontendStats, PoolStats
from balancebeam.observability.recent_requests import RecentRequests
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.route_table import RouteTable
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.health.service import HealthService
from balancebeam.upstream.server import Server


class Pool(PoolStats, Protocol):
    """A pool whose servers can be listed and changed."""

    settings: PoolSettings

    @property
    def health(self) -> HealthService:
        """The service that sets weights and admin states."""

    def uses_tls(self, server: Server) -> bool:
        """Return whether connections to `server` use TLS."""

    def enable_tls(self) -> None:
        """Build the TLS context for a server that is registered with TLS."""

    def find_tls(self, server: Server) -> ServerTls | None:
        """TLS for a new connection to `server`; `None` for a connection without TLS."""


class Frontend(FrontendStats, Protocol):
    """
    A frontend whose routes can be explained.

    Attributes:
        settings: The active settings.
        route_table: The active routes.
    """

    settings: FrontendSettings
    route_table: RouteTable[RouteTarget]


class Balancer(BalancerStats, Protocol):
    """A balancer that can be inspected, changed and reloaded."""

    settings: Settings

    @property
    def pools(self) -> Mapping[str, Pool]:
        """The pools by name."""

    @property
    def frontends(self) -> Mapping[str, Frontend]:
        """The frontends by name."""

    @property
    def default_pool(self) -> Pool:
        """The pool of the first frontend that has one; `POST /register` adds servers to it."""

    @property
    def recent_requests(self) -> RecentRequests:
        """The recent requests."""

    @property
    def state_changes(self) -> StateChanges:
        """The recent changes of the states of servers."""

    def not_ready_reason(self) -> str:
        """Return why traffic cannot be served; an empty string if it can."""

    def save(self) -> Deferred[None]:
        """Write the runtime changes to the state file, if there is one; never fails."""

    def reload(self) -> list[str]:
        """Read the configuration again, and return the changes. Raises `ConfigError`."""
