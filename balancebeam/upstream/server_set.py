"""The servers of a pool, and what is known of each right now."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Callable

from attrs import frozen

from balancebeam.core.addresses import ServerAddress
from balancebeam.core.settings import AdminState, ServerSource, ServerSettings
from balancebeam.upstream.health.error_rate import AnswerCounts

if TYPE_CHECKING:
    from balancebeam.upstream.http1_connection import UpstreamConnection

# Idle connections kept for one server.
MAX_IDLE = 512


@frozen
class CheckResult:
    """What an active check saw, at `when` (seconds since the epoch)."""

    when: float
    passed: bool
    why: str


class Server:
    """
    One server while the program runs.

    `in_flight` counts the requests that are its to answer, `requests` those it
    was ever given, and `failed` those that it failed. `idle` holds its
    idle connections, the one used last at the end. `share` is its weight, or
    less while it warms up.

    Three things keep a server from traffic: the `operator`; active checks,
    when it is not `healthy`; and its own failures, while it is `avoided`. It
    is `available` when none does. `why` says what happened last, at `since`
    on the reactor's clock.

    `watched` servers have somebody who wants to hear of each of their
    requests: the algorithm or the count of errors (`followed`), or the health
    service, which has, or not long ago had, something against them
    (`suspect`). `tests` are the requests they were given since. `on_trial` is
    the time between a cooldown and the test that shows whether it helped,
    which was begun at `tested_at`. After an `outage` older requests show
    nothing any more. Since `well_since` all is well again.
    """

    def __init__(self, settings: ServerSettings, origin: ServerSource = ServerSource.CONFIGURED) -> None:
        self.address = settings.address
        self.name = str(settings.address)
        self.weight = settings.weight
        self.share = float(settings.weight)
        self.origin = origin
        # When it was checked last, on the ticker's time of day, and what was seen.
        self.last_check: CheckResult | None = None
        self.idle: dict[UpstreamConnection, None] = {}
        self.operator = AdminState.READY
        self.configure(settings)
        self.in_flight = 0
        self.requests = 0
        self.failed = 0
        self.removed = False
        self.healthy = True
        self.checks_in_row = 0
        self.avoided = False
        self.available = False
        self.why = ""
        self.since = 0.0
        self.failures = 0
        self.cooldown = 0.0
        self.avoided_until = 0.0
        self.followed = False
        self.suspect = False
        self.watched = False
        self.outage = False
        self.on_trial = False
        self.tests: set[object] = set()
        self.tested_at = 0.0
        self.well_since = 0.0
        self.answers: AnswerCounts | None = None

    def configure(self, settings: ServerSettings) -> None:
        """Take over all of `settings` but the weight."""
        self.backup = settings.backup
        self.max_in_flight = settings.max_in_flight or sys.maxsize
        self.proxy_protocol = settings.proxy_protocol
        # What the file says of its weight, whatever the operator has made of it.
        self.configured_weight = settings.weight
        # A connection that began with a client's address is for no other.
        self.usual_idle = 0 if settings.proxy_protocol else MAX_IDLE
        if self.operator is AdminState.READY:
            self.max_idle = self.usual_idle
        if not self.usual_idle:
            for connection in list(self.idle):
                connection.leave_pool()

    def watch(self, *, followed: bool | None = None, suspect: bool | None = None) -> None:
        """Set either reason for which somebody wants to hear of its requests."""
        if followed is not None:
            self.followed = followed
        if suspect is not None:
            self.suspect = suspect
        self.watched = self.followed or self.suspect

    def retire(self) -> None:
        """Keep no connection any longer than it is used."""
        self.max_idle = 0
        for connection in list(self.idle):
            connection.leave_pool()

    @property
    def wanted(self) -> bool:
        """Whether it may be asked at all, should there be no better one."""
        ready = self.operator is AdminState.READY
        return self.weight > 0 and ready and self.healthy and not self.removed

    @property
    def state(self) -> str:
        """In one word: `up`, `down`, `draining` or `maintenance`."""
        if self.operator is AdminState.MAINTENANCE:
            return "maintenance"
        if self.operator is AdminState.DRAIN:
            return "draining"
        return "up" if self.healthy and not self.avoided else "down"

    def __repr__(self) -> str:
        return f"<Server {self.name} {self.state} in_flight={self.in_flight} idle={len(self.idle)}>"


class Tier(enum.IntEnum):
    """
    Which servers are tried before which. Those in cooldown come last instead
    of never: a pool whose servers all failed is tried all the same.
    """

    PRIMARY = 0
    BACKUP = 1
    AVOIDED_PRIMARY = 2
    AVOIDED_BACKUP = 3


class Directory:
    """
    All servers of a pool, in the order given.

    `tiers` are those that may be tried, by `Tier`. Whoever changes something
    of a server that may move it calls `changed`, and listeners hear of it.
    `generation` counts how often servers came or went.
    """

    def __init__(self, servers: Iterable[ServerSettings] = ()) -> None:
        self.servers: list[Server] = []
        self.generation = 0
        self._leaving: list[Server] = []
        self._tiers: tuple[tuple[Server, ...], ...] | None = None
        self._listeners: list[Callable[[], object]] = []
        for settings in servers:
            self.add(settings)

    @property
    def tiers(self) -> tuple[tuple[Server, ...], ...]:
        """The servers that may be tried, by `Tier`."""
        if self._tiers is None:
            tiers: tuple[list[Server], ...] = ([], [], [], [])
            for server in self.servers:
                if server.wanted:
                    tiers[server.backup + 2 * server.avoided].append(server)
            self._tiers = tuple(tuple(tier) for tier in tiers)
        return self._tiers

    @property
    def leaving(self) -> list[Server]:
        """Those that were removed, but have requests in flight."""
        return [server for server in self._leaving if server.in_flight]

    def listen(self, listener: Callable[[], object]) -> None:
        """Have `listener` called after every change."""
        self._listeners.append(listener)

    def find(self, address: ServerAddress) -> Server | None:
        """The server at `address`, if there is one."""
        return next((server for server in self.servers if server.address == address), None)

    def sort(self, place: Callable[[Server], int]) -> None:
        """Have the servers in the order of their places."""
        ordered = sorted(self.servers, key=place)
        if ordered != self.servers:
            self.servers = ordered
            self.changed()

    def add(self, settings: ServerSettings, origin: ServerSource = ServerSource.CONFIGURED) -> Server:
        """
        Add a server, behind those that are there. Only one that is configured
        leaves because it is in no file any more.
        """
        server = Server(settings, origin)
        self.servers.append(server)
        self.generation += 1
        self.changed(server)
        return server

    def remove(self, server: Server) -> None:
        """Give `server` no more requests; those in flight go on."""
        self.servers.remove(server)
        self._leaving = [one for one in self._leaving if one.in_flight]
        if server.in_flight:
            self._leaving.append(server)
        server.removed = True
        self.generation += 1
        server.retire()
        self.changed(server)

    def set_operator_state(self, server: Server, state: AdminState, now: float) -> None:
        """Do with `server` what the operator wants; `now` on the reactor's clock."""
        server.operator = state
        server.why, server.since = f"the operator said {state.value}", now
        if state is AdminState.READY:
            server.max_idle = server.usual_idle
        else:
            server.retire()
        self.changed(server)

    def changed(self, *servers: Server) -> None:
        """Something of `servers` has changed that may move them to another tier."""
        self._tiers = None
        for server in servers:
            server.available = server.wanted and not server.avoided
        for listener in self._listeners:
            listener()
