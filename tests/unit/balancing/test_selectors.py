"""Which server is tried first, and which after it."""

from __future__ import annotations

import random
import signal
import string
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from math import ceil, exp, log
from typing import Callable

from attrs import Factory, define
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing import sticky
from balancebeam.balancing.hash_ring import HashRing
from balancebeam.balancing.interfaces import Algorithm
from balancebeam.balancing.least_connections import LeastConnections
from balancebeam.balancing.power_of_two import PowerOfTwo
from balancebeam.balancing.registry import ALGORITHMS, algorithm_name
from balancebeam.balancing.response_time import DECAY_TIME, LeastResponseTime
from balancebeam.balancing.round_robin import MAX_CYCLE, MAX_TABLE, RoundRobin
from balancebeam.balancing.sticky import StickyRoundRobin
from balancebeam.balancing.weighted_random import WeightedRandom

CLIENT = "192.0.2.1"


@define(eq=False)
class Server:
    """What an algorithm knows of a server."""

    name: str
    weight: int = 1
    effective_weight: float = Factory(lambda self: float(self.weight), takes_self=True)
    in_flight: int = 0
    available: bool = True


Servers = Sequence[Server]


def servers(*weights: int) -> tuple[Server, ...]:
    """Servers named a, b, c, ... of such weights."""
    return tuple(Server(name, weight) for name, weight in zip(string.ascii_letters, weights))


def warming(*shares: float) -> tuple[Server, ...]:
    """Servers that count for less than their weight at the moment."""
    return tuple(
        Server(name, ceil(share), share) for name, share in zip(string.ascii_letters, shares)
    )


def met(algorithm: Algorithm[Server], pool: Servers) -> Algorithm[Server]:
    """The algorithm, after it has met the pool."""
    algorithm.update(pool)
    return algorithm


def first(algorithm: Algorithm[Server], client: str = CLIENT) -> Server:
    """Who is tried first."""
    return next(algorithm.candidates(client))[0]


def firsts(algorithm: Algorithm[Server], turns: int) -> str:
    """Who is tried first in each of so many turns."""
    return "".join(first(algorithm).name for _ in range(turns))


def names(algorithm: Algorithm[Server], client: str = CLIENT) -> str:
    """All servers in the order of one turn."""
    return "".join(server.name for server, _ in algorithm.candidates(client))


def take(algorithm: Algorithm[Server], server: Server, now: float = 0.0) -> Server:
    """Give `server` a request."""
    server.in_flight += 1
    algorithm.request_started(server, now)
    return server


def give_back(
    algorithm: Algorithm[Server], server: Server, seconds: float | None = 0.1, now: float = 0.0
) -> None:
    """Let `server` be done with a request."""
    server.in_flight -= 1
    algorithm.request_finished(server, seconds, now)


def one_at_a_time(algorithm: Algorithm[Server], turns: int) -> str:
    """Who gets each of so many requests, of which every one ends before the next."""
    chosen = ""
    for _ in range(turns):
        server = take(algorithm, first(algorithm))
        give_back(algorithm, server)
        chosen += server.name
    return chosen


WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
# Quarters are exact as floats, and few cycles of them are whole.
QUARTERS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


class RoundRobinTests(SynchronousTestCase):
    """In turn, in the order given."""

    def test_the_order_given(self) -> None:
        self.assertEqual(firsts(met(RoundRobin(), servers(1, 1, 1)), 7), "abcabca")

    def test_failover_goes_on_with_the_next_ones(self) -> None:
        for pool in (servers(1, 1, 1), list(servers(1, 1, 1)), servers(7, 7, 7)):
            algorithm = met(RoundRobin(), pool)
            self.assertEqual([names(algorithm) for _ in range(4)], ["abc", "bca", "cab", "abc"])

    def test_failover_goes_on_with_the_next_ones_of_unequal_weights(self) -> None:
        algorithm = met(RoundRobin(), servers(2, 1, 1))
        self.assertEqual([names(algorithm) for _ in range(4)], ["abc", "bca", "cab", "abc"])

    def test_no_servers(self) -> None:
        self.assertEqual(list(met(RoundRobin(), ()).candidates(CLIENT)), [])
        self.assertEqual(list(met(RoundRobin(), []).candidates(CLIENT)), [])

    def test_one_server(self) -> None:
        for pool in (servers(7), warming(0.7)):
            self.assertEqual(firsts(met(RoundRobin(), pool), 3), "aaa")

    def test_the_smooth_interleaving_of_nginx(self) -> None:
        cases = {
            (5, 1, 1): "aabacaa",
            (1, 1, 5): "ccacbcc",
            (2, 1): "aba",
            (3, 3, 2): "abcabcab",
            (6, 2): "aaba",
        }
        for weights, expected in cases.items():
            chosen = firsts(met(RoundRobin(), servers(*weights)), 2 * len(expected))
            self.assertEqual(chosen, expected * 2, msg=repr(weights))

    def test_more_servers_than_are_written_out(self) -> None:
        pool = [Server(str(number)) for number in range(MAX_TABLE + 6)]
        algorithm = met(RoundRobin(), pool)
        for _ in range(2):
            self.assertEqual([first(algorithm) for _ in pool], pool)
        order = [server for server, _ in algorithm.candidates(CLIENT)]
        self.assertEqual(order, pool)

    def test_a_cycle_that_is_written_out_without_its_orders(self) -> None:
        pool = [Server(str(number), number % 2 + 1) for number in range(70)]
        total = sum(server.weight for server in pool)
        self.assertTrue(MAX_TABLE < total * len(pool) <= MAX_CYCLE)
        algorithm = met(RoundRobin(), pool)
        for _ in range(2):
            shares = Counter(first(algorithm) for _ in range(total))
            self.assertEqual(shares, {server: server.weight for server in pool})
        self.assertCountEqual([server for server, _ in algorithm.candidates(CLIENT)], pool)

    def test_exact_shares_of_many_servers_of_many_weights(self) -> None:
        seeded = random.Random(3)
        pool = [Server(str(number), seeded.randint(1, 256)) for number in range(200)]
        total = sum(server.weight for server in pool)
        self.assertGreater(total * len(pool), MAX_CYCLE)
        algorithm = met(RoundRobin(), pool)
        for _ in range(2):
            shares = Counter(first(algorithm) for _ in range(total))
            self.assertEqual(shares, {server: server.weight for server in pool})
        self.assertCountEqual([server for server, _ in algorithm.candidates(CLIENT)], pool)

    def test_a_server_that_comes_is_taken_into_account(self) -> None:
        for one, other in (
            (servers(1, 1), Server("c")),
            (warming(0.5, 0.75), Server("c", 1, 0.25)),
        ):
            algorithm = met(RoundRobin(), one)
            firsts(algorithm, 3)
            algorithm.update((*one, other))
            shares = Counter(firsts(algorithm, 60))
            whole = sum(server.effective_weight for server in (*one, other))
            for server in (*one, other):
                # Where in its own first turn it begins may move a turn.
                self.assertLessEqual(
                    abs(shares[server.name] - 60 * server.effective_weight / whole), 1
                )

    def test_a_server_that_goes_is_tried_no_more(self) -> None:
        for pool in (servers(5, 1, 2), warming(1.25, 0.25, 0.5)):
            algorithm = met(RoundRobin(), pool)
            firsts(algorithm, 3)
            algorithm.update(pool[1:])
            shares = Counter(firsts(algorithm, 30))
            self.assertEqual(set(shares), {"b", "c"})
            self.assertLessEqual(abs(shares["c"] - 20), 1)

    def test_from_many_weights_to_few_and_back(self) -> None:
        algorithm = met(RoundRobin(), warming(0.5, 0.75))
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
    def test_equal_shares_in_the_order_given(self, count: int, cycles: int, share: float) -> None:
        algorithm = met(RoundRobin(), warming(*[share] * count))
        self.assertEqual(firsts(algorithm, count * cycles), string.ascii_letters[:count] * cycles)

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_over_a_cycle(self, weights: list[int], cycles: int) -> None:
        pool = servers(*weights)
        algorithm = met(RoundRobin(), pool)
        for _ in range(cycles):
            shares = Counter(firsts(algorithm, sum(weights)))
            self.assertEqual(shares, {server.name: server.weight for server in pool})

    @settings(max_examples=60, deadline=None)
    @given(QUARTERS, st.booleans())
    def test_exact_shares_of_those_that_warm_up(self, quarters: list[int], again: bool) -> None:
        pool = warming(*(quarter / 4 for quarter in quarters))
        algorithm = met(RoundRobin(), pool)
        for _ in range(2):
            shares: Counter[str] = Counter()
            for _ in range(sum(quarters)):
                if again:
                    # To be met again changes nothing.
                    algorithm.update(list(pool))
                shares[first(algorithm).name] += 1
            self.assertEqual([shares[server.name] for server in pool], quarters)

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS)
    def test_smooth_at_every_turn(self, weights: list[int]) -> None:
        pool = servers(*weights)
        total = sum(weights)
        counts = dict.fromkeys((server.name for server in pool), 0)
        for turn, name in enumerate(firsts(met(RoundRobin(), pool), total), 1):
            counts[name] += 1
            for server in pool:
                due = turn * server.weight / total
                # Never ahead by a whole request; behind by less than the others can take.
                self.assertLess(counts[server.name] - due, 1.0, msg=f"{server} at {turn}")
                self.assertLess(due - counts[server.name], len(pool), msg=f"{server} at {turn}")

    @settings(max_examples=60, deadline=None)
    @given(QUARTERS)
    def test_earliest_deadline_first_is_smooth_too(self, quarters: list[int]) -> None:
        # A half, so that nothing is whole and no cycle is written out.
        pool = warming(*(quarter + 0.5 for quarter in quarters), 1.0)
        whole = sum(server.effective_weight for server in pool)
        counts = dict.fromkeys((server.name for server in pool), 0)
        for turn, name in enumerate(firsts(met(RoundRobin(), pool), 150), 1):
            counts[name] += 1
            for server in pool:
                # At each time t, a server of share w has had w * t turns, give
                # or take one half. What all have had tells t up to the sum of
                # the others' halves.
                part = server.effective_weight / whole
                bound = (1 + (len(pool) - 2) * part) / 2 + 1e-9
                self.assertLessEqual(abs(counts[server.name] - turn * part), bound, msg=f"{server}")


class FixedRandom:
    """A source of randomness that repeats itself."""

    def __init__(self, *values: float) -> None:
        self._values = cycle(values)

    def random(self) -> float:
        return next(self._values)


# `random.random` never gives 1.0; rounding might as well.
EXTREMES = (0.0, 1.0 - 2.0**-53, 1.0)


class RandomTestCase(SynchronousTestCase):
    """Says whether a count is what chance explains."""

    def check_count(self, count: int, turns: int, share: float, message: str) -> None:
        """Less than four standard deviations away, as 15,999 of 16,000 counts are."""
        deviation = (turns * share * (1 - share)) ** 0.5
        self.assertLess(abs(count - turns * share), 4 * deviation, msg=message)


class WeightedRandomTests(RandomTestCase):
    """At random, in proportion to weight."""

    def test_shares_follow_the_weights(self) -> None:
        turns = 20_000
        for weights in ((1, 1, 1), (5, 3, 2), (256, 1), (1, 9)):
            pool = servers(*weights)
            shares = Counter(firsts(met(WeightedRandom(random.Random(7)), pool), turns))
            for server in pool:
                share = server.weight / sum(weights)
                self.check_count(shares[server.name], turns, share, f"{server}")

    def test_failover_follows_the_weights_of_those_that_are_left(self) -> None:
        algorithm = met(WeightedRandom(random.Random(7)), servers(1, 1, 3))
        orders = Counter(names(algorithm) for _ in range(20_000))
        for name, others, share in (("a", "bc", 0.75), ("b", "ac", 0.75), ("c", "ab", 0.5)):
            turns = sum(orders[order] for order in orders if order[0] == name)
            count = sum(orders[order] for order in orders if order[:2] == name + others[1])
            self.check_count(count, turns, share, name)

    def test_those_that_warm_up_get_less(self) -> None:
        shares = Counter(firsts(met(WeightedRandom(random.Random(7)), warming(0.1, 1.0)), 20_000))
        self.check_count(shares["a"], 20_000, 1 / 11, "a")

    def test_the_same_seed_gives_the_same_order(self) -> None:
        pool = servers(3, 1, 2, 2)
        one, other = (met(WeightedRandom(random.Random(42)), pool) for _ in range(2))
        for _ in range(20):
            self.assertEqual(names(one), names(other))

    def test_the_extremes_of_randomness(self) -> None:
        pool = servers(1, 2, 3)
        orders = [names(met(WeightedRandom(FixedRandom(value)), pool)) for value in EXTREMES]
        self.assertEqual(orders, ["abc", "cba", "cba"])


class PowerOfTwoTests(RandomTestCase):
    """Two at random, and of these the less loaded."""

    def test_shares_follow_the_weights_while_nothing_is_in_flight(self) -> None:
        for weights in ((1, 1, 1), (5, 3, 2), (256, 1)):
            pool = servers(*weights)
            shares = Counter(firsts(met(PowerOfTwo(random.Random(7)), pool), 20_000))
            for server in pool:
                share = server.weight / sum(weights)
                self.check_count(shares[server.name], 20_000, share, f"{server}")

    def test_the_less_loaded_of_two_different_ones(self) -> None:
        pool = servers(2, 3, 5)
        for server, load in zip(pool, (4, 9, 20)):
            # For their shares: 2, 3 and 4.
            server.in_flight = load
        algorithm = met(PowerOfTwo(random.Random(7)), pool)
        orders = Counter(names(algorithm) for _ in range(20_000))
        # First one of the pair, then the other of those that are left.
        a_and_b = 0.2 * 3 / 8 + 0.3 * 2 / 7
        b_and_c = 0.3 * 5 / 7 + 0.5 * 3 / 5
        expected = {"abc": a_and_b, "bca": b_and_c, "acb": 1 - a_and_b - b_and_c}
        self.assertEqual(set(orders), set(expected))
        for order, share in expected.items():
            self.check_count(orders[order], 20_000, share, order)

    def test_failover_follows_the_weights_of_those_that_are_left(self) -> None:
        pool = servers(1, 1, 1, 3)
        algorithm = met(PowerOfTwo(random.Random(7)), pool)
        orders = Counter(names(algorithm) for _ in range(20_000))
        turns = sum(count for order, count in orders.items() if set(order[:2]) == {"a", "b"})
        count = sum(orders[order] for order in ("abdc", "badc"))
        self.check_count(count, turns, 0.75, repr(orders))

    def test_the_same_seed_gives_the_same_order(self) -> None:
        pool = servers(3, 1, 2, 2)
        one, other = (met(PowerOfTwo(random.Random(42)), pool) for _ in range(2))
        for _ in range(20):
            self.assertEqual(names(one), names(other))

    def test_the_extremes_of_randomness(self) -> None:
        for value in EXTREMES:
            for another in EXTREMES:
                for weights in ((1, 2, 3), (1, 1), (7,), (256, 1, 256)):
                    order = names(met(PowerOfTwo(FixedRandom(value, another)), servers(*weights)))
                    self.assertEqual("".join(sorted(order)), "abc"[: len(weights)])

    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.floats(0.01, 256.0), min_size=2, max_size=6),
        st.lists(st.integers(0, 9), min_size=6, max_size=6),
        st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6),
    )
    def test_the_first_has_no_more_than_the_second(
        self, shares: list[float], loads: list[int], values: list[float]
    ) -> None:
        pool = warming(*shares)
        for server, load in zip(pool, loads):
            server.in_flight = load
        order = list(met(PowerOfTwo(FixedRandom(*values)), pool).candidates(CLIENT))
        (one, _), (other, _) = order[:2]
        self.assertIsNot(one, other)
        self.assertLessEqual(
            one.in_flight / one.effective_weight,
            other.in_flight / other.effective_weight * (1 + 1e-9),
        )


class Model:
    """
    Drives an algorithm that follows the load, and knows the load by itself.

    A step is what to do, which of those there are to do it to, and a time.
    """

    def __init__(self, algorithm: Algorithm[Server], pool: Servers) -> None:
        self.algorithm = algorithm
        self.pool = pool
        self.present: Servers = pool
        self.flying: list[Server] = []
        self.now = 1000.0
        # By server: peak-EWMA latency, and when that was so; when it last
        # answered, or got its first request; and the load of those without any
        # average when something last happened to them.
        self.averages: dict[Server, tuple[float, float]] = {}
        self.silent_since: dict[Server, float] = {}
        self.guesses: dict[Server, float] = {}
        # The slowest answer, as if it had come at time 0; a logarithm.
        self.slowest: float | None = None
        algorithm.update(pool)

    def step(self, what: str, which: int, seconds: float) -> None:
        """One thing that happens."""
        if what == "take first" and self.present:
            self._take(first(self.algorithm))
        elif what == "take" and self.present:
            order = [server for server, _ in self.algorithm.candidates(CLIENT)]
            self._take(order[which % len(order)])
        elif what == "give back" and self.flying:
            server = self.flying.pop(which % len(self.flying))
            self._observe(server, seconds)
            self.silent_since[server] = self.now
            give_back(self.algorithm, server, seconds, self.now)
            self._guess(server)
        elif what == "fail" and self.flying:
            server = self.flying.pop(which % len(self.flying))
            give_back(self.algorithm, server, None, self.now)
            self._guess(server)
        elif what == "meet":
            self.present = [s for n, s in enumerate(self.pool) if which & 1 << n]
            self.averages = {s: self.averages[s] for s in self.present if s in self.averages}
            self.silent_since = {
                s: since for s, since in self.silent_since.items() if s in self.averages
            }
            self.algorithm.update(self.present)
            for server in self.present:
                self._guess(server)
        elif what == "wait":
            self.now += 10 * seconds

    def _take(self, server: Server) -> None:
        self.flying.append(server)
        if not server.in_flight:
            self.silent_since[server] = self.now
        elif server in self.averages:
            silent = self.now - self.silent_since.get(server, self.now)
            if silent > self.averages[server][0]:
                self._observe(server, silent)
        take(self.algorithm, server, self.now)
        self._guess(server)

    def _guess(self, server: Server) -> None:
        self.guesses[server] = (self.slowest or 0.0) + log(
            (server.in_flight + 1) / server.effective_weight
        )

    def _observe(self, server: Server, seconds: float) -> None:
        if server in self.present:
            average, since = self.averages.get(server, (0.0, self.now))
            left = exp((since - self.now) / DECAY_TIME)
            average = max(seconds, average * left + seconds * (1 - left))
            self.averages[server] = (average, self.now)
            load = log(average) + self.now / DECAY_TIME
            if self.slowest is None:
                self.slowest = load
                for other in self.present:
                    self._guess(other)
            self.slowest = max(self.slowest, load)

    def least_connections(self, server: Server) -> float:
        """Requests in flight with the one to come, for its share; idle servers are equal."""
        return (server.in_flight + 1) / server.effective_weight if server.in_flight else 0.0

    def least_response_time(self, server: Server) -> float:
        """The average as it has faded, times requests in flight, for its share."""
        if server not in self.averages:
            # As slow as the slowest, once it has been asked.
            return exp(self.guesses[server] - self.now / DECAY_TIME) if server.in_flight else -1.0
        average, since = self.averages[server]
        faded = average * exp((since - self.now) / DECAY_TIME)
        return faded * (server.in_flight + 1) / server.effective_weight


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["take first"] * 3 + ["take", "give back", "give back", "fail", "meet", "wait"]
        ),
        st.integers(0, 63),
        st.floats(0.01, 5.0),
    ),
    max_size=60,
)


def many_steps(count: int) -> list[tuple[str, int, float]]:
    """Steps at random, but always the same."""
    seeded = random.Random(6)
    kinds = ["take first", "take", "give back", "give back", "wait"] * 8 + ["fail", "meet"]
    return [
        (seeded.choice(kinds), seeded.randrange(64), seeded.expovariate(1.0)) for _ in range(count)
    ]


class LoadTrackingTestCase(SynchronousTestCase):
    """Compares an algorithm that follows the load with a search through all."""

    def check_steps(
        self,
        model: Model,
        steps: list[tuple[str, int, float]],
        load: Callable[[Server], float],
    ) -> None:
        """After each step, the first has the least load, and all have their turn."""
        for number, (what, which, seconds) in enumerate(steps):
            model.step(what, which, seconds)
            order = [server for server, _ in model.algorithm.candidates(CLIENT)]
            self.assertCountEqual(order, model.present)
            loads = [load(server) for server in order]
            if loads:
                # Floats are rounded in another order than in the algorithm.
                least = min(loads)
                self.assertLessEqual(loads[0], least + 1e-6 * abs(least), msg=f"step {number}")

    def check_bounded(
        self, algorithm: LeastConnections[Server] | LeastResponseTime[Server]
    ) -> None:
        """The heap does not grow with requests, whichever servers are asked."""
        seeded = random.Random(5)
        pool = servers(1, 2, 3, 4, 5)
        algorithm.update(pool)
        flying: list[Server] = []
        longest = 0
        for number in range(100_000):
            if flying and seeded.random() < 0.5:
                server = flying.pop(seeded.randrange(len(flying)))
                give_back(algorithm, server, seeded.random(), number * 0.01)
            else:
                # Mostly not the first, which would clear the heap's top.
                flying.append(take(algorithm, seeded.choice(pool)))
            longest = max(longest, len(algorithm._heap))
        self.assertLessEqual(longest, 2 * len(pool) + 65)


class LeastConnectionsTests(LoadTrackingTestCase):
    """The fewest requests in flight, for its share."""

    def test_the_fewest_requests_in_flight(self) -> None:
        algorithm, pool = LeastConnections[Server](), servers(1, 1, 1)
        for server, load in zip(pool, (2, 1, 3)):
            server.in_flight = load
        algorithm.update(pool)
        self.assertEqual(names(algorithm), "bac")

    def test_the_fewest_for_its_share(self) -> None:
        pool = (*servers(4, 1), Server("c", 8, 1.0))
        for server, load in zip(pool, (5, 1, 2)):
            # With the one to come: 6/4, 2/1 and 3/1.
            server.in_flight = load
        self.assertEqual(names(met(LeastConnections(), pool)), "abc")

    def test_idle_servers_come_first_whatever_their_weight(self) -> None:
        pool = servers(256, 1)
        algorithm = met(LeastConnections(), pool)
        self.assertEqual([take(algorithm, first(algorithm)).name for _ in range(2)], ["a", "b"])

    def test_ties_in_turn(self) -> None:
        algorithm = met(LeastConnections(), servers(1, 1, 1))
        self.assertEqual(one_at_a_time(algorithm, 7), "abcabca")
        held = [take(algorithm, first(algorithm)).name for _ in range(6)]
        self.assertEqual("".join(held), "bcabca")

    def test_who_comes_gets_no_more_than_the_others(self) -> None:
        pool = servers(1, 1, 1)
        algorithm = met(LeastConnections(), pool[:2])
        one_at_a_time(algorithm, 100)
        algorithm.update(pool)
        self.assertEqual(Counter(one_at_a_time(algorithm, 30)), {"a": 10, "b": 10, "c": 10})

    def test_who_was_busy_gets_no_more_than_the_others_afterwards(self) -> None:
        pool = servers(1, 1, 1)
        algorithm = met(LeastConnections(), pool)
        held = take(algorithm, first(algorithm))
        one_at_a_time(algorithm, 1000)
        give_back(algorithm, held)
        shares = Counter(one_at_a_time(algorithm, 30))
        self.assertLessEqual(max(shares.values()) - min(shares.values()), 2)

    def test_requests_that_ended_elsewhere_count(self) -> None:
        pool = servers(1, 1)
        algorithm = met(LeastConnections(), pool)
        take(algorithm, pool[0])
        algorithm.update(pool[1:])
        give_back(algorithm, pool[0])
        take(algorithm, pool[1])
        algorithm.update(pool)
        self.assertEqual(names(algorithm), "ab")

    def test_the_end_of_a_request_after_its_server_left(self) -> None:
        pool = servers(1, 1)
        algorithm = met(LeastConnections(), pool)
        take(algorithm, pool[0])
        algorithm.update(pool[1:])
        give_back(algorithm, pool[0])
        take(algorithm, pool[0])
        self.assertEqual(names(algorithm), "b")
        algorithm.update(())
        give_back(algorithm, pool[0])
        self.assertEqual(names(algorithm), "")

    def test_the_heap_stays_small(self) -> None:
        self.check_bounded(LeastConnections())

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_of_requests_one_at_a_time(self, weights: list[int], cycles: int) -> None:
        pool = servers(*weights)
        algorithm = met(LeastConnections(), pool)
        for _ in range(cycles):
            shares = Counter(one_at_a_time(algorithm, sum(weights)))
            self.assertEqual(shares, {server.name: server.weight for server in pool})

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(1, 3))
    def test_exact_shares_of_requests_that_stay(self, weights: list[int], cycles: int) -> None:
        pool = servers(*weights)
        algorithm = met(LeastConnections(), pool)
        for held in range(1, cycles + 1):
            for _ in range(sum(weights)):
                take(algorithm, first(algorithm))
            self.assertEqual([s.in_flight for s in pool], [held * s.weight for s in pool])

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, STEPS)
    def test_the_least_of_all(
        self, weights: list[int], steps: list[tuple[str, int, float]]
    ) -> None:
        model = Model(LeastConnections(), servers(*weights))
        self.check_steps(model, steps, model.least_connections)

    def test_the_least_of_all_for_long(self) -> None:
        model = Model(LeastConnections(), warming(0.1, 0.75, 1.0, 2.5, 9.0, 4.0))
        self.check_steps(model, many_steps(4000), model.least_connections)


class LeastResponseTimeTests(LoadTrackingTestCase):
    """The quickest answers, for what is in flight."""

    def answered(self, algorithm: Algorithm[Server], **seconds: float) -> tuple[Server, ...]:
        """Servers that have just answered once, within such times."""
        pool = tuple(Server(name) for name in seconds)
        algorithm.update(pool)
        for server in pool:
            take(algorithm, server)
            give_back(algorithm, server, seconds[server.name])
        return pool

    def test_the_quickest_first(self) -> None:
        algorithm = LeastResponseTime[Server]()
        self.answered(algorithm, a=0.3, b=0.1, c=0.2)
        self.assertEqual(names(algorithm), "bca")

    def test_in_flight_and_share_count(self) -> None:
        algorithm = LeastResponseTime[Server]()
        a, b = self.answered(algorithm, a=0.1, b=0.25)
        self.assertEqual([take(algorithm, first(algorithm)) for _ in range(4)], [a, a, b, a])
        b.effective_weight = 4.0
        algorithm.update((a, b))
        self.assertIs(first(algorithm), b)

    def test_a_new_server_gets_one_request_until_it_has_answered(self) -> None:
        algorithm = LeastResponseTime[Server]()
        pool = self.answered(algorithm, a=0.1, b=0.1)
        new = Server("c")
        algorithm.update((*pool, new))
        self.assertIs(take(algorithm, first(algorithm)), new)
        # Now it counts as slow as the slowest, with twice as much to do.
        self.assertEqual(set(one_at_a_time(algorithm, 50)), {"a", "b"})
        give_back(algorithm, new, 0.001)
        self.assertIs(first(algorithm), new)

    def test_a_request_that_failed_tells_nothing_of_the_time(self) -> None:
        algorithm = LeastResponseTime[Server]()
        pool = self.answered(algorithm, a=0.1)
        new = Server("b")
        algorithm.update((*pool, new))
        give_back(algorithm, take(algorithm, new), None)
        self.assertIs(first(algorithm), new)

    def test_a_server_that_was_away_is_asked_anew(self) -> None:
        algorithm = LeastResponseTime[Server]()
        a, b = self.answered(algorithm, a=0.1, b=5.0)
        algorithm.update((a,))
        algorithm.update((a, b))
        self.assertIs(first(algorithm), b)

    def test_a_slow_server_gets_its_traffic_back_when_the_average_has_faded(self) -> None:
        algorithm = LeastResponseTime[Server]()
        slow, quick = self.answered(algorithm, slow=1.0, quick=0.1)
        now = 0.0
        while first(algorithm) is quick:
            now += 0.5
            give_back(algorithm, take(algorithm, quick), 0.1, now)
        # From 1.0 to 0.1; the next answer is half a second away.
        self.assertLessEqual(abs(now - DECAY_TIME * log(10)), 0.5)
        give_back(algorithm, take(algorithm, slow), 0.1, now)
        self.assertIs(first(algorithm), quick)

    def test_a_server_that_hangs_draws_no_more(self) -> None:
        algorithm = LeastResponseTime[Server]()
        hanging, *well = self.answered(algorithm, a=0.01, b=0.01, c=0.01)
        for number in range(6000):
            server = take(algorithm, first(algorithm), number / 100)
            if server is not hanging:
                give_back(algorithm, server, 0.01, number / 100 + 0.01)
        self.assertLess(hanging.in_flight, 8)
        self.assertEqual([server.in_flight for server in well], [0, 0])

    def test_a_long_first_request_is_no_verdict(self) -> None:
        algorithm = LeastResponseTime[Server]()
        (known,) = self.answered(algorithm, a=0.1)
        new = Server("b")
        algorithm.update((known, new))
        # It is a WebSocket, say.
        take(algorithm, new)
        held = [take(algorithm, first(algorithm)) for _ in range(100)]
        self.assertGreater(held.count(new), 30)
        give_back(algorithm, take(algorithm, new), 0.001)
        self.assertIs(first(algorithm), new)

    def test_an_answer_counts_when_it_begins(self) -> None:
        algorithm = LeastResponseTime[Server]()
        a, b = self.answered(algorithm, a=0.1, b=0.5)
        algorithm.response_started(take(algorithm, a), 9.0, 0.0)
        self.assertIs(first(algorithm), b)

    def test_a_peak_counts_at_once(self) -> None:
        algorithm = LeastResponseTime[Server]()
        a, _ = self.answered(algorithm, a=0.1, b=0.9)
        for _ in range(1000):
            give_back(algorithm, take(algorithm, a), 0.1)
        give_back(algorithm, take(algorithm, a), 1.0)
        self.assertEqual(names(algorithm), "ba")

    def test_a_clock_that_goes_backwards(self) -> None:
        algorithm = LeastResponseTime[Server]()
        a, b = self.answered(algorithm, a=0.1, b=0.2)
        for now in (100.0, -1e6, 100.0, 99.0, 100.0):
            for server, seconds in ((a, 0.1), (b, 0.2)):
                give_back(algorithm, take(algorithm, server), seconds, now)
            self.assertEqual(names(algorithm), "ab")

    def test_answers_quicker_than_the_clock(self) -> None:
        algorithm = LeastResponseTime[Server]()
        self.answered(algorithm, a=0.0, b=0.0)
        self.assertEqual(Counter(one_at_a_time(algorithm, 10)).keys(), {"a", "b"})

    def test_the_end_of_a_request_after_its_server_left(self) -> None:
        algorithm = LeastResponseTime[Server]()
        a, b = self.answered(algorithm, a=0.1, b=0.2)
        take(algorithm, a)
        algorithm.update((b,))
        give_back(algorithm, a)
        self.assertEqual(names(algorithm), "b")
        self.assertEqual(set(algorithm._averages), {b})

    def test_the_heap_stays_small(self) -> None:
        self.check_bounded(LeastResponseTime())

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, STEPS)
    def test_the_least_of_all(
        self, weights: list[int], steps: list[tuple[str, int, float]]
    ) -> None:
        model = Model(LeastResponseTime(), servers(*weights))
        self.check_steps(model, steps, model.least_response_time)

    def test_the_least_of_all_for_long(self) -> None:
        model = Model(LeastResponseTime(), warming(0.1, 0.75, 1.0, 2.5, 9.0, 4.0))
        self.check_steps(model, many_steps(4000), model.least_response_time)


CLIENTS = [f"192.168.{number >> 8}.{number & 255}" for number in range(20_000)]


def farm(*weights: int) -> tuple[Server, ...]:
    """Servers at addresses, of such weights."""
    return tuple(Server(f"10.1.0.{number}:80", weight) for number, weight in enumerate(weights))


def homes(ring: Algorithm[Server], clients: Sequence[str] = CLIENTS) -> list[str]:
    """The name of the server of each client."""
    return [first(ring, client).name for client in clients]


class HashRingTests(SynchronousTestCase):
    """Every client at its place on a ring."""

    def check_only_those_of(self, name: str, before: list[str], after: list[str]) -> list[str]:
        """Where clients of `name` are now; no other has moved."""
        moved = [(old, new) for old, new in zip(before, after) if old != new]
        self.assertEqual({old for old, _ in moved}, {name})
        self.assertEqual(len(moved), before.count(name))
        return [new for _, new in moved]

    def test_shares_are_about_by_weight(self) -> None:
        for size in (3, 10, 100):
            for kinds in (1, 5):
                pool = farm(*(number % kinds + 1 for number in range(size)))
                total = sum(server.weight for server in pool)
                counts = Counter(homes(met(HashRing(), pool)))
                for server in pool:
                    ideal = len(CLIENTS) * server.weight / total
                    self.assertLess(counts[server.name], 1.5 * ideal, msg=f"{server} of {size}")
                    self.assertGreater(counts[server.name], ideal / 2, msg=f"{server} of {size}")

    def test_only_the_clients_of_a_server_that_leaves_move(self) -> None:
        for weights in ((1,) * 10, (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)):
            pool = farm(*weights)
            ring = met(HashRing(), pool)
            before = homes(ring)
            for gone in (pool[0], pool[5]):
                ring.update([server for server in pool if server is not gone])
                moved = self.check_only_those_of(gone.name, before, homes(ring))
                counts, left = Counter(moved), sum(weights) - gone.weight
                for server in pool:
                    if server is not gone:
                        # Some 256 arcs for each unit of weight come to the
                        # others: one in nine or so, give or take a quarter.
                        ideal = len(moved) * server.weight / left
                        self.assertLess(counts[server.name], 2 * ideal, msg=f"{server}")
                        self.assertGreater(counts[server.name], 0, msg=f"{server}")
            ring.update(pool)
            self.assertEqual(homes(ring), before)

    def test_a_server_that_left_for_good_is_as_one_that_is_away(self) -> None:
        pool = farm(1, 2, 3, 4)
        ring = met(HashRing(), pool)
        ring.update(pool[1:])
        self.assertEqual(homes(ring), homes(met(HashRing(), pool[1:])))

    def test_most_servers_away_and_back(self) -> None:
        pool = farm(*[1] * 10)
        ring = met(HashRing(), pool)
        before = homes(ring)
        ring.update(pool[:2])
        for old, new in zip(before, homes(ring)):
            if old in (pool[0].name, pool[1].name):
                self.assertEqual(old, new)
        ring.update(())
        self.assertEqual(list(ring.candidates(CLIENT)), [])
        ring.update(pool)
        self.assertEqual(homes(ring), before)

    def test_a_server_that_comes_takes_clients_but_moves_no_others(self) -> None:
        pool = farm(1, 2, 3, 4)
        ring = met(HashRing(), pool[:3])
        before = homes(ring)
        ring.update(pool)
        new = {now for old, now in zip(before, homes(ring)) if old != now}
        self.assertEqual(new, {pool[3].name})

    def test_the_order_of_the_servers_does_not_matter(self) -> None:
        pool = farm(3, 1, 4, 1, 5)
        before = homes(met(HashRing(), pool))
        self.assertEqual(homes(met(HashRing(), pool[::-1])), before)
        self.assertEqual(homes(met(HashRing(), [*pool[2:], *pool[:2]])), before)

    def test_the_same_in_every_release(self) -> None:
        ring = met(HashRing(), farm(1, 1, 1, 2))
        places = {
            client: names(ring, client).replace("10.1.0.", "").replace(":80", "")
            for client in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "")
        }
        self.assertEqual(places, PINNED)

    def test_a_weight_that_changes_moves_clients_of_that_server_only(self) -> None:
        pool = farm(2, 2, 2, 2)
        ring = met(HashRing(), pool)
        before = homes(ring)
        pool[1].weight = 3
        ring.update(pool)
        heavier = homes(ring)
        self.assertEqual({n for o, n in zip(before, heavier) if o != n}, {pool[1].name})
        pool[1].weight = 1
        ring.update(pool)
        lighter = homes(ring)
        self.assertEqual({o for o, n in zip(before, lighter) if o != n}, {pool[1].name})
        pool[1].weight = 2
        ring.update(pool)
        self.assertEqual(homes(ring), before)

    def test_one_that_warms_up_keeps_its_clients(self) -> None:
        pool = farm(2, 2, 2)
        ring = met(HashRing(), pool)
        before = homes(ring)
        pool[0].effective_weight = 0.2
        ring.update(pool)
        self.assertEqual(homes(ring), before)

    def test_the_next_is_who_would_be_first_without_the_first(self) -> None:
        pool = farm(1, 2, 3, 1, 2)
        ring = met(HashRing(), pool)
        for client in CLIENTS[:50]:
            order = [server for server, _ in ring.candidates(client)]
            self.assertCountEqual(order, pool)
            for server, following in zip(order, order[1:]):
                self.assertIs(first(ring, client), server)
                ring.update(order[order.index(following) :])
                self.assertIs(first(ring, client), following)
            ring.update(pool)

    def test_servers_that_do_not_come_back_are_forgotten(self) -> None:
        pool = farm(1, 1, 1)
        ring = HashRing[Server]()
        for number in range(300):
            ring.update((*pool, Server(f"10.2.0.{number}:80")))
            self.assertLessEqual(len(ring._weights), 2 * (len(pool) + 1))
        self.assertLessEqual(len(ring._points), 256 * 8)
        ring.update(pool)
        self.assertEqual(homes(ring), homes(met(HashRing(), pool)))

    def test_great_weights_do_not_make_a_great_ring(self) -> None:
        ring = HashRing[Server]()
        pool = farm(*[256] * 100)
        ring.update(pool)
        self.assertLessEqual(len(ring._points), 1 << 20)
        before = homes(ring, CLIENTS[:2000])
        ring.update(pool[1:])
        self.check_only_those_of(pool[0].name, before, homes(ring, CLIENTS[:2000]))

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(0, 63), st.text(max_size=20))
    def test_whoever_is_there_is_found(self, weights: list[int], mask: int, client: str) -> None:
        pool = servers(*weights)
        ring = met(HashRing(), pool)
        before = names(ring, client)
        present = [server for number, server in enumerate(pool) if mask & 1 << number]
        ring.update(present)
        expected = [name for name in before if name in {server.name for server in present}]
        self.assertEqual(list(names(ring, client)), expected)


# Client by client, the last numbers of the servers in their order.
PINNED = {
    "192.0.2.1": "0312",
    "192.0.2.2": "3102",
    "2001:db8::1": "3210",
    "": "3012",
}


class StickyRoundRobinTests(SynchronousTestCase):
    """Every client at the server it had before."""

    def test_new_clients_get_servers_in_turn(self) -> None:
        algorithm = met(StickyRoundRobin(), servers(2, 1))
        self.assertEqual([first(algorithm, client).name for client in "123456"], [*"abaaba"])

    def test_a_client_keeps_its_server(self) -> None:
        algorithm, pool = StickyRoundRobin[Server](), servers(1, 1, 1)
        algorithm.update(pool)
        before = {client: first(algorithm, client) for client in "12345"}
        algorithm.update((Server("d"), *pool[::-1]))
        for client in "3142567812345":
            kept = before.setdefault(client, first(algorithm, client))
            self.assertIs(first(algorithm, client), kept, msg=client)

    def test_clients_that_are_known_take_no_turn(self) -> None:
        algorithm = met(StickyRoundRobin(), servers(1, 1, 1))
        chosen = [first(algorithm, client).name for client in "1111121113"]
        self.assertEqual("".join(chosen), "aaaaabaaac")

    def test_a_client_moves_when_its_server_is_gone_and_stays_there(self) -> None:
        algorithm, pool = StickyRoundRobin[Server](), servers(1, 1, 1)
        algorithm.update(pool)
        lost = first(algorithm)
        algorithm.update([server for server in pool if server is not lost])
        moved = first(algorithm)
        self.assertIsNot(moved, lost)
        algorithm.update(pool)
        for _ in range(5):
            self.assertIs(first(algorithm), moved)

    def test_a_client_moves_when_its_server_fails(self) -> None:
        for known in (False, True):
            algorithm = met(StickyRoundRobin(), servers(1, 1, 1))
            if known:
                first(algorithm)
            order = algorithm.candidates(CLIENT)
            failed = next(order)[0]
            failed.available = False
            other = next(order)[0]
            self.assertIsNot(other, failed)
            # It could be in the next meeting again by now.
            failed.available = True
            self.assertIs(first(algorithm), other)

    def test_a_client_moves_on_until_a_server_answers(self) -> None:
        algorithm = met(StickyRoundRobin(), servers(1, 1, 1))
        order = algorithm.candidates(CLIENT)
        for _ in range(2):
            next(order)[0].available = False
        last = next(order)[0]
        self.assertEqual(list(order), [])
        self.assertIs(first(algorithm), last)

    def test_a_client_does_not_move_when_its_server_is_full(self) -> None:
        for known in (False, True):
            algorithm = met(StickyRoundRobin(), servers(1, 1, 1))
            kept = first(algorithm) if known else None
            order = [server for server, _ in algorithm.candidates(CLIENT)]
            self.assertIs(first(algorithm), kept or order[0])
            self.assertEqual(len(set(order)), 3)

    def test_clients_that_do_not_come_back_are_forgotten(self) -> None:
        self.patch(sticky, "MAX_CLIENTS", 8)
        algorithm = StickyRoundRobin[Server]()
        algorithm.update(servers(1, 1, 1))
        for number in range(1000):
            first(algorithm, f"client {number}")
            first(algorithm, "the one that stays")
            self.assertLessEqual(
                len(algorithm._new_generation) + len(algorithm._old_generation), 16
            )
        self.assertEqual(first(algorithm, "the one that stays").name, "b")

    def test_the_last_that_came_are_known(self) -> None:
        self.patch(sticky, "MAX_CLIENTS", 8)
        algorithm = met(StickyRoundRobin(), servers(1, 1, 1, 1, 1))
        came: dict[str, Server] = {}
        for number in random.Random(4).choices(range(30), k=500):
            client = f"client {number}"
            server = first(algorithm, client)
            if client in islice(reversed(came), 8):
                self.assertIs(server, came[client])
            came.pop(client, None)
            came[client] = server


@contextmanager
def soon() -> Iterator[None]:
    """Raise if something does not come to an end."""

    def expired(*_: object) -> None:
        raise AssertionError("this has no end")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class AlgorithmTests(SynchronousTestCase):
    """What holds for all of them."""

    def each(self, seed: int = 1) -> Iterator[tuple[str, Algorithm[Server]]]:
        """A new one of each kind, with its name."""
        for name, make in ALGORITHMS.items():
            yield name, make(random.Random(seed))

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(0, 2**32), st.booleans(), st.text(max_size=5))
    def test_each_server_once(
        self, weights: list[int], seed: int, as_list: bool, client: str
    ) -> None:
        for name, algorithm in self.each(seed):
            pool: Servers = servers(*weights)
            algorithm.update(list(pool) if as_list else pool)
            for _ in range(3):
                order = list(algorithm.candidates(client))
                self.assertCountEqual([server for server, _ in order], pool, msg=name)
                self.assertTrue(all(isinstance(why, str) and why for _, why in order), msg=name)
                give_back(algorithm, take(algorithm, order[0][0]))
                take(algorithm, order[-1][0])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(0.1, 8.0), min_size=1, max_size=6), st.integers(0, 2**32))
    def test_each_server_once_whatever_its_share(self, shares: list[float], seed: int) -> None:
        pool = warming(*shares)
        for name, algorithm in self.each(seed):
            algorithm.update(pool)
            for _ in range(3):
                self.assertEqual(
                    "".join(sorted(names(algorithm))), string.ascii_letters[: len(pool)], msg=name
                )

    def test_the_servers_given_stay_as_they_are(self) -> None:
        for name, algorithm in self.each():
            pool = list(servers(3, 1, 2))
            before = list(pool)
            algorithm.update(pool)
            for _ in range(10):
                names(algorithm)
                give_back(algorithm, take(algorithm, pool[0]))
            self.assertEqual(pool, before, msg=name)
            for server, weight in zip(pool, (3, 1, 2)):
                state = (server.weight, server.effective_weight, server.in_flight, server.available)
                self.assertEqual(state, (weight, weight, 0, True), msg=name)

    def test_nobody_to_choose(self) -> None:
        for name, algorithm in self.each():
            self.assertEqual(list(algorithm.candidates(CLIENT)), [], msg=name)
            algorithm.update([])
            self.assertEqual(list(algorithm.candidates(CLIENT)), [], msg=name)
            algorithm.update(servers(1, 2))
            names(algorithm)
            algorithm.update(())
            self.assertEqual(list(algorithm.candidates(CLIENT)), [], msg=name)
            algorithm.update(servers(1, 2))
            self.assertEqual(sorted(names(algorithm)), ["a", "b"], msg=name)

    def test_servers_that_come_and_go_while_an_order_is_in_use(self) -> None:
        pool = servers(1, 1, 1, 1)
        for before, after in ((2, 4), (4, 3), (4, 0), (3, 1)):
            for name, algorithm in self.each():
                algorithm.update(pool)
                algorithm.update(pool[:before])
                order = algorithm.candidates(CLIENT)
                tried = [next(order)[0]]
                algorithm.update(pool[:after])
                with soon():
                    tried += [server for server, _ in order]
                self.assertEqual(len(tried), len(set(tried)), msg=name)
                # Those that were there all the time get their chance.
                self.assertLessEqual(set(pool[: min(before, after)]), set(tried), msg=name)

    def test_what_they_want_to_hear_of(self) -> None:
        wanted = {name for name, algorithm in self.each() if algorithm.tracks_load}
        self.assertEqual(wanted, {"least-connections", "least-response-time"})

    def test_a_weight_of_0_given_while_an_order_is_in_use(self) -> None:
        for name, algorithm in self.each():
            for weights in ((1, 1, 1), (7, 1, 2), tuple(range(100, 160))):
                pool = servers(*weights)
                algorithm.update(pool)
                order = algorithm.candidates(CLIENT)
                found = [next(order)[0]]
                for server in pool:
                    server.effective_weight = 0.0
                    server.weight = 0
                found += [server for server, _ in order]
                self.assertCountEqual(found, pool, msg=name)

    def test_names_and_abbreviations(self) -> None:
        cases = {
            "RR": "round-robin",
            "WRR": "weighted-round-robin",
            "SRR": "sticky-round-robin",
            "LC": "least-connections",
            "PTC": "power-of-two",
            "P2C": "power-of-two",
            "SIH": "source-ip-hash",
            "LRT": "least-response-time",
            "random": "random",
        }
        self.assertEqual(set(cases.values()), set(ALGORITHMS))
        for short, name in cases.items():
            for text in (short, short.lower(), short.title(), name, name.upper(), name.title()):
                self.assertEqual(algorithm_name(text), name, msg=text)

    def test_unknown_names_are_told_what_there_is(self) -> None:
        for text in ("", "nonsense", "round robin", "r", " rr", "lc\n"):
            error = self.assertRaises(ValueError, algorithm_name, text)
            self.assertIn(repr(text), str(error))
            for name in ALGORITHMS:
                self.assertIn(name, str(error))
