"""When a server is ejected because requests to it failed."""

from __future__ import annotations

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.upstream.health.error_rate import ErrorRatePolicy, ErrorRateWindow
from balancebeam.upstream.health.slow_start import SlowStart
from balancebeam.upstream.health.thresholds import (
    MAX_COOLDOWN_FACTOR,
    CheckThresholds,
    FailureThreshold,
)


@define
class Server:
    """What the policies know of a server."""

    consecutive_failures: int = 0
    cooldown: float = 0.0
    ejected_until: float = 0.0
    healthy: bool = True
    check_streak: int = 0


class FailureThresholdTests(SynchronousTestCase):
    """Failures in a row begin a cooldown, which grows, and one success ends it."""

    def test_one_failure_is_enough_by_default(self) -> None:
        server = Server()
        self.assertTrue(FailureThreshold(10.0).record_failure(server, 100.0))
        self.assertEqual((server.consecutive_failures, server.ejected_until), (1, 110.0))

    def test_fewer_failures_than_asked_for_change_nothing(self) -> None:
        policy, server = FailureThreshold(10.0, failures=3), Server()
        self.assertEqual([policy.record_failure(server, 1.0) for _ in range(2)], [False, False])
        self.assertEqual((server.cooldown, server.ejected_until), (0.0, 0.0))
        self.assertTrue(policy.record_failure(server, 2.0))
        self.assertEqual(server.ejected_until, 12.0)

    def test_only_failures_in_a_row_count(self) -> None:
        policy, server = FailureThreshold(10.0, failures=2), Server()
        for now in range(5):
            self.assertFalse(policy.record_failure(server, float(now)))
            policy.record_success(server)
        self.assertEqual(server, Server())

    def test_without_a_cooldown_nobody_is_avoided(self) -> None:
        server = Server()
        for _ in range(3):
            self.assertFalse(FailureThreshold(0.0).record_failure(server, 1.0))
        self.assertEqual(server.ejected_until, 0.0)

    def test_the_time_doubles_up_to_a_limit(self) -> None:
        policy, server = FailureThreshold(10.0), Server()
        now, lengths = 0.0, []
        for _ in range(6):
            self.assertTrue(policy.record_failure(server, now))
            lengths.append(server.ejected_until - now)
            now = server.ejected_until
        self.assertEqual(lengths, [10.0, 20.0, 40.0, 80.0, 80.0, 80.0])
        self.assertEqual(MAX_COOLDOWN_FACTOR, 8)

    def test_after_a_cooldown_one_failure_begins_the_next(self) -> None:
        policy, server = FailureThreshold(10.0, failures=3), Server()
        for _ in range(3):
            policy.record_failure(server, 0.0)
        self.assertTrue(policy.record_failure(server, 10.0))
        self.assertEqual(server.ejected_until, 30.0)

    def test_a_success_makes_the_server_as_good_as_new(self) -> None:
        policy, server = FailureThreshold(10.0), Server()
        for _ in range(3):
            policy.record_failure(server, 0.0)
        policy.record_success(server)
        self.assertEqual(server, Server())
        policy.record_failure(server, 50.0)
        self.assertEqual(server.ejected_until, 60.0)


class CheckThresholdsTests(SynchronousTestCase):
    """Checks in a row take a server out, and bring it back."""

    def history(self, policy: CheckThresholds, results: str) -> str:
        """What the server is after each check: + passed, - failed; U up, d down."""
        server = Server()
        states = ""
        for result in results:
            before = server.healthy
            changed = policy.record_check(server, result == "+")
            self.assertEqual(changed, before != server.healthy)
            states += "U" if server.healthy else "d"
        return states

    def test_two_of_either_by_default(self) -> None:
        self.assertEqual(self.history(CheckThresholds(), "+-+--+-++-+--"), "UUUUddddUUUUd")

    def test_one_is_enough_if_that_is_wanted(self) -> None:
        self.assertEqual(self.history(CheckThresholds(1, 1), "+-+-"), "UdUd")

    def test_only_those_in_a_row_count(self) -> None:
        self.assertEqual(self.history(CheckThresholds(3, 3), "--+--+---++-+++"), "UUUUUUUUddddddU")


class ErrorRateTests(SynchronousTestCase):
    """Servers whose answers are errors too often."""

    def test_the_window_slides(self) -> None:
        counts = ErrorRateWindow(10.0)
        for now in range(20):
            counts.add(now < 10, float(now))
            counts.add(False, float(now))
            expected = range(max(0, now - 9), now + 1)
            self.assertEqual(counts.responses, 2 * len(expected))
            self.assertEqual(counts.errors, sum(then < 10 for then in expected))
        counts.add(True, 1000.0)
        self.assertEqual((counts.responses, counts.errors), (1, 1))
        counts.clear()
        self.assertEqual((counts.responses, counts.errors), (0, 0))

    def test_more_than_the_ratio_of_enough_answers(self) -> None:
        policy, counts = ErrorRatePolicy(0.5, min_requests=4), ErrorRateWindow(10.0)
        verdicts = []
        for error in (True, True, True, False, False, False, True, True):
            counts.add(error, 0.0)
            verdicts.append(policy.exceeded(counts))
        self.assertEqual(verdicts, [False, False, False, True, True, False, True, True])

    def test_how_many_may_be_out(self) -> None:
        policy = ErrorRatePolicy(0.5, max_ejected_ratio=0.5)
        for servers, most in ((1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (100, 50)):
            allowed = [policy.can_eject(out, servers) for out in range(servers)]
            self.assertEqual(sum(allowed), most, msg=f"of {servers}")
        self.assertTrue(ErrorRatePolicy(0.5, max_ejected_ratio=0.0).can_eject(0, 10))


class SlowStartTests(SynchronousTestCase):
    """A server that came back gets its share little by little."""

    def test_it_grows_evenly_from_a_tenth(self) -> None:
        policy = SlowStart(10.0)
        shares = [
            policy.effective_weight(20, elapsed)
            for elapsed in (0.0, 0.5, 1.0, 5.0, 9.0, 10.0, 99.0)
        ]
        self.assertEqual(shares, [2.0, 2.0, 2.0, 10.0, 18.0, 20.0, 20.0])

    def test_without_it_there_is_no_delay(self) -> None:
        self.assertEqual(SlowStart(0.0).effective_weight(3, 0.0), 3.0)
