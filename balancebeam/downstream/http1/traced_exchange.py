"""Exchanges of frontends with tracing."""

from __future__ import annotations

from balancebeam.downstream.http1.custom_via import CustomViaExchange
from balancebeam.proxy.exchange import Exchange
from balancebeam.proxy.interfaces import Observer
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.proxy.tracing import RequestTrace


class TracedExchange(CustomViaExchange):
    """
    The exchange of a sampled request: each attempt has its own `traceparent`.

    Attributes:
        trace: The spans of the request.
    """

    trace: RequestTrace

    def start_trace(self, trace: RequestTrace) -> None:
        """Record the spans of `trace`, after the logs of the frontend."""
        self.trace = trace
        self.observer = _TraceObserver(self.observer, trace)

    def rewind(self) -> bool:
        # Called once for each failed attempt, which has just ended at `attempt_at`.
        self.upstream_head = self.trace.next_attempt(self.upstream_head, self.attempt_at)
        return super().rewind()


class _TraceObserver:
    """Notifies the observer of the frontend, and then the tracer."""

    __slots__ = ("_observer", "_trace")

    def __init__(self, observer: Observer[Exchange] | None, trace: RequestTrace) -> None:
        self._observer = observer
        self._trace = trace

    def exchange_finished(self, exchange: Exchange) -> None:
        """Record the finished exchange."""
        if self._observer is not None:
            self._observer.exchange_finished(exchange)
        self._trace.tracer.finished(exchange, self._trace)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Do nothing: a rejected request has no exchange."""
