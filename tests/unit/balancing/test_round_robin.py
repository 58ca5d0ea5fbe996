"""Weighted round robin."""

from __future__ import annotations

import random
import string
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.round_robin import MAX_CYCLE, MAX_TABLE, RoundRobin
from tests.helpers.balancing import (
    CLIENT,
    QUARTERS,
    WEIGHTS,
    Server,
    first,
    firsts,
    names,
    servers,
    updated,
    warming,
)


class RoundRobinTests(SynchronousTestCase):
    """Servers take turns in the given order, in proportion to their weights."""

    def test_given_order(self) -> None:
        """Servers of equal weight take turns in the given order."""
        self.assertEqual(firsts(updated(RoundRobin(), servers(1, 1, 1)), 7), "abcabca")

    def test_failover_order(self) -> None:
        """The candidates after the first are the next servers in the cycle."""
        for pool in (servers(1, 1, 1), list(servers(1, 1, 1)), servers(7, 7, 7)):
            algorithm = updated(RoundRobin(), pool)
            self.assertEqual([names(algorithm) for _ in range(4)], ["abc", "bca", "cab", "abc"])

    def test_failover_order_with_unequal_weights(self) -> None:
        """With unequal weights too, each server is a candidate once."""
        algorithm = updated(RoundRobin(), servers(2, 1, 1))
        self.assertEqual([names(algorithm) for _ in range(4)], ["abc", "bca", "cab", "abc"])

    def test_no_servers(self) -> None:
        """Without servers there are no candidates."""
        self.assertEqual(list(updated(RoundRobin(), ()).candidates(CLIENT)), [])
        self.assertEqual(list(updated(RoundRobin(), []).candidates(CLIENT)), [])

    def test_one_server(self) -> None:
        """A single server gets every turn."""
        for pool in (servers(7), warming(0.7)):
            self.assertEqual(firsts(updated(RoundRobin(), pool), 3), "aaa")

    def test_smooth_interleaving_of_nginx(self) -> None:
        """The order is that of nginx for the same weights."""
        cases = {
            (5, 1, 1): "aabacaa",
            (1, 1, 5): "ccacbcc",
            (2, 1): "aba",
            (3, 3, 2): "abcabcab",
            (6, 2): "aaba",
        }
        for weights, expected in cases.items():
            chosen = firsts(updated(RoundRobin(), servers(*weights)), 2 * len(expected))
            self.assertEqual(chosen, expected * 2, msg=repr(weights))

    def test_more_servers_than_fit_the_table(self) -> None:
        """Pools larger than the table take turns in the given order."""
        pool = [Server(str(number)) for number in range(MAX_TABLE + 6)]
        algorithm = updated(RoundRobin(), pool)
        for _ in range(2):
            self.assertEqual([first(algorithm) for _ in pool], pool)
        order = [server for server, _ in algorithm.candidates(CLIENT)]
        self.assertEqual(order, pool)

    def test_cycle_without_a_table(self) -> None:
        """A cycle that is too long for the table gives exact shares."""
        pool = [Server(str(number), number % 2 + 1) for number in range(70)]
        total = sum(server.weight for server in pool)
        self.assertTrue(MAX_TABLE < total * len(pool) <= MAX_CYCLE)
        algorithm = updated(RoundRobin(), pool)
        for _ in range(2):
            shares = Counter(first(algorithm) for _ in range(total))
            self.assertEqual(shares, {server: server.weight for server in pool})
        self.assertCountEqual([server for server, _ in algorithm.candidates(CLIENT)], pool)

    def test_exact_shares_without_a_cycle(self) -> None:
        """Many servers with many weights get exact shares by deadlines."""
        seeded = random.Random(3)
        pool = [Server(str(number), seeded.randint(1, 256)) for number in range(200)]
        total = sum(server.weight for server in pool)
        self.assertGreater(total * len(pool), MAX_CYCLE)
        algorithm = updated(RoundRobin(), pool)
        for _ in range(2):
            shares = Counter(first(algorithm) for _ in range(total))
            self.assertEqual(shares, {server: server.weight for server in pool})
        self.assertCountEqual([server for server, _ in algorithm.candidates(CLIENT)], pool)

    def test_added_server_gets_its_share(self) -> None:
        """A server added later gets its share, within one turn."""
        for pool, added in (
            (servers(1, 1), Server("c")),
            (warming(0.5, 0.75), Server("c", 1, 0.25)),
        ):
            algorithm = updated(RoundRobin(), pool)
            firsts(algorithm, 3)
            algorithm.update((*pool, added))
            shares = Counter(firsts(algorithm, 60))
            whole = sum(server.effective_weight for server in (*pool, added))
            for server in (*pool, added):
                # The start within its first period may move one turn.
                self.assertLessEqual(
                    abs(shares[server.name] - 60 * server.effective_weight / whole), 1
                )

    def test_removed_server_gets_no_turns(self) -> None:
        """A removed server is no candidate, and the others share its turns."""
        for pool in (servers(5, 1, 2), warming(1.25, 0.25, 0.5)):
            algorithm = updated(RoundRobin(), pool)
            firsts(algorithm, 3)
            algorithm.update(pool[1:])
            shares = Counter(firsts(algorithm, 30))
            self.assertEqual(set(shares), {"b", "c"})
            self.assertLessEqual(abs(shares["c"] - 20), 1)

    def test_change_between_cycle_and_deadlines(self) -> None:
        """Updates may switch between the two methods."""
        algorithm = updated(RoundRobin(), warming(0.5, 0.75))
        for pool, turns in ((servers(1, 1), 6), (warming(0.5, 1.0), 6), ((), 0), (servers(3), 5)):
            algorithm.update(pool)
            shares = Counter(firsts(algorithm, turns))
            whole = sum(server.effective_weight for server in pool)
            expected = {
                server.name: int(turns * server.effective_weight / whole) for server in pool
            }
            self.assertEqual(shares, expected)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 12), st.integers(1, 4), st.sampled_from([1.0, 3.0, 0.1]))
    def test_equal_weights_keep_the_given_order(
        self, count: int, cycles: int, share: float
    ) -> None:
        """Equal effective weights of any size take turns."""
        algorithm = updated(RoundRobin(), warming(*[share] * count))
        self.assertEqual(firsts(algorithm, count * cycles), string.ascii_letters[:count] * cycles)

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_over_a_cycle(self, weights: list[int], cycles: int) -> None:
        """Over a cycle each server gets as many turns as its weight."""
        pool = servers(*weights)
        algorithm = updated(RoundRobin(), pool)
        for _ in range(cycles):
            shares = Counter(firsts(algorithm, sum(weights)))
            self.assertEqual(shares, {server.name: server.weight for server in pool})

    @settings(max_examples=60, deadline=None)
    @given(QUARTERS, st.booleans())
    def test_exact_shares_in_slow_start(self, quarters: list[int], again: bool) -> None:
        """Fractional weights get exact shares, with repeated updates too."""
        pool = warming(*(quarter / 4 for quarter in quarters))
        algorithm = updated(RoundRobin(), pool)
        for _ in range(2):
            shares: Counter[str] = Counter()
            for _ in range(sum(quarters)):
                if again:
                    # An update with the same servers changes nothing.
                    algorithm.update(list(pool))
                shares[first(algorithm).name] += 1
            self.assertEqual([shares[server.name] for server in pool], quarters)

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS)
    def test_every_prefix_is_smooth(self, weights: list[int]) -> None:
        """At every turn each server has had about its share."""
        pool = servers(*weights)
        total = sum(weights)
        counts = dict.fromkeys((server.name for server in pool), 0)
        for turn, name in enumerate(firsts(updated(RoundRobin(), pool), total), 1):
            counts[name] += 1
            for server in pool:
                due = turn * server.weight / total
                # Never ahead by a whole request, nor behind by more than the other servers.
                self.assertLess(counts[server.name] - due, 1.0, msg=f"{server} at {turn}")
                self.assertLess(due - counts[server.name], len(pool), msg=f"{server} at {turn}")

    @settings(max_examples=60, deadline=None)
    @given(QUARTERS)
    def test_earliest_deadline_first_is_smooth(self, quarters: list[int]) -> None:
        """Deadlines deviate from the share by a bounded number of turns."""
        # A half, so that no weight is whole and no cycle is computed.
        pool = warming(*(quarter + 0.5 for quarter in quarters), 1.0)
        whole = sum(server.effective_weight for server in pool)
        counts = dict.fromkeys((server.name for server in pool), 0)
        for turn, name in enumerate(firsts(updated(RoundRobin(), pool), 150), 1):
            counts[name] += 1
            for server in pool:
                # At time t a server of weight w has had w * t turns, plus or minus one
                # half. The number of all turns gives t, up to the halves of the others.
                part = server.effective_weight / whole
                bound = (1 + (len(pool) - 2) * part) / 2 + 1e-9
                self.assertLessEqual(abs(counts[server.name] - turn * part), bound, msg=f"{server}")
