"""The service that says which servers to try for a request, and in what order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Callable

from twisted.application import service

from balancebeam.balancing.interfaces import Algorithm, Choice
from balancebeam.upstream.server_set import Directory, Server, Tier

# The tiers after the first, in order, and what is said of their servers before
# the algorithm's own reason.
_NOTES = {
    Tier.BACKUP: "a backup: ",
    Tier.AVOIDED_PRIMARY: "in cooldown, but there is no better one: ",
    Tier.AVOIDED_BACKUP: "a backup in cooldown, but there is no better one: ",
}


class SelectorService(service.Service):
    """
    Joins an algorithm with what is known of the servers.

    Each tier of the directory has an algorithm of its own. It meets the
    servers of its tier when it is asked for the first time after a change,
    so that a thousand changes at once cost no more than one.
    """

    name = "selector"

    def __init__(
        self, make_algorithm: Callable[[], Algorithm[Server]], directory: Directory
    ) -> None:
        self.directory = directory
        self.use(make_algorithm)
        directory.listen(self._changed)

    def use(self, make_algorithm: Callable[[], Algorithm[Server]]) -> None:
        """Choose by this algorithm from now on, of which there is one for each tier."""
        self._tiers = [make_algorithm() for _ in Tier]
        self._stale = [True] * len(Tier)
        self._first = self._tiers[Tier.PRIMARY]
        # Those that have met servers, and may want to hear of requests.
        self._used = [self._first]
        self._unsettled = True
        self._only_first = False
        self.follows_load = self._first.follows_load
        self._generation = -1
        self._changed()

    def candidates(self, client: str) -> Iterator[Choice[Server]]:
        """The servers to try for a request of `client`, best first, each once, and why."""
        if self._unsettled:
            self._settle()
        if self._only_first:
            return self._first.order(client)
        return self._through_tiers(client)

    def _through_tiers(self, client: str) -> Iterator[Choice[Server]]:
        yield from self._first.order(client)
        for tier in _NOTES:
            yield from self._order(tier, client)

    def others(self, candidates: Iterator[Choice[Server]]) -> Iterator[Choice[Server]]:
        """
        What is left of `candidates` after one of them failed, as the servers
        are by now: those that are avoided meanwhile come last, but for those
        that were not there at all. One that moved may come twice.
        """
        late, known = [], set()
        for server, reason in candidates:
            known.add(server)
            if server.available:
                yield server, reason
            elif server.wanted:
                late.append((server, reason))
        yield from late
        for tier in self.directory.tiers:
            for server in tier:
                if server not in known:
                    yield server, "it came while others failed"

    def taken(self, server: Server, now: float) -> None:
        """See `Algorithm.taken`."""
        for algorithm in self._used:
            algorithm.taken(server, now)

    def answered(self, server: Server, seconds: float, now: float) -> None:
        """See `Algorithm.answered`."""
        for algorithm in self._used:
            algorithm.answered(server, seconds, now)

    def released(self, server: Server, seconds: float | None, now: float) -> None:
        """See `Algorithm.released`."""
        for algorithm in self._used:
            algorithm.released(server, seconds, now)

    def _changed(self) -> None:
        self._unsettled = True
        self._stale = [True] * len(Tier)
        if self.follows_load and self.directory.generation != self._generation:
            self._generation = self.directory.generation
            for server in self.directory.servers:
                server.watch(followed=True)

    def _settle(self) -> None:
        self._unsettled = False
        for tier in Tier:
            # Those that have met servers must not hear of them any more.
            if self._tiers[tier] in self._used:
                self._meet(tier)
        self._only_first = not any(self.directory.tiers[1:])

    def _meet(self, tier: Tier) -> None:
        if self._stale[tier]:
            self._stale[tier] = False
            algorithm = self._tiers[tier]
            algorithm.meet(self.directory.tiers[tier])
            if algorithm not in self._used:
                self._used.append(algorithm)

    def _order(self, tier: Tier, client: str) -> Iterator[Choice[Server]]:
        if not self.directory.tiers[tier]:
            return
        self._meet(tier)
        note = _NOTES[tier]
        for server, reason in self._tiers[tier].order(client):
            yield server, note + reason
