"""Which server is tried first, and which after it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from attrs import define
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.interfaces import Algorithm
from balancebeam.policy.selectors import (
    ALGORITHMS,
    MOST_TURNS,
    RandomChoice,
    RoundRobin,
    algorithm_name,
)


@define(eq=False)
class Server:
    """What an algorithm knows of a server."""

    name: str
    weight: int = 1
    backup: bool = False
    in_flight: int = 0
    failures: int = 0
    cooldown: float = 0.0
    avoided_until: float = 0.0


Servers = Sequence[Server]


def servers(*weights: int) -> tuple[Server, ...]:
    """Servers named a, b, c, ... of such weights."""
    return tuple(Server(chr(ord("a") + i), weight) for i, weight in enumerate(weights))


def firsts(algorithm: Algorithm, pool: Servers, turns: int) -> list[str]:
    """Who is tried first in each of so many turns."""
    return [next(iter(algorithm.order(pool))).name for _ in range(turns)]


def names(algorithm: Algorithm, pool: Servers) -> str:
    """All servers in the order of one turn."""
    return "".join(server.name for server in algorithm.order(pool))


WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


class RoundRobinTests(SynchronousTestCase):
    """In turn, in the order given."""

    def test_the_order_given(self) -> None:
        self.assertEqual("".join(firsts(RoundRobin(), servers(1, 1, 1), 7)), "abcabca")

    def test_failover_goes_on_with_the_next_ones(self) -> None:
        algorithm, pool = RoundRobin(), servers(1, 1, 1)
        self.assertEqual([names(algorithm, pool) for _ in range(4)], ["abc", "bca", "cab", "abc"])

    def test_lists_are_as_good_as_tuples(self) -> None:
        algorithm, pool = RoundRobin(), list(servers(1, 1, 1))
        self.assertEqual([names(algorithm, pool) for _ in range(4)], ["abc", "bca", "cab", "abc"])

    def test_a_list_made_anew_for_every_turn(self) -> None:
        algorithm, pool = RoundRobin(), servers(2, 1)
        chosen = [firsts(algorithm, list(pool), 1)[0] for _ in range(6)]
        self.assertEqual(Counter(chosen), {"a": 4, "b": 2})

    def test_more_servers_than_are_written_out(self) -> None:
        pool = servers(*[1] * (MOST_TURNS + 6))
        algorithm = RoundRobin()
        for _ in range(2):
            self.assertEqual(firsts(algorithm, pool, len(pool)), [server.name for server in pool])

    def test_no_servers(self) -> None:
        nobody: list[Servers] = [(), []]
        for pool in nobody:
            self.assertEqual(list(RoundRobin().order(pool)), [])

    def test_one_server(self) -> None:
        self.assertEqual("".join(firsts(RoundRobin(), servers(7), 3)), "aaa")

    def test_the_smooth_interleaving_of_nginx(self) -> None:
        cases = {
            (5, 1, 1): "aabacaa",
            (1, 1, 5): "ccacbcc",
            (2, 1): "aba",
            (3, 3, 2): "abcabcab",
        }
        for weights, expected in cases.items():
            chosen = "".join(firsts(RoundRobin(), servers(*weights), 2 * len(expected)))
            self.assertEqual(chosen, expected * 2, msg=repr(weights))

    def test_a_server_that_comes_is_taken_into_account(self) -> None:
        algorithm, pool = RoundRobin(), servers(1, 1)
        firsts(algorithm, pool, 3)
        more = (*pool, Server("c"))
        self.assertEqual(Counter(firsts(algorithm, more, 6)), {"a": 2, "b": 2, "c": 2})

    def test_a_server_that_goes_is_tried_no_more(self) -> None:
        algorithm, pool = RoundRobin(), servers(5, 1, 2)
        firsts(algorithm, pool, 3)
        shares = Counter(firsts(algorithm, pool[1:], 30))
        self.assertEqual(set(shares), {"b", "c"})
        # What they were owed before may move a turn or two.
        self.assertLessEqual(abs(shares["c"] - 20), 2)

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 12), st.integers(1, 4), st.booleans())
    def test_equal_shares_over_a_cycle(self, count: int, cycles: int, as_list: bool) -> None:
        pool: Servers = servers(*[3] * count)
        pool = list(pool) if as_list else pool
        chosen = firsts(RoundRobin(), pool, count * cycles)
        self.assertEqual(chosen, [server.name for server in pool] * cycles)

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_over_a_cycle(self, weights: list[int], cycles: int) -> None:
        pool = servers(*weights)
        algorithm = RoundRobin()
        for _ in range(cycles):
            shares = Counter(firsts(algorithm, pool, sum(weights)))
            self.assertEqual(shares, {server.name: server.weight for server in pool})

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS)
    def test_smooth_at_every_turn(self, weights: list[int]) -> None:
        pool = servers(*weights)
        total = sum(weights)
        counts = dict.fromkeys((server.name for server in pool), 0)
        for turn, name in enumerate(firsts(RoundRobin(), pool, total), 1):
            counts[name] += 1
            for server in pool:
                due = turn * server.weight / total
                # Never ahead by a whole request; behind by less than the others can take.
                self.assertLess(counts[server.name] - due, 1.0, msg=f"{server} at {turn}")
                self.assertLess(due - counts[server.name], len(pool), msg=f"{server} at {turn}")


class RandomChoiceTests(SynchronousTestCase):
    """At random, in proportion to weight."""

    def test_shares_follow_the_weights(self) -> None:
        turns = 20_000
        for weights in ((1, 1, 1), (5, 3, 2), (256, 1), (1, 9)):
            pool = servers(*weights)
            shares = Counter(firsts(RandomChoice(random.Random(7)), pool, turns))
            for server in pool:
                share = server.weight / sum(weights)
                deviation = (turns * share * (1 - share)) ** 0.5
                self.assertLess(
                    abs(shares[server.name] - turns * share), 4 * deviation, msg=f"{server}"
                )

    def test_failover_follows_the_weights_of_those_that_are_left(self) -> None:
        turns = 20_000
        algorithm, pool = RandomChoice(random.Random(7)), servers(1, 1, 3)
        seconds = Counter(
            order[1] for order in (names(algorithm, pool) for _ in range(turns)) if order[0] == "a"
        )
        share = seconds["c"] / sum(seconds.values())
        self.assertLess(abs(share - 0.75), 0.03)

    def test_the_same_seed_gives_the_same_order(self) -> None:
        pool = servers(3, 1, 2, 2)
        one, other = (RandomChoice(random.Random(42)) for _ in range(2))
        for _ in range(20):
            self.assertEqual(names(one, pool), names(other, pool))

    def test_no_servers(self) -> None:
        self.assertEqual(list(RandomChoice(random.Random(1)).order(())), [])

    def test_the_extremes_of_randomness(self) -> None:
        class Fixed:
            """Always the same."""

            def __init__(self, value: float) -> None:
                self.value = value

            def random(self) -> float:
                return self.value

        pool = servers(1, 2, 3)
        self.assertEqual(names(RandomChoice(Fixed(0.0)), pool), "abc")
        self.assertEqual(names(RandomChoice(Fixed(1.0 - 2.0**-53)), pool), "cba")
        # `random.random` never gives 1.0; rounding might as well.
        self.assertEqual(names(RandomChoice(Fixed(1.0)), pool), "cba")


class AlgorithmTests(SynchronousTestCase):
    """What holds for all of them."""

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(0, 2**32), st.booleans())
    def test_each_server_once(self, weights: list[int], seed: int, as_list: bool) -> None:
        pool: Servers = servers(*weights)
        pool = list(pool) if as_list else pool
        for name, make in ALGORITHMS.items():
            algorithm = make(random.Random(seed))
            for _ in range(3):
                order = names(algorithm, pool)
                self.assertEqual(
                    sorted(order), [server.name for server in pool], msg=f"{name}: {order}"
                )

    def test_the_servers_given_stay_as_they_are(self) -> None:
        pool = list(servers(3, 1, 2))
        before = list(pool)
        for name, make in ALGORITHMS.items():
            names(make(random.Random(1)), pool)
            self.assertEqual(pool, before, msg=name)
            self.assertEqual([server.weight for server in pool], [3, 1, 2], msg=name)

    def test_names_and_abbreviations(self) -> None:
        cases = {
            "round-robin": "round-robin",
            "Round-Robin": "round-robin",
            "RR": "round-robin",
            "rr": "round-robin",
            "random": "random",
            "RANDOM": "random",
        }
        for text, name in cases.items():
            self.assertEqual(algorithm_name(text), name, msg=text)
            self.assertIn(name, ALGORITHMS)

    def test_unknown_names_are_told_what_there_is(self) -> None:
        for text in ("", "nonsense", "round robin", "r"):
            error = self.assertRaises(ValueError, algorithm_name, text)
            self.assertIn(repr(text), str(error))
            self.assertIn("random, round-robin", str(error))
