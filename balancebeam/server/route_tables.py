"""Builds the route table of each frontend, with the rate limits of frontend, route and pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred

from balancebeam.admin.operations import AdminOperations
from balancebeam.admin.registration import register
from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Admission, LimitsByScope
from balancebeam.admission.limiter import LimiterService
from balancebeam.core.settings import FrontendSettings, Settings
from balancebeam.downstream.redirect import HttpsRedirect
from balancebeam.downstream.registration import REGISTRATION_PATH, RegistrationEndpoint
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.matchers import HostPathMatcher, PathMatcher
from balancebeam.routing.route_table import Route, RouteTable
from balancebeam.server.pool import PoolService


class RouteTableBuilder:
    """
    Builds route tables.

    Rate limits are kept by scope, a text that names their frontend, route or pool.
    So they keep their counters when a reload adds other routes or pools.

    Args:
        limiter: the rate limits.
        operations: registers servers.
        build_redirect: builds the redirect to https of a frontend with this admission.
    """

    def __init__(
        self,
        limiter: LimiterService,
        operations: AdminOperations,
        build_redirect: Callable[[Admission], HttpsRedirect],
    ) -> None:
        self._limiter = limiter
        self._operations = operations
        self._build_redirect = build_redirect

    def limits(self, settings: Settings) -> LimitsByScope:
        """Prepare the rate limits of `settings`. Raises `ValueError` if one is invalid."""
        limits = {_pool_scope(pool.name): pool.limits for pool in settings.pools}
        for frontend in settings.frontends:
            limits[_frontend_scope(frontend)] = frontend.limits
            for route in frontend.routes:
                limits[_route_scope(frontend, route.host, route.path)] = route.limits
        return self._limiter.prepare(limits)

    def pool_admission(self, pool: str) -> Admission:
        """The admission of requests that come to `pool` through no frontend."""
        return self._limiter.build_admission(self._limiter.scopes[_pool_scope(pool)])

    def build(
        self, frontend: FrontendSettings, pools: Mapping[str, PoolService]
    ) -> RouteTable[RouteTarget]:
        """Build the route table of `frontend`; the first matching route is used."""
        access = AccessList(frontend.allow, frontend.deny)
        scopes = self._limiter.scopes
        if frontend.redirect_https:
            own = self._limiter.build_admission(scopes[_frontend_scope(frontend)], access)
            redirect = self._build_redirect(own)
            return RouteTable(RouteTarget(redirect, own, frontend=frontend.name))

        def admission(pool: str, route_scope: str | None = None) -> Admission:
            limits = scopes[_frontend_scope(frontend)]
            limits += (scopes[route_scope] if route_scope else ()) + scopes[_pool_scope(pool)]
            return self._limiter.build_admission(limits, access)

        default = RouteTarget(
            pools[frontend.pool].dispatcher, admission(frontend.pool), frontend=frontend.name
        )
        routes = []
        if frontend.registration:
            endpoint = self._registration_endpoint(frontend, pools[frontend.pool])
            target = RouteTarget(
                *(default.dispatcher, admission(frontend.pool), endpoint),
                name=REGISTRATION_PATH.decode(),
                frontend=frontend.name,
            )
            routes.append(Route(PathMatcher(REGISTRATION_PATH), target))
        for settings in frontend.routes:
            scope = _route_scope(frontend, settings.host, settings.path)
            target = RouteTarget(
                pools[settings.pool].dispatcher,
                admission(settings.pool, scope),
                name=" ".join(filter(None, (settings.host, settings.path))),
                frontend=frontend.name,
            )
            routes.append(Route(HostPathMatcher(settings.host, settings.path), target))
        return RouteTable(default, routes)

    def _registration_endpoint(
        self, frontend: FrontendSettings, pool: PoolService
    ) -> RegistrationEndpoint:
        """Build the endpoint that registers servers in the frontend's own pool."""

        def register_server(body: bytes) -> Deferred[tuple[int, bytes]]:
            return Deferred.fromCoroutine(register(self._operations, pool, body))

        return RegistrationEndpoint(frontend.registration_from, register_server)


def _pool_scope(pool: str) -> str:
    return f"pool {pool}"


def _frontend_scope(frontend: FrontendSettings) -> str:
    return f"frontend {frontend.name}"


def _route_scope(frontend: FrontendSettings, host: str | None, path: str | None) -> str:
    return f"{_frontend_scope(frontend)} route {host} {path}"
