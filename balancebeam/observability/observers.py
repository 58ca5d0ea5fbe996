"""Observers of finished exchanges, combined into one."""

from __future__ import annotations

from collections.abc import Callable

from attrs import field, frozen

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
    # The bound methods: to find them costs more than the rest of `exchange_finished`.
    _notify: tuple[Callable[[Exchange], None], ...] = field(init=False, repr=False)

    @_notify.default
    def _bound_methods(self) -> tuple[Callable[[Exchange], None], ...]:
        return tuple(observer.exchange_finished for observer in self.observers)

    def exchange_finished(self, exchange: Exchange) -> None:
        """Notify every observer of a finished exchange."""
        for notify in self._notify:
            notify(exchange)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Notify every observer of a rejected request."""
        for observer in self.observers:
            observer.request_rejected(request)


def combine(*observers: Observer[Exchange] | None) -> Observer[Exchange] | None:
    """Return one observer for all `observers` that are not `None`; `None` without any."""
    present = tuple(observer for observer in observers if observer is not None)
    return CompositeObserver(present) if len(present) > 1 else next(iter(present), None)
