"""The nouns that every room shares, as data that does not change."""

from __future__ import annotations

import enum
from typing import Union

from attrs import frozen


@frozen
class TcpAddress:
    """A host (a name, an IPv4 or an IPv6 address without brackets) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@frozen
class UnixAddress:
    """A socket in the file system."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@frozen
class EndpointAddress:
    """A place to listen, as a Twisted server endpoint description."""

    description: str

    def __str__(self) -> str:
        return self.description


ServerAddress = Union[TcpAddress, UnixAddress]
ListenAddress = Union[TcpAddress, UnixAddress, EndpointAddress]


@frozen
class ServerSettings:
    """One server of a pool: where it is and how much it shall get."""

    address: ServerAddress
    weight: int = 1
    backup: bool = False


@frozen
class Timeouts:
    """
    Time limits in seconds.

    `connect`: until a connection to a server stands. `upstream`: silence of a
    server that owes an answer. `header`: a client's request head. `idle`:
    silence of a client between requests, within a body, or while it should be
    reading its answer.
    """

    connect: float = 5.0
    upstream: float = 60.0
    header: float = 10.0
    idle: float = 60.0


@frozen
class Settings:
    """Everything one balancer was told, checked and complete."""

    servers: tuple[ServerSettings, ...]
    bind: tuple[ListenAddress, ...] = (TcpAddress("0.0.0.0", 1100),)
    algorithm: str = "round-robin"
    cooldown: float = 10.0
    timeouts: Timeouts = Timeouts()
    trusted_proxies: tuple[str, ...] = ()
    max_body: int | None = None
    demo: int = 0


class FailureKind(enum.Enum):
    """How an attempt at one server ended without an answer."""

    UNREACHABLE = "could not be reached"
    CONNECT_TIMEOUT = "did not accept a connection in time"
    STALE = "had closed the idle connection"
    CLOSED = "closed the connection"
    MALFORMED = "did not answer in HTTP"
    TIMEOUT = "did not answer in time"


@frozen
class UpstreamFailure:
    """
    One failed attempt.

    `nothing_sent` is true when no byte of the request can have reached the
    server, so that any request may be tried elsewhere.
    """

    kind: FailureKind
    detail: str
    nothing_sent: bool = False

    @property
    def for_client(self) -> str:
        """What a client is told: the kind, without the server's name."""
        return f"the server {self.kind.value}"

    @property
    def status(self) -> int:
        """The status a client gets when this was the last attempt."""
        late = (FailureKind.TIMEOUT, FailureKind.CONNECT_TIMEOUT)
        return 504 if self.kind in late else 502
