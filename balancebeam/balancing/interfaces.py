"""TODO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar


class Candidate(Protocol):
    """
    A server, as far as algorithms have to know it.

    `name` is the same over restarts. `weight` is what the operator gave it;
    `share` what it counts for right now, which is less while a server that
    came back warms up. Neither is 0 for servers that algorithms meet.
    `available` turns false as soon as something speaks against the server.
    """

    name: str
    weight: int
    share: float
    in_flight: int
    available: bool


C = TypeVar("C", bound=Candidate)


# A server to try, and why it is its turn.
Choice = tuple[C, str]


class Algorithm(Protocol[C]):
    """
    Puts servers in the order in which they are to be tried for one request.

    With `follows_load` it wants to hear of every request that a server is
    given or rid of. Times are in seconds, on a clock that may be set.
    """

    follows_load: bool

    def meet(self, servers: Sequence[C]) -> None:
        """Choose among `servers` from now on. Called whenever one comes, goes or changes."""

    def order(self, client: str) -> Iterator[Choice[C]]:
        """Each server once, best first, lazily: usually only the first is asked for."""

    def taken(self, server: C, now: float) -> None:
        """`server` has one request more in flight."""

    def answered(self, server: C, seconds: float, now: float) -> None:
        """An answer has begun, `seconds` after it was asked for; more of it is to come."""

    def released(self, server: C, seconds: float | None, now: float) -> None:
        """
        `server` has one request less; its answer, of which `answered` did not
        tell, began after `seconds`.
        """
