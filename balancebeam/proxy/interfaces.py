"""
Interfaces between exchanges, the pipeline that processes them, and observers.

The protocols are generic in the type of exchange: `balancebeam.proxy.exchange`
imports this module, so it cannot be imported here.
"""

from __future__ import annotations

from typing import Any, Callable, Protocol, TypeVar

from balancebeam.core.failures import UpstreamFailure
from balancebeam.net.ticker import Ticker
from balancebeam.proxy.rejected import RejectedRequest

ExchangeT_contra = TypeVar("ExchangeT_contra", contravariant=True)


class Pipeline(Protocol[ExchangeT_contra]):
    """
    The dispatcher as an exchange sees it.

    Attributes:
        pool_name: The name of the pool, for logs.
        ticker: The coarse clock of timeouts, see `balancebeam.net.ticker`.
        clock: Returns the time of the reactor in seconds.
        perf_counter: Returns monotonic seconds, for durations; `time.perf_counter`.
    """

    pool_name: str
    ticker: Ticker
    clock: Callable[[], float]
    perf_counter: Callable[[], float]

    def connected(self, exchange: ExchangeT_contra) -> None:
        """Record that a connection was opened for the request, which is sent next."""

    def attempt_failed(self, exchange: ExchangeT_contra, failure: UpstreamFailure) -> None:
        """Retry or fail a request for which a server sent no response."""

    def response_started(self, exchange: ExchangeT_contra) -> None:
        """Record that the response's head has arrived and its body is yet to come."""

    def first_byte_received(self, exchange: ExchangeT_contra) -> None:
        """Record that the final response begins to arrive, and that more of it follows."""

    def response_aborted(self, exchange: ExchangeT_contra, failure: UpstreamFailure) -> None:
        """Record that a response which had started cannot be completed."""

    def request_finished(self, exchange: ExchangeT_contra) -> None:
        """Account for a request that was answered, aborted or abandoned; called once."""


class AbandonableConnection(Protocol):
    """An upstream connection, as far as exchanges of every protocol use it."""

    def abandon(self) -> None:
        """Give up the request: its client has disconnected."""


class ClientTransport(Protocol):
    """The transport of a client's connection, as far as its addresses are needed."""

    def getPeer(self) -> Any:
        """The address of the peer, an `IAddress`."""

    def getHost(self) -> Any:
        """The local address, an `IAddress`."""


class Observer(Protocol[ExchangeT_contra]):
    """Receives every finished exchange and every rejected request, for logs."""

    def exchange_finished(self, exchange: ExchangeT_contra) -> None:
        """Record `exchange`, which was answered, aborted or abandoned."""

    def request_rejected(self, request: RejectedRequest) -> None:
        """Record `request`, which could not be parsed and was answered with an error."""
