"""The selector service: which servers to try for a request, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Callable

from twisted.application import service

from balancebeam.balancing.interfaces import Algorithm, ExplainableAlgorithm, Selection
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import Priority, ServerSet

# The tiers after the first, in the order in which they are tried, with the text that
# precedes the algorithm's reason in logs.
_REASON_PREFIXES = {
    Priority.BACKUP: "backup: ",
    Priority.EJECTED_PRIMARY: "ejected, but no better server: ",
    Priority.EJECTED_BACKUP: "ejected backup, but no better server: ",
}

# The text that precedes the reason of an ejected server, if there are better ones.
_TRIED_LAST = "ejected, tried last: "

# The reason of the servers of an algorithm without `explain`.
REASON_NOT_EXPLAINED = "not explained by the algorithm"


class SelectorService(service.Service):
    """
    Applies a load balancing algorithm to the current servers of a pool.

    Each tier has an algorithm instance of its own. An instance receives the servers of its
    tier when it is first used after a change, so that a thousand changes at once cost no
    more than one.

    Attributes:
        server_set: The servers.
        tracks_load: The algorithm needs the events of every request.
    """

    name = "selector"

    def __init__(
        self, make_algorithm: Callable[[], Algorithm[Server]], server_set: ServerSet
    ) -> None:
        self.server_set = server_set
        self.set_algorithm(make_algorithm)
        server_set.subscribe(self._servers_changed)

    def set_algorithm(self, make_algorithm: Callable[[], Algorithm[Server]]) -> None:
        """Replace the algorithm; `make_algorithm` is called once for each tier."""
        self._algorithms = [make_algorithm() for _ in Priority]
        self._outdated_tiers = [True] * len(Priority)
        self._primary = self._algorithms[Priority.PRIMARY]
        # The algorithms that have received servers, and may need the events of requests.
        self._active = [self._primary]
        self._dirty = True
        self._primary_only = False
        self.tracks_load = self._primary.tracks_load
        self._generation = -1
        self._servers_changed()

    def candidates(self, key: str) -> Iterator[Selection[Server]]:
        """
        Iterate lazily over the servers to try, best first, each once, with the reason.

        Args:
            key: What hashing and sticky algorithms go by: the client's address.
        """
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
        The remaining `candidates` for a retry, checked against the current state.

        Available servers come first, then servers ejected meanwhile, then servers added since
        the first attempt. A server that changed its tier may appear twice.
        """
        ejected, seen = [], set()
        for server, reason in candidates:
            seen.add(server)
            if server.available:
                yield server, reason
            elif server.eligible:
                ejected.append((server, reason))
        yield from ejected
        for tier in self.server_set.tiers:
            for server in tier:
                if server not in seen:
                    yield server, "added during the request"

    def explain(self, key: str) -> Sequence[Selection[Server]]:
        """
        Return what the next call of `candidates` would iterate over, without side effects.

        For random algorithms it is one possible order; see `ExplainableAlgorithm.explain`.
        """
        explained: list[Selection[Server]] = []
        for tier in Priority:
            prefix = _REASON_PREFIXES.get(tier, "")
            if explained and tier >= Priority.EJECTED_PRIMARY:
                prefix = _TRIED_LAST
            selections = self._explain_tier(tier, key)
            explained += [(server, prefix + reason) for server, reason in selections]
        return explained

    def _explain_tier(self, tier: Priority, key: str) -> Sequence[Selection[Server]]:
        servers, algorithm = self.server_set.tiers[tier], self._algorithms[tier]
        if not servers:
            return ()
        if not isinstance(algorithm, ExplainableAlgorithm):
            return [(server, REASON_NOT_EXPLAINED) for server in servers]
        return algorithm.explain(key, servers if self._outdated_tiers[tier] else None)

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
        """Mark all tiers as outdated, and track the load of new servers if necessary."""
        self._dirty = True
        self._outdated_tiers = [True] * len(Priority)
        if self.tracks_load and self.server_set.generation != self._generation:
            self._generation = self.server_set.generation
            for server in self.server_set.servers:
                server.track(load_tracked=True)

    def _refresh(self) -> None:
        self._dirty = False
        for tier in Priority:
            # An algorithm that has received servers must release removed ones.
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
        prefix = _REASON_PREFIXES[tier]
        for server, reason in self._algorithms[tier].candidates(key):
            yield server, prefix + reason
