"""The service that says which servers to try for a request, and in what order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

from twisted.application import service

from balancebeam.balancing.interfaces import Algorithm, Selection
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import Priority, ServerSet

# The tiers after the first, in order, and what is said of their servers before
# the algorithm's own reason.
_REASON_PREFIXES = {
    Priority.BACKUP: "a backup: ",
    Priority.EJECTED_PRIMARY: "in cooldown, but there is no better one: ",
    Priority.EJECTED_BACKUP: "a backup in cooldown, but there is no better one: ",
}


class SelectorService(service.Service):
    """
    Joins an algorithm with what is known of the servers.

    Each tier of the server_set has an algorithm of its own. It meets the
    servers of its tier when it is asked for the first time after a change,
    so that a thousand changes at once cost no more than one.
    """

    name = "selector"

    def __init__(
        self, make_algorithm: Callable[[], Algorithm[Server]], server_set: ServerSet
    ) -> None:
        self.server_set = server_set
        self.set_algorithm(make_algorithm)
        server_set.subscribe(self._servers_changed)

    def set_algorithm(self, make_algorithm: Callable[[], Algorithm[Server]]) -> None:
        """Choose by this algorithm from now on, of which there is one for each tier."""
        self._algorithms = [make_algorithm() for _ in Priority]
        self._outdated_tiers = [True] * len(Priority)
        self._primary = self._algorithms[Priority.PRIMARY]
        # Those that have met servers, and may want to hear of requests.
        self._active = [self._primary]
        self._dirty = True
        self._primary_only = False
        self.tracks_load = self._primary.tracks_load
        self._generation = -1
        self._servers_changed()

    def candidates(self, key: str) -> Iterator[Selection[Server]]:
        """The servers to try for a request of `client`, best first, each once, and why."""
        if self._dirty:
            self._refresh()
        if self._primary_only:
            return self._primary.candidates(key)
        return self._candidates_of_all_tiers(key)

    def _candidates_of_all_tiers(self, key: str) -> Iterator[Selection[Server]]:
        yield from self._primary.candidates(key)
        for tier in _REASON_PREFIXES:
            yield from self._candidates_of_tier(tier, key)

    def remaining(self, candidates: Iterator[Selection[Server]]) -> Iterator[Selection[Server]]:
        """
        What is left of `candidates` after one of them failed, as the servers
        are by now: those that are ejected meanwhile come last, but for those
        that were not there at all. One that moved may come twice.
        """
        late, known = [], set()
        for server, reason in candidates:
            known.add(server)
            if server.available:
                yield server, reason
            elif server.eligible:
                late.append((server, reason))
        yield from late
        for tier in self.server_set.tiers:
            for server in tier:
                if server not in known:
                    yield server, "it came while others failed"

    def request_started(self, server: Server, now: float) -> None:
        """See `Algorithm.request_started`."""
        for algorithm in self._active:
            algorithm.request_started(server, now)

    def response_started(self, server: Server, seconds: float, now: float) -> None:
        """See `Algorithm.response_started`."""
        for algorithm in self._active:
            algorithm.response_started(server, seconds, now)

    def request_finished(self, server: Server, seconds: float | None, now: float) -> None:
        """See `Algorithm.request_finished`."""
        for algorithm in self._active:
            algorithm.request_finished(server, seconds, now)

    def _servers_changed(self) -> None:
        self._dirty = True
        self._outdated_tiers = [True] * len(Priority)
        if self.tracks_load and self.server_set.generation != self._generation:
            self._generation = self.server_set.generation
            for server in self.server_set.servers:
                server.track(load_tracked=True)

    def _refresh(self) -> None:
        self._dirty = False
        for tier in Priority:
            # Those that have met servers must not hear of them any more.
            if self._algorithms[tier] in self._active:
                self._update_tier(tier)
        self._primary_only = not any(self.server_set.tiers[1:])

    def _update_tier(self, tier: Priority) -> None:
        if self._outdated_tiers[tier]:
            self._outdated_tiers[tier] = False
            algorithm = self._algorithms[tier]
            algorithm.update(self.server_set.tiers[tier])
            if algorithm not in self._active:
                self._active.append(algorithm)

    def _candidates_of_tier(self, tier: Priority, key: str) -> Iterator[Selection[Server]]:
        if not self.server_set.tiers[tier]:
            return
        self._update_tier(tier)
        note = _REASON_PREFIXES[tier]
        for server, reason in self._algorithms[tier].candidates(key):
            yield server, note + reason
