"""Where the requests of one frontend go."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from balancebeam.doors.resource import BalancerResource, LimiterSeam
from balancebeam.policy.hosts import plain_host
from balancebeam.policy.paths import routed_path
from balancebeam.policy.routing import RouteRule

ANY = RouteRule()


@frozen(eq=False)
class Route:
    """The requests that `rule` is about are asked of `limiter`, and go on by `spine`."""

    spine: BalancerResource
    limiter: LimiterSeam
    rule: RouteRule = ANY


class RouteTable:
    """The first of `routes` that is about a request takes it, or else `default`."""

    def __init__(self, default: Route, routes: Sequence[Route] = ()) -> None:
        self.default = default
        self.routes = tuple(routes)

    def find(self, host: bytes | None, target: bytes) -> Route:
        """The route of a request, of which the Host field and the target are given."""
        name, path = plain_host(host or b""), routed_path(target)
        for route in self.routes:
            if route.rule.matches(name, path):
                return route
        return self.default
