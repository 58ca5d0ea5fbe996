"""Least connections: the server with the fewest requests in flight."""

from __future__ import annotations

from balancebeam.balancing.interfaces import BackendT
from balancebeam.balancing.least_loaded import LeastLoaded


class LeastConnections(LeastLoaded[BackendT]):
    """
    The server with the fewest requests in flight per weight; equals take turns.

    As in HAProxy, the request to be sent counts too, but not for idle servers: otherwise
    light traffic would all go to the server with the largest weight.
    """

    best_reason = "fewest requests in flight"
    next_reason = "next fewest requests in flight"

    def cost(self, server: BackendT) -> float:
        return (server.in_flight + 1) / server.effective_weight if server.in_flight else 0.0
