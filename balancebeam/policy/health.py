"""When a server is avoided because requests to it failed."""

from __future__ import annotations

from attrs import frozen

from balancebeam.interfaces import Candidate

# A server that keeps failing is avoided for up to so many times the cooldown.
LONGEST_COOLDOWN = 8


@frozen
class PassiveHealth:
    """
    Avoids a server for `cooldown` seconds after `failures` failures in a row;
    the time doubles, up to `LONGEST_COOLDOWN` times, while it keeps failing.
    """

    cooldown: float
    failures: int = 1

    def failed(self, server: Candidate, now: float) -> bool:
        """Take note of a failure; true if the server is avoided from now on."""
        server.failures += 1
        if server.failures < self.failures:
            return False
        longest = self.cooldown * LONGEST_COOLDOWN
        server.cooldown = min(server.cooldown * 2, longest) if server.cooldown else self.cooldown
        server.avoided_until = now + server.cooldown
        return True

    def succeeded(self, server: Candidate) -> None:
        """Take note of a success: the server is as good as new."""
        server.failures = 0
        server.cooldown = 0.0
        server.avoided_until = 0.0
