"""
A custom algorithm: the first server in the given order that is below a load.

The order of servers is an order of preference: later ones get requests only when all
before them have `threshold` requests in flight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import BackendT, Selection
from balancebeam.server.balancer import BalancerService


class FillFirst(AlgorithmBase[BackendT]):
    """
    Fills the servers one after the other.

    Args:
        threshold: requests in flight, per unit of weight, from which the next server is used.
    """

    def __init__(self, threshold: int = 10) -> None:
        self._threshold = threshold
        self._servers: Sequence[BackendT] = ()

    def update(self, servers: Sequence[BackendT]) -> None:
        """Select among these from now on; called when a server is added, removed or changes."""
        self._servers = tuple(servers)

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        """Every server once, best first, with the reason; `key` is the client's address."""
        full = []
        for server in self._servers:
            if server.in_flight < self._threshold * server.effective_weight:
                yield server, "the first below the threshold"
            else:
                full.append(server)
        for server in full:
            yield server, "above the threshold"


def use_fill_first(balancer: BalancerService, pool: str = "app", threshold: int = 10) -> None:
    """Select the servers of a pool by `FillFirst` from now on."""
    service: Any = balancer.getServiceNamed(f"pool:{pool}")
    service.getServiceNamed("selector").set_algorithm(lambda: FillFirst(threshold))
