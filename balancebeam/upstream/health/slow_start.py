"""How much a server gets that has just come back."""

from __future__ import annotations

from attrs import frozen

# What it begins with, as a share of its weight; Envoy has the same.
LEAST = 0.1


@frozen
class SlowStart:
    """
    Over `seconds` a server's share grows evenly up to its weight, as in nginx
    and HAProxy: caches are cold, code is not compiled yet.
    """

    seconds: float

    def share(self, weight: int, elapsed: float) -> float:
        """What a server of `weight` counts for, so many seconds after it came back."""
        if elapsed >= self.seconds:
            return float(weight)
        return weight * max(LEAST, elapsed / self.seconds)
