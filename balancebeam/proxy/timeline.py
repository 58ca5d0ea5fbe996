"""
The timeline of an exchange: its phases, its attempts, and how it ended.

Times are monotonic, in seconds of `time.perf_counter`:

    received_at -> [queue] -> [connect] -> attempt_at -> first_byte_at -> finished_at

A failed attempt returns to the queue or to the next server; `Exchange.tries` has it with its
duration. The frontend and the route of an exchange are in `Exchange.route`: the names `frontend`
and `name` of its `RouteTarget`. `route` is `None` for requests of a `twisted.web` tree and
before a TCP connection is routed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import frozen

from balancebeam.core.failures import TIMEOUTS, FailureKind, UpstreamFailure

COMPLETE = "complete"
CLIENT = "client"
SERVER = "server"
TIMEOUT = "timeout"
LIMIT = "limit"
NO_SERVER = "no-server"
REFUSED = "refused"
DRAINING = "draining"

_OUTCOMES = {
    **dict.fromkeys(TIMEOUTS, TIMEOUT),
    FailureKind.CLIENT_STALLED: CLIENT,
    FailureKind.STOPPING: DRAINING,
    FailureKind.NO_DESCRIPTORS: NO_SERVER,
}


@frozen
class Try:
    """
    One attempt to get a response from a server.

    Attributes:
        server: The name of the server.
        reason: Why it was selected.
        result: The status of its response, "connected" for a TCP connection, or the failure.
        seconds: The duration, including the connection attempt.
    """

    server: str
    reason: str
    result: str
    seconds: float


class RouteNames(Protocol):
    """
    The route of an exchange; implemented by `RouteTarget`.

    Attributes:
        name: Host and path of the route; empty for the default route.
        frontend: The name of the frontend.
    """

    @property
    def name(self) -> str: ...

    @property
    def frontend(self) -> str: ...


class ServerName(Protocol):
    """A server, as far as timelines need it."""

    @property
    def name(self) -> str: ...


class Timeline(Protocol):
    """An exchange, as far as timelines read it; see `Exchange` for the attributes."""

    received_at: float
    queue_seconds: float
    connect_seconds: float | None
    attempt_at: float
    first_byte_at: float
    finished_at: float
    tries: tuple[Try, ...]
    last_try_failed: bool
    selection_reason: str
    outcome: str
    uneventful: bool
    status: int
    client_aborted: bool
    downstream_response_started: bool
    failure: UpstreamFailure | None

    @property
    def server(self) -> ServerName | None: ...

    @property
    def last_server(self) -> ServerName | None: ...


def failure_outcome(failure: UpstreamFailure | None) -> str:
    """How an exchange ends that fails with `failure`; `None` if no server could be tried."""
    return NO_SERVER if failure is None else _OUTCOMES.get(failure.kind, SERVER)


def ended(exchange: Timeline) -> str:
    """
    How a finished exchange ended.

    Returns:
        "complete"; "client" (disconnected or stalled); "server" (the response was cut off, or no
        server sent one); "timeout"; "limit" (over a limit); "no-server" (none could be tried);
        "refused" (unreadable, or not allowed by the access list); or "draining" (the balancer
        has stopped).
    """
    if exchange.outcome:
        return exchange.outcome
    if not exchange.client_aborted:
        return COMPLETE
    if exchange.status in (0, 408) or exchange.downstream_response_started:
        return CLIENT
    # The request body could not be read, and the response is an error of the balancer.
    return REFUSED


def phases(exchange: Timeline) -> Mapping[str, float | None]:
    """
    The durations of the phases of a finished exchange.

    Returns:
        Seconds by phase; `None` for a phase that did not take place. "queue" is the sum of all
        stays in the queue, the others concern the last attempt: "connect", "first_byte" (from
        sending the request to the head of the response) and "body" (from there to the end).
    """
    first_byte = body = None
    if exchange.first_byte_at:
        first_byte = exchange.first_byte_at - exchange.attempt_at
        body = exchange.finished_at - exchange.first_byte_at
    return {
        "queue": exchange.queue_seconds or None,
        "connect": exchange.connect_seconds,
        "first_byte": first_byte,
        "body": body,
    }


def duration(exchange: Timeline) -> float:
    """Seconds from the request's head to the end of a finished exchange."""
    return exchange.finished_at - exchange.received_at if exchange.received_at else 0.0


def all_tries(exchange: Timeline) -> tuple[Try, ...]:
    """All attempts of a finished exchange in order: the failed ones, and the last one."""
    server = exchange.server or exchange.last_server
    if server is None or exchange.last_try_failed:
        return exchange.tries
    seconds = exchange.finished_at - exchange.attempt_at + (exchange.connect_seconds or 0.0)
    last = Try(server.name, exchange.selection_reason, _last_result(exchange), seconds)
    return (*exchange.tries, last)


def _last_result(exchange: Timeline) -> str:
    if exchange.outcome and exchange.failure is not None and not exchange.client_aborted:
        # The response was cut off: a failure before it would have ended the attempt.
        return exchange.failure.reason
    if exchange.first_byte_at and exchange.status:
        return str(exchange.status)
    if exchange.client_aborted:
        return "client disconnected"
    return "connected"
