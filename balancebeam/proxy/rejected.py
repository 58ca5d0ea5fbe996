"""Requests that never became an exchange, because they could not be read."""

from __future__ import annotations

from attrs import frozen

# Octets of a request line that are kept to show it.
MAX_LOGGED_LINE = 2048


@frozen
class RejectedRequest:
    """
    What `client` sent and was refused for `reason`, with an answer of this
    `status` and a body of so many `body_bytes_sent`. `line` is its first line, or the
    beginning of that, in whatever form it came.
    """

    client: str
    line: bytes
    status: int
    reason: str
    body_bytes_sent: int


def first_line(data: bytes) -> bytes:
    """The first line of `data` that is not empty, as far as it is shown."""
    return (
        data[: MAX_LOGGED_LINE + 4]
        .lstrip(b"\r\n")
        .partition(b"\n")[0]
        .rstrip(b"\r")[:MAX_LOGGED_LINE]
    )
