"""Several observers, told as one."""

from __future__ import annotations

from typing import Any, Protocol

from attrs import frozen


class Observer(Protocol):
    """Who is told of what has ended; see `doors.exchange.Observer`."""

    def exchange_finished(self, exchange: Any) -> None:
        """`exchange` is over."""

    def request_rejected(self, request: Any) -> None:
        """`request` could not be read."""


@frozen
class CompositeObserver:
    """Tells all of `observers`."""

    observers: tuple[Observer, ...]

    def exchange_finished(self, exchange: Any) -> None:
        """`exchange` is over."""
        for observer in self.observers:
            observer.exchange_finished(exchange)

    def request_rejected(self, request: Any) -> None:
        """`request` could not be read."""
        for observer in self.observers:
            observer.request_rejected(request)


def combine(*observers: Observer | None) -> Observer | None:
    """An observer that tells those of `observers` there are; `None` without any."""
    there = tuple(observer for observer in observers if observer is not None)
    return CompositeObserver(there) if len(there) > 1 else next(iter(there), None)
