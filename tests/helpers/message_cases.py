"""Cases of HTTP messages: what is sent, and the outcome."""

from __future__ import annotations

from attrs import frozen

# Takes the place of a status where the client's connection is closed within the body.
TRUNCATED = 0


@frozen
class RequestCase:
    """
    A request and its outcome.

    Attributes:
        name: Title in the table.
        section: RFC numbers and sections.
        sent: The bytes that the client sends.
        status: The status of the response. With 200 the request is forwarded, with
            any other status nothing of it reaches a server.
        forwarded: Bytes that the server receives.
        stripped: Bytes that the server does not receive.
    """

    name: str
    section: str
    sent: bytes
    status: int = 400
    forwarded: bytes = b""
    stripped: bytes = b""


@frozen
class ResponseCase:
    """
    A response and its outcome.

    Attributes:
        name: Title in the table.
        section: RFC numbers and sections.
        sent: The bytes that the server sends.
        status: The status that the client receives. `TRUNCATED` if its connection is
            closed within the body, or 502 if the head was not forwarded before.
        request: The bytes that the client sends.
        reused: The connection to the server may serve another request.
        forwarded: Bytes that the client receives.
        stripped: Bytes that the client does not receive.
    """

    name: str
    section: str
    sent: bytes
    status: int = 502
    request: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    reused: bool = False
    forwarded: bytes = b""
    stripped: bytes = b""


def printable(data: bytes) -> str:
    """Return bytes with Python's escapes, abbreviated if long."""
    text = repr(data)[2:-1].replace('"', '\\"')
    return text if len(text) <= 60 else f"{text[:40]}… ({len(data)} bytes)"
