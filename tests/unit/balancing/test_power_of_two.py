"""Power of two choices."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from balancebeam.balancing.power_of_two import PowerOfTwo
from tests.helpers.balancing import (
    CLIENT,
    EXTREMES,
    FixedRandom,
    RandomTestCase,
    firsts,
    names,
    servers,
    updated,
    warming,
)


class PowerOfTwoTests(RandomTestCase):
    """Of two random servers, the less loaded one is selected."""

    def test_idle_servers_get_shares_by_weight(self) -> None:
        """Without requests in flight the shares follow the weights."""
        for weights in ((1, 1, 1), (5, 3, 2), (256, 1)):
            pool = servers(*weights)
            shares = Counter(firsts(updated(PowerOfTwo(random.Random(7)), pool), 20_000))
            for server in pool:
                share = server.weight / sum(weights)
                self.check_count(shares[server.name], 20_000, share, f"{server}")

    def test_less_loaded_of_two_servers(self) -> None:
        """The server with fewer requests in flight per weight comes first."""
        pool = servers(2, 3, 5)
        for server, load in zip(pool, (4, 9, 20)):
            # Per weight: 2, 3 and 4.
            server.in_flight = load
        algorithm = updated(PowerOfTwo(random.Random(7)), pool)
        orders = Counter(names(algorithm) for _ in range(20_000))
        # Probabilities of the pairs: one server first, then the other among the rest.
        a_and_b = 0.2 * 3 / 8 + 0.3 * 2 / 7
        b_and_c = 0.3 * 5 / 7 + 0.5 * 3 / 5
        expected = {"abc": a_and_b, "bca": b_and_c, "acb": 1 - a_and_b - b_and_c}
        self.assertEqual(set(orders), set(expected))
        for order, share in expected.items():
            self.check_count(orders[order], 20_000, share, order)

    def test_failover_follows_the_remaining_weights(self) -> None:
        """The third candidate is random among the remaining servers, by weight."""
        pool = servers(1, 1, 1, 3)
        algorithm = updated(PowerOfTwo(random.Random(7)), pool)
        orders = Counter(names(algorithm) for _ in range(20_000))
        turns = sum(count for order, count in orders.items() if set(order[:2]) == {"a", "b"})
        count = sum(orders[order] for order in ("abdc", "badc"))
        self.check_count(count, turns, 0.75, repr(orders))

    def test_same_seed_gives_the_same_order(self) -> None:
        """The order depends on the random numbers only."""
        pool = servers(3, 1, 2, 2)
        algorithm, repeated = (updated(PowerOfTwo(random.Random(42)), pool) for _ in range(2))
        for _ in range(20):
            self.assertEqual(names(algorithm), names(repeated))

    def test_extreme_random_values(self) -> None:
        """The smallest and largest random numbers select two different servers."""
        for value in EXTREMES:
            for second in EXTREMES:
                for weights in ((1, 2, 3), (1, 1), (7,), (256, 1, 256)):
                    order = names(
                        updated(PowerOfTwo(FixedRandom(value, second)), servers(*weights))
                    )
                    self.assertEqual("".join(sorted(order)), "abc"[: len(weights)])

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.floats(0.01, 256.0), min_size=2, max_size=6),
        st.lists(st.integers(0, 9), min_size=6, max_size=6),
        st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6),
    )
    def test_first_is_no_more_loaded_than_second(
        self, shares: list[float], loads: list[int], values: list[float]
    ) -> None:
        """Of the first two candidates, the first has the lower load."""
        pool = warming(*shares)
        for server, load in zip(pool, loads):
            server.in_flight = load
        order = list(updated(PowerOfTwo(FixedRandom(*values)), pool).candidates(CLIENT))
        (chosen, _), (rejected, _) = order[:2]
        self.assertIsNot(chosen, rejected)
        self.assertLessEqual(
            chosen.in_flight / chosen.effective_weight,
            rejected.in_flight / rejected.effective_weight * (1 + 1e-9),
        )
