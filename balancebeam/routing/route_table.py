"""Where the requests of one frontend go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import Protocol as Interface

from attrs import field, frozen

from balancebeam.core.uri import normalize_host, normalize_path
from balancebeam.proxy.dispatcher import BalancerResource, LimiterSeam
from balancebeam.routing.matchers import RouteRule


class Entry(Interface):
    """Who takes requests: a dispatcher, or whoever answers in its place."""

    def forward(self, exchange: Any, limiter: LimiterSeam) -> None:
        """See a request through to its end; see `BalancerResource.forward`."""


class Rule(Interface):
    """Which requests are meant."""

    def matches(self, host: bytes, path: bytes) -> bool:
        """Whether one is; see `RouteRule.matches`."""


ANY = RouteRule()


@frozen(eq=False)
class Route:
    """
    The requests that `rule` is about are asked of `limiter`, and go on by
    `dispatcher`, unless `entry` answers them instead.
    """

    dispatcher: BalancerResource
    limiter: LimiterSeam
    rule: Rule = ANY
    entry: Entry = field()

    @entry.default
    def _by_the_spine(self) -> Entry:
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
            if route.rule.matches(name, path):
                return route
        return self.default
