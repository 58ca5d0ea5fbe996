"""
State that the factory of a frontend shares with its client connections.

The factory owns the context and changes it on reloads and drains. Connections read it for
each request, so that a change applies to connections that are already open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import Factory, define

from balancebeam.core.settings import FrontendTimeouts
from balancebeam.downstream.interfaces import ClientChannel
from balancebeam.net.ticker import Ticker
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Observer
from balancebeam.proxy.route_target import RouteTarget
from balancebeam.routing.route_table import RouteTable

T = TypeVar("T")

# While draining, a connection that has received nothing for this many seconds is closed as
# idle. Before that, a request may be on its way.
DRAIN_IDLE_TIMEOUT = 1.0


def transport_bytes(connection: object) -> tuple[int, int]:
    """
    The bytes received and sent on the transport of a connection.

    0 for transports that do not count them, such as the transports of Twisted endpoints.
    """
    transport = getattr(connection, "transport", None)
    return getattr(transport, "bytes_received", 0), getattr(transport, "bytes_sent", 0)


class ConnectionSet(set[T]):
    """
    Open connections, with a notification for a limit of their number, and their bytes.

    Attributes:
        on_change: Called after each addition and removal, if set.
        closed_bytes_received: Bytes received on the connections that were discarded.
        closed_bytes_sent: Bytes sent on them.
    """

    closed_bytes_received = 0
    closed_bytes_sent = 0

    on_change: Callable[[], object] | None = None

    def add(self, connection: T) -> None:
        super().add(connection)
        if self.on_change is not None:
            self.on_change()

    def replace(self, connection: object) -> None:
        """Remove a connection whose transport another object takes over, and adds at once."""
        super().discard(connection)

    def discard(self, connection: object) -> None:
        if connection in self:
            received, sent = transport_bytes(connection)
            self.closed_bytes_received += received
            self.closed_bytes_sent += sent
        super().discard(connection)
        if self.on_change is not None:
            self.on_change()

    def hand_over(self, connection: object) -> None:
        """Remove a connection whose transport continues in another set, which counts its bytes."""
        super().discard(connection)
        if self.on_change is not None:
            self.on_change()

    @property
    def byte_counts(self) -> tuple[int, int]:
        """Bytes received and sent so far, on open and on discarded connections."""
        received, sent = self.closed_bytes_received, self.closed_bytes_sent
        for connection in self:
            more_received, more_sent = transport_bytes(connection)
            received += more_received
            sent += more_sent
        return received, sent


@define(eq=False, kw_only=True)
class FrontendContext:
    """
    The part of a frontend that its connections use.

    Attributes:
        ticker: The clock of timeouts and timestamps.
        timeouts: Client timeouts.
        default_route: The route of requests that match no other.
        route_table: The routes to search; `None` if there is only the default route, which
            saves the search.
        observer: Notified of finished exchanges and rejected requests.
        draining: Whether connections close after the exchange in progress.
        needs_accounting: Whether `observer` or `draining` is set. Exchanges check this one
            flag instead of both.
        channels: The open connections.
    """

    ticker: Ticker
    timeouts: FrontendTimeouts
    default_route: RouteTarget
    route_table: RouteTable[RouteTarget] | None = None
    observer: Observer[Exchange] | None = None
    draining: bool = False
    needs_accounting: bool = False
    channels: ConnectionSet[ClientChannel] = Factory(ConnectionSet)

    def set_route_table(self, table: RouteTable[RouteTarget]) -> None:
        """Use `table` for requests and connections from now on."""
        self.default_route = table.default
        self.route_table = table if table.routes else None

    def set_observer(self, observer: Observer[Exchange] | None) -> None:
        """Notify `observer` of exchanges that start from now on."""
        self.observer = observer
        self.needs_accounting = self.draining or observer is not None

    def set_draining(self, draining: bool) -> None:
        """Start or end draining."""
        self.draining = draining
        self.needs_accounting = draining or self.observer is not None
