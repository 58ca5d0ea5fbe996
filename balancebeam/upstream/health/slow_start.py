"""How much a server gets that has just come back."""

from __future__ import annotations

from attrs import frozen

# What it begins with, as a share of its weight; Envoy has the same.
MIN_WEIGHT_FRACTION = 0.1


@frozen
class SlowStart:
    """
    Over `seconds` a server's share grows evenly up to its weight, as in nginx
    and HAProxy: caches are cold, code is not compiled yet.
    """

    seconds: float

    def effective_weight(self, weight: int, elapsed: float) -> float:
        """What a server of `weight` counts for, so many seconds after it came back."""
        if elapsed >= self.seconds:
            return float(weight)
        return weight * max(MIN_WEIGHT_FRACTION, elapsed / self.seconds)
