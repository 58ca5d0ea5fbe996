"""Rejected requests: requests that could not be parsed and became no exchange."""

from __future__ import annotations

from attrs import frozen

from balancebeam.proxy.timeline import CLIENT, REFUSED

# Bytes of a request line that are logged: enough to recognise the request, and a
# client that sends garbage cannot fill the log with long lines.
MAX_LOGGED_LINE = 2048


@frozen
class RejectedRequest:
    """
    A request that was answered with an error before it was forwarded.

    Attributes:
        client: The client's IP address as text.
        line: The first line of the request as received, cut to `MAX_LOGGED_LINE` bytes.
        status: The status of the response.
        reason: The error.
        body_bytes_sent: The length of the response's body in bytes.
    """

    client: str
    line: bytes
    status: int
    reason: str
    body_bytes_sent: int

    @property
    def ended(self) -> str:
        """How the request ended; see `timeline.ended`. A client that stalls is not refused."""
        return CLIENT if self.status == 408 else REFUSED


def first_line(data: bytes) -> bytes:
    """The first line of `data` that is not empty, cut to `MAX_LOGGED_LINE` bytes."""
    return (
        data[: MAX_LOGGED_LINE + 4]
        .lstrip(b"\r\n")
        .partition(b"\n")[0]
        .rstrip(b"\r")[:MAX_LOGGED_LINE]
    )


def is_head_request(data: bytes) -> bool:
    """Whether an unreadable request is a HEAD request, whose response has no body."""
    return data[:7].lstrip(b"\r\n").startswith(b"HEAD ")
