"""Base class of the algorithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any, Generic, TypeVar

from balancebeam.balancing.interfaces import BackendT, Selection

ReplicaT = TypeVar("ReplicaT", bound="ReplicatedAlgorithm[Any]")


class AlgorithmBase(ABC, Generic[BackendT]):
    """An algorithm that ignores the events of requests; subclasses override what they need."""

    tracks_load = False

    @abstractmethod
    def update(self, servers: Sequence[BackendT]) -> None:
        """See `Algorithm.update`."""

    @abstractmethod
    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        """See `Algorithm.candidates`."""

    def request_started(self, server: BackendT, now: float) -> None:
        """See `Algorithm.request_started`."""

    def response_started(self, server: BackendT, seconds: float, now: float) -> None:
        """See `Algorithm.response_started`."""

    def request_finished(self, server: BackendT, seconds: float | None, now: float) -> None:
        """See `Algorithm.request_finished`."""


class ReplicatedAlgorithm(AlgorithmBase[BackendT]):
    """
    A deterministic algorithm that is explained by a turn of a replica.

    So the explanation and the next request are decided by the same code.
    """

    def replica(self: ReplicaT, key: str) -> ReplicaT:
        """
        A copy whose `update` and `candidates` leave this algorithm as it is.

        Subclasses copy what these methods change in place.

        Args:
            key: The key with which `candidates` will be called.
        """
        return copy(self)

    def explain(
        self, key: str, servers: Sequence[BackendT] | None = None
    ) -> Sequence[Selection[BackendT]]:
        """See `ExplainableAlgorithm.explain`."""
        replica = self.replica(key)
        if servers is not None:
            replica.update(servers)
        return tuple(replica.candidates(key))
