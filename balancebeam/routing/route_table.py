"""Where the requests of one frontend go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Protocol as Interface

from attrs import field, frozen

from balancebeam.core.uri import normalize_host, normalize_path
from balancebeam.proxy.dispatcher import Admission, BalancerResource
from balancebeam.routing.matchers import HostPathMatcher


class RequestHandler(Interface):
    """Who takes requests: a dispatcher, or whoever answers in its place."""

    def dispatch(self, exchange: Any, admission: Admission) -> None:
        """See a request through to its end; see `BalancerResource.dispatch`."""


class Matcher(Interface):
    """Which requests are meant."""

    def matches(self, host: bytes, path: bytes) -> bool:
        """Whether one is; see `HostPathMatcher.matches`."""


MATCH_ALL = HostPathMatcher()


@frozen(eq=False)
class Route:
    """
    The requests that `matcher` is about are asked of `admission`, and go on by
    `dispatcher`, unless `handler` answers them instead.
    """

    dispatcher: BalancerResource
    admission: Admission
    matcher: Matcher = MATCH_ALL
    handler: RequestHandler = field()

    @handler.default
    def _default_handler(self) -> RequestHandler:
        return self.dispatcher


class RouteTable:
    """The first of `routes` that is about a request takes it, or else `default`."""

    def __init__(self, default: Route, routes: Sequence[Route] = ()) -> None:
        self.default = default
        self.routes = tuple(routes)

    def find(self, host: bytes | None, target: bytes) -> Route:
        """The route of a request, of which the Host field and the target are given."""
        name, path = normalize_host(host or b""), normalize_path(target)
        for route in self.routes:
            if route.matcher.matches(name, path):
                return route
        return self.default
