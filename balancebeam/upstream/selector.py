"""The service that says which servers to try for a request, and in what order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twisted.application import service

from balancebeam.interfaces import Algorithm
from balancebeam.ticker import Ticker
from balancebeam.upstream.directory import Directory, Server


class SelectorService(service.Service):
    """
    Joins an algorithm with what is known of the servers.

    Servers in cooldown come last instead of never: a pool whose servers all
    failed is tried all the same.
    """

    name = "selector"

    def __init__(self, algorithm: Algorithm, directory: Directory, ticker: Ticker) -> None:
        self.directory = directory
        self._algorithm = algorithm
        self._ticker = ticker

    def candidates(self, client: str) -> Iterator[Server]:
        """The servers to try for a request of `client`, best first, each once."""
        directory = self.directory
        if directory.troubled or directory.backups:
            return self._with_failover(directory)
        return self._algorithm.order(directory.primaries)

    def _with_failover(self, directory: Directory) -> Iterator[Server]:
        now = self._ticker.now
        for servers in (directory.primaries, directory.backups):
            yield from self._order([s for s in servers if s.avoided_until <= now])
        for servers in (directory.primaries, directory.backups):
            yield from self._order([s for s in servers if s.avoided_until > now])

    def _order(self, servers: Sequence[Server]) -> Iterator[Server]:
        # An algorithm counts its turns; one over nobody would be one too many.
        return self._algorithm.order(servers) if servers else iter(())
