"""Thresholds of ejection and of active checks."""

from __future__ import annotations

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.upstream.health.ejection_state import EjectionState
from balancebeam.upstream.health.thresholds import (
    MAX_COOLDOWN_FACTOR,
    CheckThresholds,
    FailureThreshold,
)


@define
class CheckedServer:
    """The attributes of a server that `CheckThresholds` uses."""

    healthy: bool = True
    check_streak: int = 0


class FailureThresholdTests(SynchronousTestCase):
    """Consecutive failures start a cooldown that doubles; one success resets it."""

    def test_one_failure_ejects_by_default(self) -> None:
        """The default threshold is one failure."""
        server = EjectionState()
        self.assertTrue(FailureThreshold(10.0).record_failure(server, 100.0))
        self.assertEqual((server.consecutive_failures, server.ejected_until), (1, 110.0))

    def test_failures_below_the_threshold_do_not_eject(self) -> None:
        """Only the last of `failures` consecutive failures starts a cooldown."""
        policy, server = FailureThreshold(10.0, failures=3), EjectionState()
        self.assertEqual([policy.record_failure(server, 1.0) for _ in range(2)], [False, False])
        self.assertEqual((server.cooldown, server.ejected_until), (0.0, 0.0))
        self.assertTrue(policy.record_failure(server, 2.0))
        self.assertEqual(server.ejected_until, 12.0)

    def test_only_consecutive_failures_count(self) -> None:
        """A success between failures resets the count."""
        policy, server = FailureThreshold(10.0, failures=2), EjectionState()
        for now in range(5):
            self.assertFalse(policy.record_failure(server, float(now)))
            policy.record_success(server)
        self.assertEqual(server, EjectionState())

    def test_zero_cooldown_disables_ejection(self) -> None:
        """With a cooldown of 0 no number of failures ejects a server."""
        server = EjectionState()
        for _ in range(3):
            self.assertFalse(FailureThreshold(0.0).record_failure(server, 1.0))
        self.assertEqual(server.ejected_until, 0.0)

    def test_cooldown_doubles_up_to_the_maximum(self) -> None:
        """Each further cooldown is twice as long, up to 8 times the first."""
        policy, server = FailureThreshold(10.0), EjectionState()
        now, lengths = 0.0, []
        for _ in range(6):
            self.assertTrue(policy.record_failure(server, now))
            lengths.append(server.ejected_until - now)
            now = server.ejected_until
        self.assertEqual(lengths, [10.0, 20.0, 40.0, 80.0, 80.0, 80.0])
        self.assertEqual(MAX_COOLDOWN_FACTOR, 8)

    def test_one_failure_after_a_cooldown_starts_the_next(self) -> None:
        """After a cooldown the count is still at the threshold."""
        policy, server = FailureThreshold(10.0, failures=3), EjectionState()
        for _ in range(3):
            policy.record_failure(server, 0.0)
        self.assertTrue(policy.record_failure(server, 10.0))
        self.assertEqual(server.ejected_until, 30.0)

    def test_bad_answers_have_a_limit_of_their_own(self) -> None:
        """Five bad answers in a row eject by default; failures do not count as bad answers."""
        policy, server = FailureThreshold(10.0, failures=2), EjectionState()
        for _ in range(2):
            for _ in range(4):
                self.assertFalse(policy.record_failure(server, 1.0, bad_answer=True))
            policy.record_success(server)
        self.assertFalse(policy.record_failure(server, 1.0))
        for _ in range(4):
            self.assertFalse(policy.record_failure(server, 1.0, bad_answer=True))
        self.assertTrue(policy.record_failure(server, 1.0, bad_answer=True))
        self.assertEqual((server.consecutive_failures, server.consecutive_bad_answers), (1, 5))

    def test_failed_trial_ejects_whatever_the_counts(self) -> None:
        """The failure of a trial request starts the next cooldown, below any limit."""
        for bad_answer in (False, True):
            policy, server = FailureThreshold(10.0, failures=3), EjectionState()
            self.assertTrue(policy.record_failure(server, 1.0, bad_answer, trial=True))
            self.assertFalse(FailureThreshold(0.0).record_failure(server, 1.0, trial=True))

    def test_success_resets_the_state(self) -> None:
        """After a success the next cooldown has the initial length."""
        policy, server = FailureThreshold(10.0), EjectionState()
        for _ in range(3):
            policy.record_failure(server, 0.0)
        policy.record_success(server)
        self.assertEqual(server, EjectionState())
        policy.record_failure(server, 50.0)
        self.assertEqual(server.ejected_until, 60.0)


class CheckThresholdsTests(SynchronousTestCase):
    """Consecutive checks with the same result change the health of a server."""

    def history(self, policy: CheckThresholds, results: str) -> str:
        """The health after each check of `results` (+ passed, - failed): U up, d down."""
        server = CheckedServer()
        states = ""
        for result in results:
            before = server.healthy
            changed = policy.record_check(server, result == "+")
            self.assertEqual(changed, before != server.healthy)
            states += "U" if server.healthy else "d"
        return states

    def test_default_thresholds_are_two(self) -> None:
        """By default two failed checks mark a server as down, and two passed ones as up."""
        self.assertEqual(self.history(CheckThresholds(), "+-+--+-++-+--"), "UUUUddddUUUUd")

    def test_thresholds_of_one(self) -> None:
        """With thresholds of 1 every check changes the health."""
        self.assertEqual(self.history(CheckThresholds(1, 1), "+-+-"), "UdUd")

    def test_only_consecutive_checks_count(self) -> None:
        """A check with the other result resets the streak."""
        self.assertEqual(self.history(CheckThresholds(3, 3), "--+--+---++-+++"), "UUUUUUUUddddddU")
