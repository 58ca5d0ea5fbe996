"""TODO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar


class Backend(Protocol):
    """
    A server, as far as algorithms have to know it.

    `name` is the same over restarts. `weight` is what the operator gave it;
    `effective_weight` what it counts for right now, which is less while a server that
    came back warms up. Neither is 0 for servers that algorithms meet.
    `available` turns false as soon as something speaks against the server.
    """

    name: str
    weight: int
    effective_weight: float
    in_flight: int
    available: bool


BackendT = TypeVar("BackendT", bound=Backend)


# A server to try, and why it is its turn.
Selection = tuple[BackendT, str]


class Algorithm(Protocol[BackendT]):
    """
    Puts servers in the order in which they are to be tried for one request.

    With `tracks_load` it wants to hear of every request that a server is
    given or rid of. Times are in seconds, on a clock that may be set.
    """

    tracks_load: bool

    def update(self, servers: Sequence[BackendT]) -> None:
        """Choose among `servers` from now on. Called whenever one comes, goes or changes."""

    def candidates(self, key: str) -> Iterator[Selection[BackendT]]:
        """Each server once, best first, lazily: usually only the first is asked for."""

    def request_started(self, server: BackendT, now: float) -> None:
        """`server` has one request more in flight."""

    def response_started(self, server: BackendT, seconds: float, now: float) -> None:
        """An answer has begun, `seconds` after it was asked for; more of it is to come."""

    def request_finished(self, server: BackendT, seconds: float | None, now: float) -> None:
        """
        `server` has one request less; its answer, of which `response_started` did not
        tell, began after `seconds`.
        """
