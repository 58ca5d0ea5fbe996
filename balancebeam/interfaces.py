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
    """A server, as far as policies have to know it."""

    weight: int
    backup: bool
    in_flight: int
    failures: int
    cooldown: float
    avoided_until: float


C = TypeVar("C", bound=Candidate)


class Algorithm(Protocol):
    """
    Puts servers in the order in which they are to be tried for one request.

    `order` yields each of `servers` at most once, lazily: usually only the
    first is asked for. Servers of weight 0 are not given to it.
    """

    def order(self, servers: Sequence[C]) -> Iterator[C]: ...


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
