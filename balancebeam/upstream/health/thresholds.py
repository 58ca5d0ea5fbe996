"""When a server is taken out, and when it is taken back."""

from __future__ import annotations

from attrs import frozen

from balancebeam.upstream.health.interfaces import Checked, Watched

# A server that keeps failing is avoided for up to so many times the cooldown.
LONGEST_COOLDOWN = 8


@frozen
class PassiveHealth:
    """
    Avoids a server for `cooldown` seconds after `failures` failures in a row;
    the time doubles, up to `LONGEST_COOLDOWN` times, while it keeps failing.
    With a `cooldown` of 0 no server is ever avoided.
    """

    cooldown: float
    failures: int = 1

    def failed(self, server: Watched, now: float) -> bool:
        """Take note of a failure; true if the server is avoided from now on."""
        server.failures += 1
        if server.failures < self.failures or not self.cooldown:
            return False
        self.avoid(server, now)
        return True

    def avoid(self, server: Watched, now: float) -> None:
        """Begin a cooldown, twice as long as the one before."""
        longest = self.cooldown * LONGEST_COOLDOWN
        server.cooldown = min(server.cooldown * 2, longest) if server.cooldown else self.cooldown
        server.avoided_until = now + server.cooldown

    def succeeded(self, server: Watched) -> None:
        """Take note of a success: the server is as good as new."""
        server.failures = 0
        server.cooldown = 0.0
        server.avoided_until = 0.0


@frozen
class ActiveHealth:
    """`fall` failed checks in a row take a server out, `rise` passed ones bring it back."""

    fall: int = 2
    rise: int = 2

    def checked(self, server: Checked, passed: bool) -> bool:
        """Take note of a check; true if `server.healthy` has changed by it."""
        streak = server.checks_in_row
        server.checks_in_row = max(streak, 0) + 1 if passed else min(streak, 0) - 1
        if server.healthy and server.checks_in_row <= -self.fall:
            server.healthy = False
            return True
        if not server.healthy and server.checks_in_row >= self.rise:
            server.healthy = True
            return True
        return False
