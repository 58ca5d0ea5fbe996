"""Interfaces of load balancing: the servers that algorithms see, and the algorithms."""

from __future__ import annotations

import typing
from collections.abc import Iterator, Sequence
from typing import TypeVar


class Backend(typing.Protocol):
    """
    A server, as algorithms see it.

    Attributes:
        name: Identifies the server; the same after a restart.
        weight: The configured weight, an integer above 0.
        effective_weight: The weight to use now, above 0; less than `weight` in slow start.
            The share of a server is its effective weight divided by the sum of all.
        in_flight: Requests sent to the server and not finished.
        available: False as soon as the server is ejected, down, drained or removed.
    """

    name: str
    weight: int
    effective_weight: float
    in_flight: int
    available: bool


BackendT = TypeVar("BackendT", bound=Backend)


# A server to try, and why it was selected at this position, as text for logs.
Selection = tuple[BackendT, str]


class Algorithm(typing.Protocol[BackendT]):
    """
    Orders servers for one request.

    Times are in seconds on the reactor's clock, which may be set back.

    Attributes:
        tracks_load: The algorithm needs the three events of every request.
    """

    tracks_load: bool

    def update(self, servers: Sequence[BackendT]) -> None:
        """
        Use `servers` from now on.

        Called whenever a server is added, removed or changed. A weight may still become 0
        between this call and a use of the server.
        """

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        """
        Iterate over all servers, best first, each once.

        Args:
            key: What hashing and sticky algorithms go by: the client's address.

        Returns:
            A lazy iterator, because usually only the first server is used. It must not
            fail if `update` is called meanwhile.
        """

    def request_started(self, server: BackendT, now: float) -> None:
        """A request was sent to `server`, and `in_flight` was incremented."""

    def response_started(self, server: BackendT, seconds: float, now: float) -> None:
        """
        A response of which more will follow has started.

        Args:
            server: The server.
            seconds: Time since the request was sent.
            now: The time.
        """

    def request_finished(self, server: BackendT, seconds: float | None, now: float) -> None:
        """
        A request has ended, and `in_flight` was decremented.

        Args:
            server: The server.
            seconds: Time from the request to the start of its response; `None` if there was
                no response, or if `response_started` has reported it.
            now: The time.
        """


@typing.runtime_checkable
class ExplainableAlgorithm(typing.Protocol[BackendT]):
    """
    An algorithm that can say how it would order servers, without a change of its state.

    It is optional: the servers of other algorithms are explained in the configured order.
    """

    def explain(
        self, key: str, servers: Sequence[BackendT] | None = None
    ) -> Sequence[Selection[BackendT]]:
        """
        Return what the next call of `candidates` would iterate over.

        No turn is used, no random number is drawn and no assignment is stored. A random
        algorithm returns the servers by their probability to be first, the most probable one
        at the beginning, with the probability in the reason.

        Args:
            key: As for `Algorithm.candidates`.
            servers: The servers of an `update` that is due before the next request; `None`
                if none is.
        """
