"""The registry, and the requirements for all algorithms in it."""

from __future__ import annotations

import random
import signal
import string
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.interfaces import Algorithm
from balancebeam.balancing.registry import ALGORITHMS, algorithm_name
from tests.helpers.balancing import (
    CLIENT,
    WEIGHTS,
    Server,
    Servers,
    finish_request,
    names,
    servers,
    start_request,
    warming,
)


@contextmanager
def time_limit() -> Iterator[None]:
    """Fail a block that runs for more than a second."""

    def expired(*_: object) -> None:
        """Interrupt the block."""
        raise AssertionError("endless loop")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class AlgorithmTests(SynchronousTestCase):
    """Requirements for every algorithm, and the registry of names."""

    def algorithms(self, seed: int = 1) -> Iterator[tuple[str, Algorithm[Server]]]:
        """A new instance of each algorithm, with its name."""
        for name, make in ALGORITHMS.items():
            yield name, make(random.Random(seed))

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(0, 2**32), st.booleans(), st.text(max_size=5))
    def test_each_server_once(
        self, weights: list[int], seed: int, as_list: bool, client: str
    ) -> None:
        """The candidates are all servers, each once, with a reason."""
        for name, algorithm in self.algorithms(seed):
            pool: Servers = servers(*weights)
            algorithm.update(list(pool) if as_list else pool)
            for _ in range(3):
                order = list(algorithm.candidates(client))
                self.assertCountEqual([server for server, _ in order], pool, msg=name)
                self.assertTrue(
                    all(isinstance(reason, str) and reason for _, reason in order), msg=name
                )
                finish_request(algorithm, start_request(algorithm, order[0][0]))
                start_request(algorithm, order[-1][0])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.floats(0.1, 8.0), min_size=1, max_size=6), st.integers(0, 2**32))
    def test_each_server_once_in_slow_start(self, shares: list[float], seed: int) -> None:
        """The same holds for fractional effective weights."""
        pool = warming(*shares)
        for name, algorithm in self.algorithms(seed):
            algorithm.update(pool)
            for _ in range(3):
                self.assertEqual(
                    "".join(sorted(names(algorithm))), string.ascii_letters[: len(pool)], msg=name
                )

    def test_servers_are_not_modified(self) -> None:
        """Algorithms change neither the sequence nor the servers."""
        for name, algorithm in self.algorithms():
            pool = list(servers(3, 1, 2))
            before = list(pool)
            algorithm.update(pool)
            for _ in range(10):
                names(algorithm)
                finish_request(algorithm, start_request(algorithm, pool[0]))
            self.assertEqual(pool, before, msg=name)
            for server, weight in zip(pool, (3, 1, 2)):
                state = (server.weight, server.effective_weight, server.in_flight, server.available)
                self.assertEqual(state, (weight, weight, 0, True), msg=name)

    def test_no_servers(self) -> None:
        """Without servers there are no candidates, before and after others were present."""
        for name, algorithm in self.algorithms():
            self.assertEqual(list(algorithm.candidates(CLIENT)), [], msg=name)
            algorithm.update([])
            self.assertEqual(list(algorithm.candidates(CLIENT)), [], msg=name)
            algorithm.update(servers(1, 2))
            names(algorithm)
            algorithm.update(())
            self.assertEqual(list(algorithm.candidates(CLIENT)), [], msg=name)
            algorithm.update(servers(1, 2))
            self.assertEqual(sorted(names(algorithm)), ["a", "b"], msg=name)

    def test_update_during_an_iteration(self) -> None:
        """An iteration ends, without duplicates, if the servers change meanwhile."""
        pool = servers(1, 1, 1, 1)
        for before, after in ((2, 4), (4, 3), (4, 0), (3, 1)):
            for name, algorithm in self.algorithms():
                algorithm.update(pool)
                algorithm.update(pool[:before])
                order = algorithm.candidates(CLIENT)
                tried = [next(order)[0]]
                algorithm.update(pool[:after])
                with time_limit():
                    tried += [server for server, _ in order]
                self.assertEqual(len(tried), len(set(tried)), msg=name)
                # Servers present before and after are all candidates.
                self.assertLessEqual(set(pool[: min(before, after)]), set(tried), msg=name)

    def test_algorithms_that_track_load(self) -> None:
        """Only algorithms that need them get the events of requests."""
        tracking = {name for name, algorithm in self.algorithms() if algorithm.tracks_load}
        self.assertEqual(tracking, {"least-connections", "least-response-time"})

    def test_weight_set_to_0_during_an_iteration(self) -> None:
        """A weight of 0 set between updates causes no division by zero."""
        for name, algorithm in self.algorithms():
            for weights in ((1, 1, 1), (7, 1, 2), tuple(range(100, 160))):
                pool = servers(*weights)
                algorithm.update(pool)
                order = algorithm.candidates(CLIENT)
                order_used = [next(order)[0]]
                for server in pool:
                    server.effective_weight = 0.0
                    server.weight = 0
                order_used += [server for server, _ in order]
                self.assertCountEqual(order_used, pool, msg=name)

    def test_names_and_abbreviations(self) -> None:
        """Names and abbreviations are accepted in any case."""
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

    def test_unknown_name_lists_the_algorithms(self) -> None:
        """The error for an unknown name lists all names."""
        for text in ("", "nonsense", "round robin", "r", " rr", "lc\n"):
            error = self.assertRaises(ValueError, algorithm_name, text)
            self.assertIn(repr(text), str(error))
            for name in ALGORITHMS:
                self.assertIn(name, str(error))
