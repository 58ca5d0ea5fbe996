"""Servers, random numbers and shorthands for tests of load balancing algorithms."""

from __future__ import annotations

import string
from collections.abc import Sequence
from itertools import cycle
from math import ceil

from attrs import Factory, define
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.interfaces import Algorithm

CLIENT = "192.0.2.1"


@define(eq=False)
class Server:
    """The attributes of a server that algorithms use."""

    name: str
    weight: int = 1
    effective_weight: float = Factory(lambda self: float(self.weight), takes_self=True)
    in_flight: int = 0
    available: bool = True


Servers = Sequence[Server]


def servers(*weights: int) -> tuple[Server, ...]:
    """Servers named a, b, c, ... with these weights."""
    return tuple(Server(name, weight) for name, weight in zip(string.ascii_letters, weights))


def warming(*shares: float) -> tuple[Server, ...]:
    """Servers in slow start, with these effective weights."""
    return tuple(
        Server(name, ceil(share), share) for name, share in zip(string.ascii_letters, shares)
    )


def updated(algorithm: Algorithm[Server], pool: Servers) -> Algorithm[Server]:
    """The algorithm, updated with the servers of `pool`."""
    algorithm.update(pool)
    return algorithm


def first(algorithm: Algorithm[Server], client: str = CLIENT) -> Server:
    """The first candidate for a client."""
    return next(algorithm.candidates(client))[0]


def firsts(algorithm: Algorithm[Server], turns: int) -> str:
    """The names of the first candidates in each of `turns` turns."""
    return "".join(first(algorithm).name for _ in range(turns))


def names(algorithm: Algorithm[Server], client: str = CLIENT) -> str:
    """The names of all candidates, in their order in one turn."""
    return "".join(server.name for server, _ in algorithm.candidates(client))


def start_request(algorithm: Algorithm[Server], server: Server, now: float = 0.0) -> Server:
    """Send a request to `server`."""
    server.in_flight += 1
    algorithm.request_started(server, now)
    return server


def finish_request(
    algorithm: Algorithm[Server], server: Server, seconds: float | None = 0.1, now: float = 0.0
) -> None:
    """Finish a request of `server`, which responded after `seconds`; `None` if it failed."""
    server.in_flight -= 1
    algorithm.request_finished(server, seconds, now)


def one_at_a_time(algorithm: Algorithm[Server], turns: int) -> str:
    """The names of the servers of sequential requests, each finished before the next starts."""
    chosen = ""
    for _ in range(turns):
        server = start_request(algorithm, first(algorithm))
        finish_request(algorithm, server)
        chosen += server.name
    return chosen


WEIGHTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)
# Quarters are exact as floats, and rarely whole numbers.
QUARTERS = st.lists(st.integers(1, 40), min_size=1, max_size=6)


class FixedRandom:
    """A random number generator that repeats some values."""

    def __init__(self, *values: float) -> None:
        self._values = cycle(values)

    def random(self) -> float:
        """The next value."""
        return next(self._values)


# `random.random()` never returns 1.0, but a calculation with it may round to that.
EXTREMES = (0.0, 1.0 - 2.0**-53, 1.0)


class RandomTestCase(SynchronousTestCase):
    """Base of tests of random algorithms."""

    def check_count(self, count: int, turns: int, share: float, message: str) -> None:
        """`count` is within four standard deviations, as 15,999 of 16,000 counts are."""
        deviation = (turns * share * (1 - share)) ** 0.5
        self.assertLess(abs(count - turns * share), 4 * deviation, msg=message)
