"""The servers of a pool, and what is known of each right now."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable

from attrs import frozen

from balancebeam.core.addresses import ServerAddress
from balancebeam.core.settings import AdminState, ServerSettings, ServerSource
from balancebeam.upstream.health.error_rate import ErrorRateWindow

if TYPE_CHECKING:
    from balancebeam.upstream.http1_connection import UpstreamConnection

# Idle connections kept for one server.
MAX_IDLE_CONNECTIONS = 512


@frozen
class CheckResult:
    """What an active check saw, at `when` (seconds since the epoch)."""

    checked_at: float
    passed: bool
    reason: str


class Server:
    """
    One server while the program runs.

    `in_flight` counts the requests that are its to answer, `total_requests` those it
    was ever given, and `failed_requests` those that it failed. `idle_connections` holds its
    idle connections, the one used last at the end. `effective_weight` is its weight, or
    less while it warms up.

    Three things keep a server from traffic: the `admin_state`; active checks,
    when it is not `healthy`; and its own failures, while it is `ejected`. It
    is `available` when none does. `status_reason` says what happened last, at `status_since`
    on the reactor's clock.

    `tracked` servers have somebody who wants to hear of each of their
    requests: the algorithm or the count of errors (`load_tracked`), or the health
    service, which has, or not long ago had, something against them
    (`under_observation`). `trial_requests` are the requests they were given since. `half_open` is
    the time between a cooldown and the test that shows whether it helped,
    which was begun at `trial_started_at`. After it was `recently_ejected` older requests show
    nothing any more. Since `healthy_since` all is well again.
    """

    def __init__(
        self, settings: ServerSettings, source: ServerSource = ServerSource.CONFIGURED
    ) -> None:
        self.address = settings.address
        self.name = str(settings.address)
        self.weight = settings.weight
        self.effective_weight = float(settings.weight)
        self.source = source
        # When it was checked last, on the ticker's time of day, and what was seen.
        self.last_check: CheckResult | None = None
        self.idle_connections: dict[UpstreamConnection, None] = {}
        self.admin_state = AdminState.READY
        self.configure(settings)
        self.in_flight = 0
        self.total_requests = 0
        self.failed_requests = 0
        self.removed = False
        self.healthy = True
        self.check_streak = 0
        self.ejected = False
        self.available = False
        self.status_reason = ""
        self.status_since = 0.0
        self.consecutive_failures = 0
        self.cooldown = 0.0
        self.ejected_until = 0.0
        self.load_tracked = False
        self.under_observation = False
        self.tracked = False
        self.recently_ejected = False
        self.half_open = False
        self.trial_requests: set[object] = set()
        self.trial_started_at = 0.0
        self.healthy_since = 0.0
        self.error_rate_window: ErrorRateWindow | None = None

    def configure(self, settings: ServerSettings) -> None:
        """Take over all of `settings` but the weight."""
        self.backup = settings.backup
        self.max_in_flight = settings.max_in_flight or sys.maxsize
        self.proxy_protocol = settings.proxy_protocol
        # What the file says of its weight, whatever the operator has made of it.
        self.configured_weight = settings.weight
        # A connection that began with a client's address is for no other.
        self.default_max_idle = 0 if settings.proxy_protocol else MAX_IDLE_CONNECTIONS
        if self.admin_state is AdminState.READY:
            self.max_idle = self.default_max_idle
        if not self.default_max_idle:
            for connection in list(self.idle_connections):
                connection.close_idle()

    def track(
        self, *, load_tracked: bool | None = None, under_observation: bool | None = None
    ) -> None:
        """Set either reason for which somebody wants to hear of its requests."""
        if load_tracked is not None:
            self.load_tracked = load_tracked
        if under_observation is not None:
            self.under_observation = under_observation
        self.tracked = self.load_tracked or self.under_observation

    def close_idle_connections(self) -> None:
        """Keep no connection any longer than it is used."""
        self.max_idle = 0
        for connection in list(self.idle_connections):
            connection.close_idle()

    @property
    def eligible(self) -> bool:
        """Whether it may be asked at all, should there be no better one."""
        ready = self.admin_state is AdminState.READY
        return self.weight > 0 and ready and self.healthy and not self.removed

    @property
    def status(self) -> str:
        """In one word: `up`, `down`, `draining` or `maintenance`."""
        if self.admin_state is AdminState.MAINTENANCE:
            return "maintenance"
        if self.admin_state is AdminState.DRAIN:
            return "draining"
        return "up" if self.healthy and not self.ejected else "down"

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.status} in_flight={self.in_flight} idle={len(self.idle_connections)}>"


class Priority(enum.IntEnum):
    """
    Which servers are tried before which. Those in cooldown come last instead
    of never: a pool whose servers all failed is tried all the same.
    """

    PRIMARY = 0
    BACKUP = 1
    EJECTED_PRIMARY = 2
    EJECTED_BACKUP = 3


class ServerSet:
    """
    All servers of a pool, in the order given.

    `tiers` are those that may be tried, by `Priority`. Whoever changes something
    of a server that may move it calls `changed`, and listeners hear of it.
    `generation` counts how often servers came or went.
    """

    def __init__(self, servers: Iterable[ServerSettings] = ()) -> None:
        self.servers: list[Server] = []
        self.generation = 0
        self._draining: list[Server] = []
        self._tiers: tuple[tuple[Server, ...], ...] | None = None
        self._subscribers: list[Callable[[], object]] = []
        for settings in servers:
            self.add(settings)

    @property
    def tiers(self) -> tuple[tuple[Server, ...], ...]:
        """The servers that may be tried, by `Priority`."""
        if self._tiers is None:
            tiers: tuple[list[Server], ...] = ([], [], [], [])
            for server in self.servers:
                if server.eligible:
                    tiers[server.backup + 2 * server.ejected].append(server)
            self._tiers = tuple(tuple(tier) for tier in tiers)
        return self._tiers

    @property
    def draining(self) -> list[Server]:
        """Those that were removed, but have requests in flight."""
        return [server for server in self._draining if server.in_flight]

    def subscribe(self, listener: Callable[[], object]) -> None:
        """Have `listener` called after every change."""
        self._subscribers.append(listener)

    def find(self, address: ServerAddress) -> Server | None:
        """The server at `address`, if there is one."""
        return next((server for server in self.servers if server.address == address), None)

    def reorder(self, key: Callable[[Server], int]) -> None:
        """Have the servers in the order of their places."""
        ordered = sorted(self.servers, key=key)
        if ordered != self.servers:
            self.servers = ordered
            self.notify()

    def add(
        self, settings: ServerSettings, source: ServerSource = ServerSource.CONFIGURED
    ) -> Server:
        """
        Add a server, behind those that are there. Only one that is configured
        leaves because it is in no file any more.
        """
        server = Server(settings, source)
        self.servers.append(server)
        self.generation += 1
        self.notify(server)
        return server

    def remove(self, server: Server) -> None:
        """Give `server` no more requests; those in flight go on."""
        self.servers.remove(server)
        self._draining = [one for one in self._draining if one.in_flight]
        if server.in_flight:
            self._draining.append(server)
        server.removed = True
        self.generation += 1
        server.close_idle_connections()
        self.notify(server)

    def set_admin_state(self, server: Server, state: AdminState, now: float) -> None:
        """Do with `server` what the operator wants; `now` on the reactor's clock."""
        server.admin_state = state
        server.status_reason, server.status_since = f"the operator said {state.value}", now
        if state is AdminState.READY:
            server.max_idle = server.default_max_idle
        else:
            server.close_idle_connections()
        self.notify(server)

    def notify(self, *servers: Server) -> None:
        """Something of `servers` has changed that may move them to another tier."""
        self._tiers = None
        for server in servers:
            server.available = server.eligible and not server.ejected
        for listener in self._subscribers:
            listener()
