"""The server with the fewest requests in flight."""

from __future__ import annotations

from balancebeam.balancing.interfaces import BackendT
from balancebeam.balancing.least_loaded import LeastLoaded


class LeastConnections(LeastLoaded[BackendT]):
    """
    The fewest requests in flight for its share; among equals, in turn.

    As in HAProxy, the request that is to come counts, but not for servers
    without any: otherwise a little traffic would all go to the heaviest.
    """

    best_reason = "the fewest requests in flight"
    next_reason = "the next fewest requests in flight"

    def cost(self, server: BackendT) -> float:
        return (server.in_flight + 1) / server.effective_weight if server.in_flight else 0.0
