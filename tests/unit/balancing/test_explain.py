"""Explanations of all algorithms: they agree with the next request, and change nothing."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.interfaces import Algorithm, ExplainableAlgorithm
from balancebeam.balancing.registry import ALGORITHMS
from tests.helpers.balancing import (
    QUARTERS,
    Server,
    finish_request,
    servers,
    start_request,
    updated,
    warming,
)

DETERMINISTIC = sorted(set(ALGORITHMS) - {"random", "power-of-two"})

# The client, whether the pool is updated before the request, and the request to finish.
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.sampled_from((None, 0, 1))), max_size=25
)


def build(name: str) -> Algorithm[Server]:
    """An algorithm with random numbers of its own."""
    return ALGORITHMS[name](random.Random(7))


def explain(
    algorithm: Algorithm[Server], client: str = "a", update: Sequence[Server] | None = None
) -> Sequence[tuple[Server, str]]:
    """The explanation for a client."""
    assert isinstance(algorithm, ExplainableAlgorithm)
    return algorithm.explain(client, update)


class ExplanationTests(SynchronousTestCase):
    """`explain` of every algorithm."""

    def test_every_algorithm_is_explained(self) -> None:
        """All algorithms have `explain`, and explain an empty pool."""
        for name in ALGORITHMS:
            self.assertEqual(list(explain(updated(build(name), ()))), [], name)

    @settings(max_examples=100, deadline=None)
    @given(st.sampled_from(DETERMINISTIC), QUARTERS, STEPS)
    def test_next_candidates_are_explained(
        self, name: str, quarters: list[int], steps: list[tuple[str, bool, int | None]]
    ) -> None:
        """Explanations equal the next candidates, and do not change later ones."""
        pools = [warming(*(quarter / 4 for quarter in quarters)) for _ in range(2)]
        explained, silent = (updated(build(name), pool) for pool in pools)
        started: list[int] = []
        for now, (client, update, finished) in enumerate(steps):
            half = len(quarters) // 2 if update and now % 2 else 0
            subset = pools[0][half:] if update else None
            first = explain(explained, client, subset)
            self.assertEqual(first, explain(explained, client, subset))
            if update:
                explained.update(pools[0][half:])
                silent.update(pools[1][half:])
            candidates = list(explained.candidates(client))
            self.assertEqual(list(first), candidates)
            names = [server.name for server, _ in silent.candidates(client)]
            self.assertEqual([server.name for server, _ in candidates], names)
            number = pools[0].index(candidates[0][0])
            start_request(explained, pools[0][number], float(now))
            start_request(silent, pools[1][number], float(now))
            started.append(number)
            if finished is not None:
                number = started.pop(finished % len(started))
                finish_request(explained, pools[0][number], 0.1 * now, float(now))
                finish_request(silent, pools[1][number], 0.1 * now, float(now))

    def test_random_is_by_share(self) -> None:
        """Servers of a random algorithm are in the order of their shares."""
        pool = servers(1, 3, 1)
        generator = random.Random(7)
        algorithm = updated(ALGORITHMS["random"](generator), pool)
        state = generator.getstate()
        self.assertEqual(
            [(server.name, reason) for server, reason in explain(algorithm)],
            [
                ("b", "random by weight: 60%"),
                ("a", "random by weight: 20%"),
                ("c", "random by weight: 20%"),
            ],
        )
        self.assertEqual(generator.getstate(), state)
        self.assertEqual(len(explain(algorithm, "a", pool[:1])), 1)

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=2, max_size=6))
    def test_power_of_two_probabilities(self, rows: list[tuple[int, int]]) -> None:
        """The probabilities equal the sums over all samples of two servers."""
        pool = servers(*(weight for weight, _ in rows))
        for server, (_, in_flight) in zip(pool, rows):
            server.in_flight = in_flight
        total = sum(server.weight for server in pool)
        expected = dict.fromkeys((server.name for server in pool), 0.0)
        for one in pool:
            for other in pool:
                if other is not one:
                    swapped = other.in_flight * one.weight < one.in_flight * other.weight
                    chosen = other if swapped else one
                    sampled = one.weight / total * other.weight / (total - one.weight)
                    expected[chosen.name] += sampled
        algorithm = updated(build("power-of-two"), pool)
        explained = explain(algorithm)
        for server, reason in explained:
            percent = float(reason.rpartition(": ")[2].rstrip("%"))
            self.assertLess(abs(percent - 100 * expected[server.name]), 0.51)
        order = [round(expected[server.name], 9) for server, _ in explained]
        self.assertEqual(order, sorted(order, reverse=True))

    def test_power_of_two_with_one_server(self) -> None:
        """The only server is certain."""
        ((server, reason),) = explain(updated(build("power-of-two"), servers(2)))
        self.assertEqual((server.name, reason), ("a", "less loaded of two at random: 100%"))
