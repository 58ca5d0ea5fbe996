"""The admin listener as a service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred

from balancebeam.admin.api import AdminApi
from balancebeam.admin.auth import Authorizer
from balancebeam.admin.http_server import AdminSite
from balancebeam.admin.operations import AdminOperations, Balancer
from balancebeam.admin.resource import AdminResource
from balancebeam.config.cross_checks import is_local
from balancebeam.config.secret_source import load_secret
from balancebeam.core.addresses import ListenAddress, TcpAddress
from balancebeam.core.settings import AdminSettings, HealthCheckSettings
from balancebeam.upstream.server import Server


class AdminService(service.Service):
    """
    Lets the operator of `balancer` in. `authorizer` says who that is; see
    `build_authorizer`.
    """

    name = "admin"

    def __init__(self, balancer: Balancer, operations: AdminOperations, reactor: Any) -> None:
        self._resource = AdminResource(AdminApi(balancer, operations), Authorizer(b"\x00", ()))
        self.site = AdminSite(self._resource, reactor)
        self.settings = AdminSettings()

    def apply(self, settings: AdminSettings, authorizer: Authorizer) -> None:
        """Go by these from now on."""
        self.settings = settings
        self._resource.authorizer = authorizer

    def listeners(self) -> Mapping[ListenAddress, Any]:
        """Who serves those that come in at the address."""
        return {self.settings.bind: self.site}

    def stopService(self) -> Any:
        self.site.close_all()
        return super().stopService()


def build_authorizer(settings: AdminSettings) -> Authorizer:
    """Who is let in. Raises `ValueError` if the token cannot be had."""
    token = load_secret(settings.token) if settings.token is not None else None
    names = ["localhost"] if is_local(settings.bind) else []
    if isinstance(settings.bind, TcpAddress):
        names.append(settings.bind.host)
    return Authorizer(token, names)


def build_health_check(reactor: Any) -> Any:
    """What asks a server once whether it is well, within the time that checks have."""

    def check_once(server: Server, checks: HealthCheckSettings) -> Deferred[str]:
        # Imported here because treq, which this needs, takes its time.
        from balancebeam.upstream.health.probes import build_probe

        check: Deferred[str] = Deferred.fromCoroutine(build_probe(checks, reactor).check(server))
        return check.addTimeout(checks.effective_timeout, reactor)

    return check_once
