"""Weighted random selection."""

from __future__ import annotations

import random
from collections import Counter

from balancebeam.balancing.weighted_random import WeightedRandom
from tests.helpers.balancing import (
    EXTREMES,
    FixedRandom,
    RandomTestCase,
    firsts,
    names,
    servers,
    updated,
    warming,
)


class WeightedRandomTests(RandomTestCase):
    """Servers are selected at random, in proportion to their weights."""

    def test_shares_follow_the_weights(self) -> None:
        """The share of each server is its weight over the sum of all."""
        turns = 20_000
        for weights in ((1, 1, 1), (5, 3, 2), (256, 1), (1, 9)):
            pool = servers(*weights)
            shares = Counter(firsts(updated(WeightedRandom(random.Random(7)), pool), turns))
            for server in pool:
                share = server.weight / sum(weights)
                self.check_count(shares[server.name], turns, share, f"{server}")

    def test_failover_follows_the_remaining_weights(self) -> None:
        """The second candidate is random among the remaining servers, by weight."""
        algorithm = updated(WeightedRandom(random.Random(7)), servers(1, 1, 3))
        orders = Counter(names(algorithm) for _ in range(20_000))
        for name, others, share in (("a", "bc", 0.75), ("b", "ac", 0.75), ("c", "ab", 0.5)):
            turns = sum(orders[order] for order in orders if order[0] == name)
            count = sum(orders[order] for order in orders if order[:2] == name + others[1])
            self.check_count(count, turns, share, name)

    def test_slow_start_reduces_the_share(self) -> None:
        """The effective weight counts, not the configured one."""
        shares = Counter(
            firsts(updated(WeightedRandom(random.Random(7)), warming(0.1, 1.0)), 20_000)
        )
        self.check_count(shares["a"], 20_000, 1 / 11, "a")

    def test_same_seed_gives_the_same_order(self) -> None:
        """The order depends on the random numbers only."""
        pool = servers(3, 1, 2, 2)
        algorithm, repeated = (updated(WeightedRandom(random.Random(42)), pool) for _ in range(2))
        for _ in range(20):
            self.assertEqual(names(algorithm), names(repeated))

    def test_extreme_random_values(self) -> None:
        """The smallest and largest random numbers select a server."""
        pool = servers(1, 2, 3)
        orders = [names(updated(WeightedRandom(FixedRandom(value)), pool)) for value in EXTREMES]
        self.assertEqual(orders, ["abc", "cba", "cba"])
