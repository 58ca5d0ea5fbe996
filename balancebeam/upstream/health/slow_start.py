"""Slow start: the weight of a recovered server grows over some seconds."""

from __future__ import annotations

from attrs import frozen

from balancebeam.net.ticker import Ticker
from balancebeam.upstream.server import Server
from balancebeam.upstream.server_set import ServerSet

# Share of its weight with which a server starts; Envoy's `min_weight_percent` is 10 %, too.
MIN_WEIGHT_FRACTION = 0.1


@frozen
class SlowStart:
    """
    Computes effective weights, which grow linearly as in nginx and HAProxy.

    A recovered server has cold caches and code that is not compiled yet.

    Attributes:
        seconds: Time until the full weight is reached; 0 disables slow start.
    """

    seconds: float

    def effective_weight(self, weight: int, elapsed: float) -> float:
        """The effective weight of a server of `weight`, `elapsed` seconds after recovery."""
        if elapsed >= self.seconds:
            return float(weight)
        return weight * max(MIN_WEIGHT_FRACTION, elapsed / self.seconds)


class WarmingServers:
    """
    The servers in slow start.

    Attributes:
        slow_start: How weights grow; a reload replaces it.
    """

    def __init__(self, server_set: ServerSet, ticker: Ticker) -> None:
        self.slow_start = SlowStart(0.0)
        self._server_set = server_set
        self._ticker = ticker
        # When each server recovered, on the ticker.
        self._recovered_at: dict[Server, float] = {}

    def start(self, server: Server) -> None:
        """Start the slow start of `server`; the caller notifies the server set."""
        if self.slow_start.seconds:
            self._recovered_at[server] = self._ticker.now
            self._update(server, self._ticker.now)

    def set_weight(self, server: Server, weight: int) -> None:
        """Set the weight of `server`; the caller notifies the server set."""
        server.weight = weight
        server.effective_weight = float(weight)
        if server in self._recovered_at:
            self._update(server, self._ticker.now)

    def discard_removed(self) -> None:
        """Forget servers that were removed from the set."""
        self._recovered_at = {s: since for s, since in self._recovered_at.items() if not s.removed}

    def sweep(self, now: float) -> None:
        """Raise the effective weights."""
        if self._recovered_at:
            warming = list(self._recovered_at)
            for server in warming:
                self._update(server, now)
                if server.effective_weight >= server.weight:
                    del self._recovered_at[server]
            self._server_set.notify(*warming)

    def _update(self, server: Server, now: float) -> None:
        elapsed = now - self._recovered_at[server]
        server.effective_weight = self.slow_start.effective_weight(server.weight, elapsed)
