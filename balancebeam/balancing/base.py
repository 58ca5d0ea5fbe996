"""Base class of the algorithms."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic

from balancebeam.balancing.interfaces import BackendT, Selection


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
