"""Observers of finished exchanges, combined into one."""

from __future__ import annotations

from attrs import frozen

from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Observer
from balancebeam.proxy.rejected import RejectedRequest


@frozen
class CompositeObserver:
    """
    Notifies several observers in turn.

    Attributes:
        observers: The observers.
    """

    observers: tuple[Observer[Exchange], ...]

    def exchange_finished(self, exchange: Exchange) -> None:
        """Notify every observer of a finished exchange."""
        for observer in self.observers:
            observer.exchange_finished(exchange)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Notify every observer of a rejected request."""
        for observer in self.observers:
            observer.request_rejected(request)


def combine(*observers: Observer[Exchange] | None) -> Observer[Exchange] | None:
    """Return one observer for all `observers` that are not `None`; `None` without any."""
    present = tuple(observer for observer in observers if observer is not None)
    return CompositeObserver(present) if len(present) > 1 else next(iter(present), None)
