"""The algorithms by name, and the abbreviations of the names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable

from balancebeam.balancing.hash_ring import HashRing
from balancebeam.balancing.interfaces import Algorithm
from balancebeam.balancing.least_connections import LeastConnections
from balancebeam.balancing.power_of_two import PowerOfTwo
from balancebeam.balancing.response_time import LeastResponseTime
from balancebeam.balancing.round_robin import RoundRobin
from balancebeam.balancing.sticky import StickyRoundRobin
from balancebeam.balancing.weighted_random import WeightedRandom
from balancebeam.core.interfaces import Random

ALGORITHMS: Mapping[str, Callable[[Random], Algorithm[Any]]] = {
    "random": WeightedRandom,
    "round-robin": lambda random: RoundRobin(),
    "weighted-round-robin": lambda random: RoundRobin(),
    "sticky-round-robin": lambda random: StickyRoundRobin(),
    "least-connections": lambda random: LeastConnections(),
    "power-of-two": PowerOfTwo,
    "source-ip-hash": lambda random: HashRing(),
    "least-response-time": lambda random: LeastResponseTime(),
}

# Abbreviations, matched in any case as the names are.
_ABBREVIATIONS: Mapping[str, str] = {
    "rr": "round-robin",
    "wrr": "weighted-round-robin",
    "srr": "sticky-round-robin",
    "lc": "least-connections",
    "ptc": "power-of-two",
    "p2c": "power-of-two",
    "sih": "source-ip-hash",
    "lrt": "least-response-time",
}


def algorithm_name(text: str) -> str:
    """
    Return the full name of an algorithm.

    Args:
        text: A name or an abbreviation, in any case.

    Raises:
        ValueError: There is no such algorithm.
    """
    name = text.lower()
    name = _ABBREVIATIONS.get(name, name)
    if name not in ALGORITHMS:
        expected = ", ".join(sorted(ALGORITHMS))
        raise ValueError(f"invalid algorithm {text!r}: expected one of {expected}")
    return name
