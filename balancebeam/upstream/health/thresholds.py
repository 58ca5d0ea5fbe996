"""Thresholds: how many failures eject a server, and how many checks change its health."""

from __future__ import annotations

from attrs import frozen

from balancebeam.upstream.health.ejection_state import EjectionState
from balancebeam.upstream.health.interfaces import CheckState

# A server that keeps failing is ejected for up to this many times the configured cooldown:
# 80 s with the default of 10 s, so that a repaired server is found within minutes. (Envoy
# allows 10 times its base ejection time.)
MAX_COOLDOWN_FACTOR = 8


@frozen
class FailureThreshold:
    """
    Ejects a server after consecutive failures.

    Attributes:
        cooldown: Length of the first ejection in seconds; 0 disables ejection. The length
            doubles with each further one, up to `MAX_COOLDOWN_FACTOR` times this.
        failures: Consecutive connection failures and timeouts that eject a server.
        bad_answers: Consecutive malformed or truncated responses that do. Their limit is
            separate, because one broken resource of a healthy server causes them, as often
            as it is requested.
    """

    cooldown: float
    failures: int = 1
    bad_answers: int = 5

    def record_failure(
        self, ejection: EjectionState, now: float, bad_answer: bool = False, trial: bool = False
    ) -> bool:
        """
        Count a failure; return whether it ejects the server.

        Args:
            ejection: State of the server.
            now: When the request failed, on the ticker.
            bad_answer: The response was malformed or truncated.
            trial: A trial request failed, which ejects the server again, whatever the counts.
        """
        if bad_answer:
            ejection.consecutive_bad_answers += 1
            exceeded = ejection.consecutive_bad_answers >= self.bad_answers
        else:
            ejection.consecutive_failures += 1
            exceeded = ejection.consecutive_failures >= self.failures
        if not (exceeded or trial) or not self.cooldown:
            return False
        self.start_cooldown(ejection, now)
        return True

    def start_cooldown(self, ejection: EjectionState, now: float) -> None:
        """Start a cooldown at `now`, twice as long as the previous one."""
        longest = self.cooldown * MAX_COOLDOWN_FACTOR
        if ejection.cooldown:
            ejection.cooldown = min(ejection.cooldown * 2, longest)
        else:
            ejection.cooldown = self.cooldown
        ejection.ejected_until = now + ejection.cooldown

    def record_success(self, ejection: EjectionState) -> None:
        """Reset the counts of failures and the length of the next cooldown."""
        ejection.consecutive_failures = 0
        ejection.consecutive_bad_answers = 0
        ejection.cooldown = 0.0
        ejection.ejected_until = 0.0


@frozen
class CheckThresholds:
    """
    Turns results of active checks into health, as HAProxy's `rise` and `fall`.

    Attributes:
        fall: Consecutive failed checks after which a server is down.
        rise: Consecutive passed checks after which it is up again.
    """

    fall: int = 2
    rise: int = 2

    def record_check(self, server: CheckState, passed: bool) -> bool:
        """Count the result of a check; return whether it changed `server.healthy`."""
        streak = server.check_streak
        server.check_streak = max(streak, 0) + 1 if passed else min(streak, 0) - 1
        if server.healthy and server.check_streak <= -self.fall:
            server.healthy = False
            return True
        if not server.healthy and server.check_streak >= self.rise:
            server.healthy = True
            return True
        return False
