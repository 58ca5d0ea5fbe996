"""What algorithms have in common, for those who write one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic

from balancebeam.balancing.interfaces import C, Choice


class AlgorithmBase(ABC, Generic[C]):
    """An algorithm that need not know what becomes of requests."""

    follows_load = False

    @abstractmethod
    def meet(self, servers: Sequence[C]) -> None:
        """See `Algorithm.meet`."""

    @abstractmethod
    def order(self, client: str) -> Iterator[Choice[C]]:
        """See `Algorithm.order`."""

    def taken(self, server: C, now: float) -> None:
        """See `Algorithm.taken`."""

    def answered(self, server: C, seconds: float, now: float) -> None:
        """See `Algorithm.answered`."""

    def released(self, server: C, seconds: float | None, now: float) -> None:
        """See `Algorithm.released`."""
