"""Least connections, and its base class."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from balancebeam.balancing.least_connections import LeastConnections
from tests.helpers.balancing import (
    WEIGHTS,
    Server,
    finish_request,
    first,
    names,
    one_at_a_time,
    servers,
    start_request,
    updated,
    warming,
)
from tests.helpers.load_model import STEPS, LoadTrackingTestCase, Model, many_steps


class LeastConnectionsTests(LoadTrackingTestCase):
    """The server with the fewest requests in flight per weight is selected."""

    def test_fewest_requests_in_flight(self) -> None:
        """Servers are ordered by requests in flight."""
        algorithm, pool = LeastConnections[Server](), servers(1, 1, 1)
        for server, load in zip(pool, (2, 1, 3)):
            server.in_flight = load
        algorithm.update(pool)
        self.assertEqual(names(algorithm), "bac")

    def test_fewest_requests_per_weight(self) -> None:
        """Requests in flight are divided by the effective weight."""
        pool = (*servers(4, 1), Server("c", 8, 1.0))
        for server, load in zip(pool, (5, 1, 2)):
            # With the request to be sent: 6/4, 2/1 and 3/1.
            server.in_flight = load
        self.assertEqual(names(updated(LeastConnections(), pool)), "abc")

    def test_idle_servers_come_first_whatever_their_weight(self) -> None:
        """Idle servers are equal, so that a large weight does not attract all light traffic."""
        pool = servers(256, 1)
        algorithm = updated(LeastConnections(), pool)
        self.assertEqual(
            [start_request(algorithm, first(algorithm)).name for _ in range(2)], ["a", "b"]
        )

    def test_equal_servers_take_turns(self) -> None:
        """Servers of equal cost take turns."""
        algorithm = updated(LeastConnections(), servers(1, 1, 1))
        self.assertEqual(one_at_a_time(algorithm, 7), "abcabca")
        held = [start_request(algorithm, first(algorithm)).name for _ in range(6)]
        self.assertEqual("".join(held), "bcabca")

    def test_added_server_does_not_catch_up(self) -> None:
        """A new server gets no turns for the time before it was added."""
        pool = servers(1, 1, 1)
        algorithm = updated(LeastConnections(), pool[:2])
        one_at_a_time(algorithm, 100)
        algorithm.update(pool)
        self.assertEqual(Counter(one_at_a_time(algorithm, 30)), {"a": 10, "b": 10, "c": 10})

    def test_server_that_was_busy_does_not_catch_up(self) -> None:
        """A server that was busy gets no turns for that time."""
        pool = servers(1, 1, 1)
        algorithm = updated(LeastConnections(), pool)
        held = start_request(algorithm, first(algorithm))
        one_at_a_time(algorithm, 1000)
        finish_request(algorithm, held)
        shares = Counter(one_at_a_time(algorithm, 30))
        self.assertLessEqual(max(shares.values()) - min(shares.values()), 2)

    def test_requests_finished_while_absent_count(self) -> None:
        """Requests that end while a server is absent are counted."""
        pool = servers(1, 1)
        algorithm = updated(LeastConnections(), pool)
        start_request(algorithm, pool[0])
        algorithm.update(pool[1:])
        finish_request(algorithm, pool[0])
        start_request(algorithm, pool[1])
        algorithm.update(pool)
        self.assertEqual(names(algorithm), "ab")

    def test_request_of_a_removed_server_ends(self) -> None:
        """Events of removed servers are ignored."""
        pool = servers(1, 1)
        algorithm = updated(LeastConnections(), pool)
        start_request(algorithm, pool[0])
        algorithm.update(pool[1:])
        finish_request(algorithm, pool[0])
        start_request(algorithm, pool[0])
        self.assertEqual(names(algorithm), "b")
        algorithm.update(())
        finish_request(algorithm, pool[0])
        self.assertEqual(names(algorithm), "")

    def test_heap_is_bounded(self) -> None:
        """Outdated heap entries are dropped."""
        self.check_bounded(LeastConnections())

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_of_sequential_requests(self, weights: list[int], cycles: int) -> None:
        """Sequential requests are distributed by weight."""
        pool = servers(*weights)
        algorithm = updated(LeastConnections(), pool)
        for _ in range(cycles):
            shares = Counter(one_at_a_time(algorithm, sum(weights)))
            self.assertEqual(shares, {server.name: server.weight for server in pool})

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_of_concurrent_requests(self, weights: list[int], cycles: int) -> None:
        """Concurrent requests are distributed by weight."""
        pool = servers(*weights)
        algorithm = updated(LeastConnections(), pool)
        for held in range(1, cycles + 1):
            for _ in range(sum(weights)):
                start_request(algorithm, first(algorithm))
            self.assertEqual([s.in_flight for s in pool], [held * s.weight for s in pool])

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, STEPS)
    def test_least_cost_after_every_step(
        self, weights: list[int], steps: list[tuple[str, int, float]]
    ) -> None:
        """The first candidate has the least cost after every event."""
        model = Model(LeastConnections(), servers(*weights))
        self.check_steps(model, steps, model.least_connections)

    def test_least_cost_over_many_steps(self) -> None:
        """The same holds over a long random run."""
        model = Model(LeastConnections(), warming(0.1, 0.75, 1.0, 2.5, 9.0, 4.0))
        self.check_steps(model, many_steps(4000), model.least_connections)
