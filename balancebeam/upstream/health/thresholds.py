"""When a server is taken out, and when it is taken back."""

from __future__ import annotations

from attrs import frozen

from balancebeam.upstream.health.interfaces import CheckState, EjectionState

# A server that keeps failing is ejected for up to so many times the cooldown.
MAX_COOLDOWN_FACTOR = 8


@frozen
class FailureThreshold:
    """
    Avoids a server for `cooldown` seconds after `failures` failures in a row;
    the time doubles, up to `MAX_COOLDOWN_FACTOR` times, while it keeps failing.
    With a `cooldown` of 0 no server is ever ejected.
    """

    cooldown: float
    failures: int = 1

    def record_failure(self, server: EjectionState, now: float) -> bool:
        """Take note of a failure; true if the server is ejected from now on."""
        server.consecutive_failures += 1
        if server.consecutive_failures < self.failures or not self.cooldown:
            return False
        self.start_cooldown(server, now)
        return True

    def start_cooldown(self, server: EjectionState, now: float) -> None:
        """Begin a cooldown, twice as long as the one before."""
        longest = self.cooldown * MAX_COOLDOWN_FACTOR
        server.cooldown = min(server.cooldown * 2, longest) if server.cooldown else self.cooldown
        server.ejected_until = now + server.cooldown

    def record_success(self, server: EjectionState) -> None:
        """Take note of a success: the server is as good as new."""
        server.consecutive_failures = 0
        server.cooldown = 0.0
        server.ejected_until = 0.0


@frozen
class CheckThresholds:
    """`fall` failed checks in a row take a server out, `rise` passed ones bring it back."""

    fall: int = 2
    rise: int = 2

    def record_check(self, server: CheckState, passed: bool) -> bool:
        """Take note of a check; true if `server.healthy` has changed by it."""
        streak = server.check_streak
        server.check_streak = max(streak, 0) + 1 if passed else min(streak, 0) - 1
        if server.healthy and server.check_streak <= -self.fall:
            server.healthy = False
            return True
        if not server.healthy and server.check_streak >= self.rise:
            server.healthy = True
            return True
        return False
