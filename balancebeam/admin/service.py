"""The admin service: the HTTP server of the admin API, and its parts from settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from balancebeam.admin.api import AdminApi
from balancebeam.admin.auth import Authorizer
from balancebeam.admin.events import EventStreams
from balancebeam.admin.http_server import AdminSite
from balancebeam.admin.interfaces import Balancer
from balancebeam.admin.operations import AdminOperations, HealthCheck
from balancebeam.admin.resource import AdminResource
from balancebeam.admin.slices import Slices
from balancebeam.admin.snapshot import SnapshotBuilder
from balancebeam.admin.traffic import TrafficSampler
from balancebeam.config.cross_checks import is_local
from balancebeam.config.secret_source import load_secret
from balancebeam.core.addresses import ListenAddress, TcpAddress
from balancebeam.core.settings import AdminSettings, HealthCheckSettings
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server


class AdminService(service.Service):
    """
    Serves the admin API of a balancer.

    Attributes:
        site: The protocol factory of the listener.
        events: The streams of `GET /events`.
        settings: The settings in force.
    """

    name = "admin"

    def __init__(
        self,
        balancer: Balancer,
        operations: AdminOperations,
        reactor: Any,
        settings: AdminSettings,
        authorizer: Authorizer,
    ) -> None:
        """
        Create the service; it binds no socket itself, see `listeners`.

        Args:
            balancer: The balancer to inspect and reload.
            operations: Changes its servers.
            reactor: The clock of the timeouts.
            settings: The address of the listener, and the token.
            authorizer: Authorizes requests; see `build_authorizer`.
        """
        sampler = TrafficSampler(balancer, reactor.seconds)
        self._slices = Slices(reactor)
        self.events = EventStreams(
            reactor,
            sampler,
            SnapshotBuilder(balancer, sampler),
            balancer.state_changes,
            self._slices,
        )
        api = AdminApi(balancer, operations, self.events)
        self._resource = AdminResource(api, authorizer, self._slices)
        self.site = AdminSite(self._resource, reactor)
        self.settings = settings

    def apply(self, settings: AdminSettings, authorizer: Authorizer) -> None:
        """Replace the settings and the authorizer; open connections use them too."""
        self.settings = settings
        self._resource.authorizer = authorizer
        self.events.close(self._resource.is_denied)

    def drain(self, handing_over: bool) -> None:
        """
        End the streams; clients connect again, to the process that listens.

        Args:
            handing_over: Whether that is the new process of a hot restart: other connections are
                then closed as well, when their responses are complete.
        """
        self.events.close()
        if handing_over:
            self.site.close_all()

    def listeners(self) -> Mapping[ListenAddress, AdminSite]:
        """Return the protocol factory by the address to listen on."""
        return {self.settings.bind: self.site}

    def startService(self) -> None:
        super().startService()
        self.events.start()

    def stopService(self) -> Any:
        self.events.stop()
        # Connections with a pending response are closed after it.
        self.site.close_all()
        self._slices.stop()
        return super().stopService()


def build_authorizer(settings: AdminSettings) -> Authorizer:
    """Return the authorizer for `settings`. Raises `ValueError` if the token cannot be read."""
    token = load_secret(settings.token) if settings.token is not None else None
    names = ["localhost"] if is_local(settings.bind) else []
    if isinstance(settings.bind, TcpAddress):
        names.append(settings.bind.host)
    return Authorizer(token, names)


def build_health_check(reactor: Any) -> HealthCheck:
    """Return a function that checks a server once, within the timeout of its settings."""

    def check_once(
        server: Server, checks: HealthCheckSettings, tls: ServerTls | None
    ) -> Deferred[str]:
        # Deferred import: treq is slow to import, and only health checks need it.
        from balancebeam.upstream.health.check_failures import failure_detail
        from balancebeam.upstream.health.errors import Unhealthy
        from balancebeam.upstream.health.probes import build_probe

        probe = build_probe(checks, reactor, lambda _: tls)
        check: Deferred[str] = Deferred.fromCoroutine(probe.check(server))
        check.addTimeout(checks.effective_timeout, reactor)

        def describe(failure: Failure) -> str:
            raise Unhealthy(failure_detail(failure, checks))

        return check.addErrback(describe)

    return check_once
