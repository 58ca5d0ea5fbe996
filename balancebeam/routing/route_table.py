"""Route tables: the first matching route of a request, and its target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, Protocol, TypeVar

from attrs import frozen

from balancebeam.core.uri import normalize_host, normalize_path

TargetT = TypeVar("TargetT")


class Matcher(Protocol):
    """The condition of a route."""

    def matches(self, host: bytes, path: bytes) -> bool:
        """Whether a request matches, see `HostPathMatcher.matches`."""


@frozen(eq=False)
class Route(Generic[TargetT]):
    """
    One route.

    Attributes:
        matcher: Selects the requests of the route.
        target: Where they go; the caller decides what a target is.
    """

    matcher: Matcher
    target: TargetT


class RouteTable(Generic[TargetT]):
    """
    Routes in order, the first match wins.

    Attributes:
        default: The target of requests that no route matches.
        routes: The routes.
    """

    def __init__(self, default: TargetT, routes: Sequence[Route[TargetT]] = ()) -> None:
        self.default = default
        self.routes = tuple(routes)

    @property
    def targets(self) -> Iterator[TargetT]:
        """Every target, the default first."""
        yield self.default
        for route in self.routes:
            yield route.target

    def find(self, host: bytes | None, target: bytes) -> TargetT:
        """
        Find the target of a request.

        Args:
            host: The value of the Host field; `None` without one.
            target: The request target, as received.
        """
        name, path = normalize_host(host or b""), normalize_path(target)
        for route in self.routes:
            if route.matcher.matches(name, path):
                return route.target
        return self.default
