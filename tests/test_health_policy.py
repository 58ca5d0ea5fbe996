"""When a server is avoided because requests to it failed."""

from __future__ import annotations

from attrs import define
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.policy.health import LONGEST_COOLDOWN, PassiveHealth


@define
class Server:
    """What the policy knows of a server."""

    weight: int = 1
    backup: bool = False
    in_flight: int = 0
    failures: int = 0
    cooldown: float = 0.0
    avoided_until: float = 0.0


class PassiveHealthTests(SynchronousTestCase):
    """Failures in a row begin a cooldown, which grows, and one success ends it."""

    def test_one_failure_is_enough_by_default(self) -> None:
        server = Server()
        self.assertTrue(PassiveHealth(10.0).failed(server, 100.0))
        self.assertEqual((server.failures, server.avoided_until), (1, 110.0))

    def test_fewer_failures_than_asked_for_change_nothing(self) -> None:
        policy, server = PassiveHealth(10.0, failures=3), Server()
        self.assertEqual([policy.failed(server, 1.0) for _ in range(2)], [False, False])
        self.assertEqual((server.cooldown, server.avoided_until), (0.0, 0.0))
        self.assertTrue(policy.failed(server, 2.0))
        self.assertEqual(server.avoided_until, 12.0)

    def test_only_failures_in_a_row_count(self) -> None:
        policy, server = PassiveHealth(10.0, failures=2), Server()
        for now in range(5):
            self.assertFalse(policy.failed(server, float(now)))
            policy.succeeded(server)
        self.assertEqual(server, Server())

    def test_the_time_doubles_up_to_a_limit(self) -> None:
        policy, server = PassiveHealth(10.0), Server()
        now, lengths = 0.0, []
        for _ in range(6):
            self.assertTrue(policy.failed(server, now))
            lengths.append(server.avoided_until - now)
            now = server.avoided_until
        self.assertEqual(lengths, [10.0, 20.0, 40.0, 80.0, 80.0, 80.0])
        self.assertEqual(LONGEST_COOLDOWN, 8)

    def test_after_a_cooldown_one_failure_begins_the_next(self) -> None:
        policy, server = PassiveHealth(10.0, failures=3), Server()
        for _ in range(3):
            policy.failed(server, 0.0)
        self.assertTrue(policy.failed(server, 10.0))
        self.assertEqual(server.avoided_until, 30.0)

    def test_a_success_makes_the_server_as_good_as_new(self) -> None:
        policy, server = PassiveHealth(10.0), Server()
        for _ in range(3):
            policy.failed(server, 0.0)
        policy.succeeded(server)
        self.assertEqual(server, Server())
        policy.failed(server, 50.0)
        self.assertEqual(server.avoided_until, 60.0)

    def test_other_properties_of_the_server_stay(self) -> None:
        policy, server = PassiveHealth(1.0), Server(weight=5, backup=True, in_flight=3)
        policy.failed(server, 0.0)
        policy.succeeded(server)
        self.assertEqual(server, Server(weight=5, backup=True, in_flight=3))
