"""The server with the fewest requests in flight."""

from __future__ import annotations

from balancebeam.balancing.interfaces import C
from balancebeam.balancing.least_loaded import LeastFirst


class LeastConnections(LeastFirst[C]):
    """
    The fewest requests in flight for its share; among equals, in turn.

    As in HAProxy, the request that is to come counts, but not for servers
    without any: otherwise a little traffic would all go to the heaviest.
    """

    best = "the fewest requests in flight"
    others = "the next fewest requests in flight"

    def load(self, server: C) -> float:
        return (server.in_flight + 1) / server.share if server.in_flight else 0.0
