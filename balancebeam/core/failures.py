"""Failures of attempts to send a request to a server."""

from __future__ import annotations

import enum

from attrs import frozen


class FailureKind(enum.Enum):
    """
    How an attempt ended without a complete response.

    `RESET` and `TIMEOUT` are without any byte of a response; `CLOSED`, `MALFORMED`,
    `STALLED` and `STREAM_RESET` may be within one. After `REFUSED`, the server has not
    processed the request (RFC 9113, 8.7), although it was sent.

    The values follow the name of a server in logs, and "the server" in error
    responses to clients.
    """

    UNREACHABLE = "could not be reached"
    CONNECT_TIMEOUT = "did not accept a connection in time"
    STALE = "closed the idle connection"
    RESET = "reset the connection"
    CLOSED = "closed the connection"
    MALFORMED = "sent an invalid HTTP response"
    TIMEOUT = "did not respond in time"
    STALLED = "did not complete its response in time"
    STREAM_RESET = "reset the stream"
    # Not failures of the server.
    DEADLINE = "did not respond before the deadline of the request"
    REFUSED = "refused the request"
    NO_UPGRADE = "does not accept WebSockets over HTTP/2"
    CLIENT_STALLED = "sent a response that the client did not read"
    STOPPING = "could not respond because the balancer is shutting down"
    NO_DESCRIPTORS = "could not be tried because the balancer is out of file descriptors"

    @property
    def label(self) -> str:
        """One word, for labels of metrics."""
        return self.name.lower().replace("_", "-")


# The kinds by which a request ends because of a time limit.
TIMEOUTS = frozenset(
    (
        *(FailureKind.TIMEOUT, FailureKind.STALLED, FailureKind.CONNECT_TIMEOUT),
        FailureKind.DEADLINE,
    )
)


def failure_reason(kind: FailureKind, detail: str = "") -> str:
    """The text of a failure, the same for requests and for active health checks."""
    return f"{kind.value}: {detail}" if detail else kind.value


@frozen
class UpstreamFailure:
    """
    One failed attempt.

    Attributes:
        kind: how it ended.
        detail: more about the cause, such as the text of the operating system; may be empty.
        nothing_sent: no byte of the request can have reached the server, so any
            request may be sent to another one.
        server: the server's name.
    """

    kind: FailureKind
    detail: str = ""
    nothing_sent: bool = False
    server: str = "the server"

    @property
    def reason(self) -> str:
        """The text for logs and states that name the server elsewhere."""
        return failure_reason(self.kind, self.detail)

    @property
    def text(self) -> str:
        """The text for logs, with the server's name."""
        return f"{self.server} {self.reason}"

    @property
    def public_message(self) -> str:
        """The text for clients: the kind, without the server's name."""
        return f"the server {self.kind.value}"

    @property
    def status(self) -> int:
        """The status of the response to the client if this was the last attempt."""
        if self.kind in (FailureKind.NO_DESCRIPTORS, FailureKind.REFUSED):
            return 503
        if self.kind is FailureKind.NO_UPGRADE:
            return 501
        return 504 if self.kind in TIMEOUTS else 502
