"""The admin listener as a service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.application import service
from twisted.internet.defer import Deferred

from balancebeam.admin.api import Api
from balancebeam.admin.auth import Guard
from balancebeam.admin.http_server import AdminSite
from balancebeam.admin.operations import Balancer, Operator
from balancebeam.admin.resource import AdminResource
from balancebeam.config.cross_checks import is_local
from balancebeam.config.secret_source import load_secret
from balancebeam.core.addresses import ListenAddress, TcpAddress
from balancebeam.core.settings import AdminSettings, HealthCheckSettings
from balancebeam.upstream.server_set import Server


class AdminService(service.Service):
    """
    Lets the operator of `balancer` in. `guard` says who that is; see
    `guard_for`.
    """

    name = "admin"

    def __init__(self, balancer: Balancer, operator: Operator, reactor: Any) -> None:
        self._resource = AdminResource(Api(balancer, operator), Guard(b"\x00", ()))
        self.site = AdminSite(self._resource, reactor)
        self.settings = AdminSettings()

    def apply(self, settings: AdminSettings, guard: Guard) -> None:
        """Go by these from now on."""
        self.settings = settings
        self._resource.guard = guard

    def clients(self) -> Mapping[ListenAddress, Any]:
        """Who serves those that come in at the address."""
        return {self.settings.bind: self.site}

    def stopService(self) -> Any:
        self.site.close_all()
        return super().stopService()


def guard_for(settings: AdminSettings) -> Guard:
    """Who is let in. Raises `ValueError` if the token cannot be had."""
    token = load_secret(settings.token) if settings.token is not None else None
    names = ["localhost"] if is_local(settings.bind) else []
    if isinstance(settings.bind, TcpAddress):
        names.append(settings.bind.host)
    return Guard(token, names)


def asker(reactor: Any) -> Any:
    """What asks a server once whether it is well, within the time that checks have."""

    def alive(server: Server, checks: HealthCheckSettings) -> Deferred[str]:
        # Imported here because treq, which this needs, takes its time.
        from balancebeam.upstream.health.probes import build_probe

        asking: Deferred[str] = Deferred.fromCoroutine(build_probe(checks, reactor).check(server))
        return asking.addTimeout(checks.effective_timeout, reactor)

    return alive
