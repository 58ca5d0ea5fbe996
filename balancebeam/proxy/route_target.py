"""What a route leads to: a dispatcher with the admission that its requests must pass."""

from __future__ import annotations

from typing import Protocol

from attrs import field, frozen

from balancebeam.admission.admission import Admission
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Pipeline


class RequestHandler(Protocol):
    """Processes requests: a dispatcher, or an endpoint that answers them itself."""

    def dispatch(self, exchange: Exchange, admission: Admission) -> None:
        """Process a request until it is finished, see `Dispatcher.dispatch`."""


class RouteDispatcher(Pipeline[Exchange], RequestHandler, Protocol):
    """A `Dispatcher`, or a `LocalDispatcher` in a route without a pool."""


@frozen(eq=False)
class RouteTarget:
    """
    The target of a route.

    Attributes:
        dispatcher: The pipeline of the requests, usually that of a pool.
        admission: The access list and rate limits of the route.
        handler: Processes the requests; the dispatcher by default.
        name: Host and path of the route, for logs; empty for the default route.
        frontend: The name of the frontend, for logs.
    """

    dispatcher: RouteDispatcher
    admission: Admission
    handler: RequestHandler = field()
    name: str = ""
    frontend: str = ""

    @handler.default
    def _default_handler(self) -> RequestHandler:
        return self.dispatcher
