"""The ways from frontends to pools, and the limits that stand along them."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import Deferred

from balancebeam.admin.operations import AdminOperations
from balancebeam.admin.registration import register
from balancebeam.admission.access_list import AccessList
from balancebeam.admission.admission import Admission, LimitsByScope
from balancebeam.admission.limiter import LimiterService
from balancebeam.core.settings import FrontendSettings, Settings
from balancebeam.downstream.registration import REGISTRATION_PATH, RegistrationEndpoint
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.matchers import HostPathMatcher, PathMatcher
from balancebeam.routing.route_table import Route, RouteTable
from balancebeam.server.pool import PoolService


class RouteTableBuilder:
    """
    Makes the route tables of frontends.

    A limit is known by what it is for, its scope, so that it keeps its counts
    when routes come before it or pools beside it.
    """

    def __init__(self, limiter: LimiterService, operations: AdminOperations) -> None:
        self._limiter = limiter
        self._operations = operations

    def limits(self, settings: Settings) -> LimitsByScope:
        """The limits that `settings` want. Raises `ValueError`."""
        wanted = {_pool_scope(pool.name): pool.limits for pool in settings.pools}
        for frontend in settings.frontends:
            wanted[_frontend_scope(frontend)] = frontend.limits
            for route in frontend.routes:
                wanted[_route_scope(frontend, route.host, route.path)] = route.limits
        return self._limiter.prepare(wanted)

    def pool_admission(self, pool: str) -> Admission:
        """What everybody has to pass who comes to this pool."""
        return self._limiter.build_admission(self._limiter.scopes[_pool_scope(pool)])

    def build(
        self, frontend: FrontendSettings, pools: Mapping[str, PoolService]
    ) -> RouteTable[RouteTarget]:
        """Where the requests go that come in at `frontend`."""
        access = AccessList(frontend.allow, frontend.deny)
        scopes = self._limiter.scopes

        def admission(pool: str, own: str | None = None) -> Admission:
            limits = scopes[_frontend_scope(frontend)]
            limits += (scopes[own] if own else ()) + scopes[_pool_scope(pool)]
            return self._limiter.build_admission(limits, access)

        routes = []
        default = RouteTarget(pools[frontend.pool].dispatcher, admission(frontend.pool))
        if frontend.registration:
            endpoint = self._registration_endpoint(frontend, pools[frontend.pool])
            target = RouteTarget(default.dispatcher, admission(frontend.pool), endpoint)
            routes.append(Route(PathMatcher(REGISTRATION_PATH), target))
        for route in frontend.routes:
            scope = _route_scope(frontend, route.host, route.path)
            target = RouteTarget(pools[route.pool].dispatcher, admission(route.pool, scope))
            routes.append(Route(HostPathMatcher(route.host, route.path), target))
        return RouteTable(default, routes)

    def _registration_endpoint(
        self, frontend: FrontendSettings, pool: PoolService
    ) -> RegistrationEndpoint:
        """Where servers register, into the frontend's own pool."""

        def answering(body: bytes) -> Deferred[tuple[int, bytes]]:
            return Deferred.fromCoroutine(register(self._operations, pool, body))

        return RegistrationEndpoint(pool.dispatcher, frontend.registration_from, answering)


def _pool_scope(pool: str) -> str:
    return f"pool {pool}"


def _frontend_scope(frontend: FrontendSettings) -> str:
    return f"frontend {frontend.name}"


def _route_scope(frontend: FrontendSettings, host: str | None, path: str | None) -> str:
    return f"{_frontend_scope(frontend)} route {host} {path}"
