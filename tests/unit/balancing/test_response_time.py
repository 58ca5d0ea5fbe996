"""Least response time."""

from __future__ import annotations

from collections import Counter
from math import log

from hypothesis import given, settings

from balancebeam.balancing.interfaces import Algorithm
from balancebeam.balancing.response_time import DECAY_TIME, LeastResponseTime
from tests.helpers.balancing import (
    WEIGHTS,
    Server,
    finish_request,
    first,
    names,
    one_at_a_time,
    servers,
    start_request,
    warming,
)
from tests.helpers.load_model import STEPS, LoadTrackingTestCase, Model, many_steps


class LeastResponseTimeTests(LoadTrackingTestCase):
    """The server with the least response time, times requests in flight, is selected."""

    def responded(self, algorithm: Algorithm[Server], **seconds: float) -> tuple[Server, ...]:
        """Servers that have each responded once, within these times."""
        pool = tuple(Server(name) for name in seconds)
        algorithm.update(pool)
        for server in pool:
            start_request(algorithm, server)
            finish_request(algorithm, server, seconds[server.name])
        return pool

    def test_least_response_time_first(self) -> None:
        """Idle servers are ordered by response time."""
        algorithm = LeastResponseTime[Server]()
        self.responded(algorithm, a=0.3, b=0.1, c=0.2)
        self.assertEqual(names(algorithm), "bca")

    def test_requests_in_flight_and_weight_count(self) -> None:
        """The response time is multiplied by requests in flight per weight."""
        algorithm = LeastResponseTime[Server]()
        a, b = self.responded(algorithm, a=0.1, b=0.25)
        self.assertEqual(
            [start_request(algorithm, first(algorithm)) for _ in range(4)], [a, a, b, a]
        )
        b.effective_weight = 4.0
        algorithm.update((a, b))
        self.assertIs(first(algorithm), b)

    def test_new_server_gets_one_request_until_it_responds(self) -> None:
        """A new server is tried at once, with one request."""
        algorithm = LeastResponseTime[Server]()
        pool = self.responded(algorithm, a=0.1, b=0.1)
        new = Server("c")
        algorithm.update((*pool, new))
        self.assertIs(start_request(algorithm, first(algorithm)), new)
        # Now it counts as the slowest server, with two requests.
        self.assertEqual(set(one_at_a_time(algorithm, 50)), {"a", "b"})
        finish_request(algorithm, new, 0.001)
        self.assertIs(first(algorithm), new)

    def test_failed_request_has_no_response_time(self) -> None:
        """A server whose first request failed is still new."""
        algorithm = LeastResponseTime[Server]()
        pool = self.responded(algorithm, a=0.1)
        new = Server("b")
        algorithm.update((*pool, new))
        finish_request(algorithm, start_request(algorithm, new), None)
        self.assertIs(first(algorithm), new)

    def test_server_that_was_absent_is_new_again(self) -> None:
        """The average of a removed server is dropped."""
        algorithm = LeastResponseTime[Server]()
        a, b = self.responded(algorithm, a=0.1, b=5.0)
        algorithm.update((a,))
        algorithm.update((a, b))
        self.assertIs(first(algorithm), b)

    def test_slow_server_gets_traffic_again_after_decay(self) -> None:
        """The average of an unused server decays until it is tried again."""
        algorithm = LeastResponseTime[Server]()
        slow, quick = self.responded(algorithm, slow=1.0, quick=0.1)
        now = 0.0
        while first(algorithm) is quick:
            now += 0.5
            finish_request(algorithm, start_request(algorithm, quick), 0.1, now)
        # Decay from 1.0 to 0.1, seen with the granularity of a request each 0.5 s.
        self.assertLessEqual(abs(now - DECAY_TIME * log(10)), 0.5)
        finish_request(algorithm, start_request(algorithm, slow), 0.1, now)
        self.assertIs(first(algorithm), quick)

    def test_hanging_server_gets_no_more_requests(self) -> None:
        """A server that stops responding counts as slow, whatever its average was."""
        algorithm = LeastResponseTime[Server]()
        hanging, *healthy = self.responded(algorithm, a=0.01, b=0.01, c=0.01)
        for number in range(6000):
            server = start_request(algorithm, first(algorithm), number / 100)
            if server is not hanging:
                finish_request(algorithm, server, 0.01, number / 100 + 0.01)
        self.assertLess(hanging.in_flight, 8)
        self.assertEqual([server.in_flight for server in healthy], [0, 0])

    def test_long_first_request_does_not_exclude_a_server(self) -> None:
        """A first request without a response yet does not keep others away."""
        algorithm = LeastResponseTime[Server]()
        (old,) = self.responded(algorithm, a=0.1)
        new = Server("b")
        algorithm.update((old, new))
        # For instance a WebSocket.
        start_request(algorithm, new)
        held = [start_request(algorithm, first(algorithm)) for _ in range(100)]
        self.assertGreater(held.count(new), 30)
        finish_request(algorithm, start_request(algorithm, new), 0.001)
        self.assertIs(first(algorithm), new)

    def test_response_counts_when_it_starts(self) -> None:
        """A slow response counts before it has ended."""
        algorithm = LeastResponseTime[Server]()
        a, b = self.responded(algorithm, a=0.1, b=0.5)
        algorithm.response_started(start_request(algorithm, a), 9.0, 0.0)
        self.assertIs(first(algorithm), b)

    def test_peak_replaces_the_average(self) -> None:
        """One slow response outweighs a thousand quick ones."""
        algorithm = LeastResponseTime[Server]()
        a, _ = self.responded(algorithm, a=0.1, b=0.9)
        for _ in range(1000):
            finish_request(algorithm, start_request(algorithm, a), 0.1)
        finish_request(algorithm, start_request(algorithm, a), 1.0)
        self.assertEqual(names(algorithm), "ba")

    def test_clock_set_back(self) -> None:
        """A clock that is set back breaks nothing."""
        algorithm = LeastResponseTime[Server]()
        a, b = self.responded(algorithm, a=0.1, b=0.2)
        for now in (100.0, -1e6, 100.0, 99.0, 100.0):
            for server, seconds in ((a, 0.1), (b, 0.2)):
                finish_request(algorithm, start_request(algorithm, server), seconds, now)
            self.assertEqual(names(algorithm), "ab")

    def test_response_times_of_zero(self) -> None:
        """Response times below the resolution of the clock are valid."""
        algorithm = LeastResponseTime[Server]()
        self.responded(algorithm, a=0.0, b=0.0)
        self.assertEqual(Counter(one_at_a_time(algorithm, 10)).keys(), {"a", "b"})

    def test_request_of_a_removed_server_ends(self) -> None:
        """Events of removed servers are ignored."""
        algorithm = LeastResponseTime[Server]()
        a, b = self.responded(algorithm, a=0.1, b=0.2)
        start_request(algorithm, a)
        algorithm.update((b,))
        finish_request(algorithm, a)
        self.assertEqual(names(algorithm), "b")
        self.assertEqual(set(algorithm._averages), {b})

    def test_heap_is_bounded(self) -> None:
        """Outdated heap entries are dropped."""
        self.check_bounded(LeastResponseTime())

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, STEPS)
    def test_least_cost_after_every_step(
        self, weights: list[int], steps: list[tuple[str, int, float]]
    ) -> None:
        """The first candidate has the least cost after every event."""
        model = Model(LeastResponseTime(), servers(*weights))
        self.check_steps(model, steps, model.least_response_time)

    def test_least_cost_over_many_steps(self) -> None:
        """The same holds over a long random run."""
        model = Model(LeastResponseTime(), warming(0.1, 0.75, 1.0, 2.5, 9.0, 4.0))
        self.check_steps(model, many_steps(4000), model.least_response_time)
