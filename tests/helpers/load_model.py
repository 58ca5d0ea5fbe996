"""A model of load balancing by load, against which tests compare the algorithms."""

from __future__ import annotations

import random
from math import exp, log
from typing import Callable

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.interfaces import Algorithm
from balancebeam.balancing.least_connections import LeastConnections
from balancebeam.balancing.response_time import DECAY_TIME, LeastResponseTime
from tests.helpers.balancing import (
    CLIENT,
    Server,
    Servers,
    finish_request,
    first,
    servers,
    start_request,
)


class Model:
    """
    Drives an algorithm that tracks load, and computes the costs of servers by itself.

    Attributes:
        algorithm: The algorithm.
        pool: All servers.
        present: The servers that the algorithm has now.
        in_flight: The server of each request in flight.
        now: The time.
        averages: By server: peak-EWMA response time, and when it had this value.
        silent_since: By server: when it last responded, or got its first request.
        provisional: By server without an average: logarithm of its cost at its last event.
        slowest: Logarithm of the slowest response time, extrapolated to time 0.
    """

    def __init__(self, algorithm: Algorithm[Server], pool: Servers) -> None:
        self.algorithm = algorithm
        self.pool = pool
        self.present: Servers = pool
        self.in_flight: list[Server] = []
        self.now = 1000.0
        self.averages: dict[Server, tuple[float, float]] = {}
        self.silent_since: dict[Server, float] = {}
        self.provisional: dict[Server, float] = {}
        self.slowest: float | None = None
        algorithm.update(pool)

    def step(self, event: str, which: int, seconds: float) -> None:
        """
        Apply one event.

        Args:
            event: Its kind; see `STEPS`.
            which: Index of the server or request, modulo their number; a bit mask for "update".
            seconds: Response time, or the time to wait.
        """
        if event == "start at first" and self.present:
            self._start(first(self.algorithm))
        elif event == "start" and self.present:
            order = [server for server, _ in self.algorithm.candidates(CLIENT)]
            self._start(order[which % len(order)])
        elif event == "finish" and self.in_flight:
            server = self.in_flight.pop(which % len(self.in_flight))
            self._observe(server, seconds)
            self.silent_since[server] = self.now
            finish_request(self.algorithm, server, seconds, self.now)
            self._update_provisional(server)
        elif event == "fail" and self.in_flight:
            server = self.in_flight.pop(which % len(self.in_flight))
            finish_request(self.algorithm, server, None, self.now)
            self._update_provisional(server)
        elif event == "update":
            self.present = [s for n, s in enumerate(self.pool) if which & 1 << n]
            self.averages = {s: self.averages[s] for s in self.present if s in self.averages}
            self.silent_since = {
                s: since for s, since in self.silent_since.items() if s in self.averages
            }
            self.algorithm.update(self.present)
            for server in self.present:
                self._update_provisional(server)
        elif event == "wait":
            self.now += 10 * seconds

    def _start(self, server: Server) -> None:
        """Send a request to `server`."""
        self.in_flight.append(server)
        if not server.in_flight:
            self.silent_since[server] = self.now
        elif server in self.averages:
            silent = self.now - self.silent_since.get(server, self.now)
            if silent > self.averages[server][0]:
                self._observe(server, silent)
        start_request(self.algorithm, server, self.now)
        self._update_provisional(server)

    def _update_provisional(self, server: Server) -> None:
        """Set the cost of a server without any response."""
        self.provisional[server] = (self.slowest or 0.0) + log(
            (server.in_flight + 1) / server.effective_weight
        )

    def _observe(self, server: Server, seconds: float) -> None:
        """Add a response time to the average of `server`."""
        if server in self.present:
            average, since = self.averages.get(server, (0.0, self.now))
            decay = exp((since - self.now) / DECAY_TIME)
            average = max(seconds, average * decay + seconds * (1 - decay))
            self.averages[server] = (average, self.now)
            cost = log(average) + self.now / DECAY_TIME
            if self.slowest is None:
                self.slowest = cost
                for each in self.present:
                    self._update_provisional(each)
            self.slowest = max(self.slowest, cost)

    def least_connections(self, server: Server) -> float:
        """Requests in flight with the one to be sent, per weight; idle servers are equal."""
        return (server.in_flight + 1) / server.effective_weight if server.in_flight else 0.0

    def least_response_time(self, server: Server) -> float:
        """The decayed average, times requests in flight, per weight."""
        if server not in self.averages:
            # A server without a response counts as the slowest once it has a request.
            return (
                exp(self.provisional[server] - self.now / DECAY_TIME) if server.in_flight else -1.0
            )
        average, since = self.averages[server]
        decayed = average * exp((since - self.now) / DECAY_TIME)
        return decayed * (server.in_flight + 1) / server.effective_weight


# Kind of an event, index of a server or request, seconds; see `Model.step`.
STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["start at first"] * 3 + ["start", "finish", "finish", "fail", "update", "wait"]
        ),
        st.integers(0, 63),
        st.floats(0.01, 5.0),
    ),
    max_size=60,
)


def many_steps(count: int) -> list[tuple[str, int, float]]:
    """Random steps from a fixed seed."""
    seeded = random.Random(6)
    kinds = ["start at first", "start", "finish", "finish", "wait"] * 8 + ["fail", "update"]
    return [
        (seeded.choice(kinds), seeded.randrange(64), seeded.expovariate(1.0)) for _ in range(count)
    ]


class LoadTrackingTestCase(SynchronousTestCase):
    """Base of tests of algorithms that track load."""

    def check_steps(
        self,
        model: Model,
        steps: list[tuple[str, int, float]],
        cost: Callable[[Server], float],
    ) -> None:
        """After each step the first candidate has the least cost, and all servers follow."""
        for number, (event, which, seconds) in enumerate(steps):
            model.step(event, which, seconds)
            order = [server for server, _ in model.algorithm.candidates(CLIENT)]
            self.assertCountEqual(order, model.present)
            costs = [cost(server) for server in order]
            if costs:
                # Rounding differs from that of the algorithm.
                least = min(costs)
                self.assertLessEqual(costs[0], least + 1e-6 * abs(least), msg=f"step {number}")

    def check_bounded(
        self, algorithm: LeastConnections[Server] | LeastResponseTime[Server]
    ) -> None:
        """The heap does not grow with requests, whichever servers get them."""
        seeded = random.Random(5)
        pool = servers(1, 2, 3, 4, 5)
        algorithm.update(pool)
        in_flight: list[Server] = []
        longest = 0
        for number in range(100_000):
            if in_flight and seeded.random() < 0.5:
                server = in_flight.pop(seeded.randrange(len(in_flight)))
                finish_request(algorithm, server, seeded.random(), number * 0.01)
            else:
                # Rarely the first candidate, which would remove outdated entries at the top.
                in_flight.append(start_request(algorithm, seeded.choice(pool)))
            longest = max(longest, len(algorithm._heap))
        self.assertLessEqual(longest, 2 * len(pool) + 65)
