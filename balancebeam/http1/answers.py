"""Answers that the proxy makes itself: complete, framed, in JSend form."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus

ALLOWED = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"


def http_date(seconds: float) -> bytes:
    """`seconds` since the epoch as an IMF-fixdate (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def reason_phrase(status: int) -> bytes:
    """The usual phrase for a status that the proxy uses itself."""
    return HTTPStatus(status).phrase.encode("ascii")


def error_body(text: str) -> bytes:
    """The JSend form that S4 uses."""
    return json.dumps({"status": "error", "data": text}).encode("ascii")


def error_fields(
    body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> list[tuple[bytes, bytes]]:
    """The fields of an error answer, beside those about the connection."""
    return [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        *extra,
    ]
