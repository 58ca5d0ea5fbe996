"""
The seams between the rooms, as protocols.

What is on the other side of one of these may be replaced: by a later part of
the product, by a test, by a user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar


class Random(Protocol):
    """A source of randomness: `random.Random`."""

    def random(self) -> float: ...


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


class LimitedRequest(Protocol):
    """
    A request, as far as limits have to know it.

    `client_key` is the client's address in 4 or 16 octets; `host` is as the
    client wrote it.
    """

    @property
    def client_key(self) -> bytes: ...

    @property
    def host(self) -> bytes | None: ...

    @property
    def target(self) -> bytes: ...

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`, which is in lower case."""


class Watched(Protocol):
    """A server, as far as the passive health policy has to know it."""

    failures: int
    cooldown: float
    avoided_until: float


class Checked(Protocol):
    """
    A server, as far as the active health policy has to know it.

    `checks_in_row` counts checks with the same result, below 0 if they failed.
    """

    healthy: bool
    checks_in_row: int


class StreamTransport(Protocol):
    """
    What the doors and the connections to servers use of a transport.

    Of our own transports: `direct` tells that everything written so far is
    out, and `outstanding` is a number that is 0 when the peer has all, and
    changes whenever it takes something.
    """

    direct: bool

    def outstanding(self) -> int: ...

    def write(self, data: bytes) -> None: ...

    def loseConnection(self) -> None: ...

    def loseWriteConnection(self) -> None: ...

    def abortConnection(self) -> None: ...

    def registerProducer(self, producer: Any, streaming: bool) -> None: ...

    def unregisterProducer(self) -> None: ...

    def pauseProducing(self) -> None: ...

    def resumeProducing(self) -> None: ...

    def getHost(self) -> Any: ...

    def setTcpNoDelay(self, enabled: bool) -> None: ...

    def setTcpKeepAlive(self, enabled: bool) -> None: ...
