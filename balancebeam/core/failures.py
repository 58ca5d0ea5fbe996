"""TODO."""

from __future__ import annotations

import enum

from attrs import frozen


class FailureKind(enum.Enum):
    """How an attempt at one server ended without an answer."""

    UNREACHABLE = "could not be reached"
    CONNECT_TIMEOUT = "did not accept a connection in time"
    STALE = "had closed the idle connection"
    CLOSED = "closed the connection"
    MALFORMED = "did not answer in HTTP"
    TIMEOUT = "did not answer in time"
    # Not the server's fault.
    CLIENT_STALLED = "had an answer that its client did not take"
    STOPPING = "is not waited for, because the balancer is stopping"


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
    def public_message(self) -> str:
        """What a client is told: the kind, without the server's name."""
        return f"the server {self.kind.value}"

    @property
    def status(self) -> int:
        """The status a client gets when this was the last attempt."""
        late = (FailureKind.TIMEOUT, FailureKind.CONNECT_TIMEOUT)
        return 504 if self.kind in late else 502
