"""A pipeline for requests that are answered by the proxy itself, without servers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable

from balancebeam.admission.admission import Admission
from balancebeam.core.failures import UpstreamFailure
from balancebeam.net.ticker import Ticker
from balancebeam.proxy.exchange import Exchange


class LocalDispatcher(ABC):
    """
    Admits requests, answers them with local replies, and accounts for them.

    It takes the place of a `Dispatcher` in a route that has no pool.

    Args:
        admission: The access list and rate limits of the requests.
        ticker: The coarse clock of timeouts.
        clock: Returns the time of the reactor in seconds.

    Attributes:
        pool_name: Empty, for logs.
    """

    pool_name = ""

    def __init__(self, admission: Admission, ticker: Ticker, clock: Callable[[], float]) -> None:
        self.admission = admission
        self.ticker = ticker
        self.clock = clock
        self.perf_counter: Callable[[], float] = time.perf_counter

    def dispatch(self, exchange: Exchange, admission: Admission) -> None:
        """Answer a request; see `RequestHandler.dispatch`."""
        exchange.received_at = exchange.attempt_at = self.perf_counter()
        rejection = None if admission.unrestricted else admission.admit(exchange)
        if rejection is not None:
            exchange.reject(rejection)
        else:
            self.respond(exchange)

    @abstractmethod
    def respond(self, exchange: Exchange) -> None:
        """Answer an admitted request with a local reply."""

    def request_finished(self, exchange: Exchange) -> None:
        """Account for a request that was answered; called once."""
        exchange.finished_at = self.perf_counter()
        if exchange.permits:
            self.admission.release(exchange)
        if exchange.observer is not None:
            exchange.observer.exchange_finished(exchange)

    # Unreachable, because no server gets the request

    def connected(self, exchange: Exchange) -> None:
        raise AssertionError("connection for a request that is not forwarded")

    def attempt_failed(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        raise AssertionError("failed attempt of a request that is not forwarded")

    def response_started(self, exchange: Exchange) -> None:
        raise AssertionError("response to a request that is not forwarded")

    def first_byte_received(self, exchange: Exchange) -> None:
        raise AssertionError("response to a request that is not forwarded")

    def response_aborted(self, exchange: Exchange, failure: UpstreamFailure) -> None:
        raise AssertionError("response to a request that is not forwarded")
