"""Answers that the proxy makes itself: complete, framed, in JSend form."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

ALLOWED_METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"

JSON = b"application/json"

# Python's names for these are older than RFC 9110.
_RFC9110_PHRASES = {413: b"Content Too Large", 414: b"URI Too Long"}


def http_date(seconds: float) -> bytes:
    """`seconds` since the epoch as an IMF-fixdate (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def reason_phrase(status: int) -> bytes:
    """The phrase of RFC 9110, 15 for a status that the proxy uses itself."""
    if status in _RFC9110_PHRASES:
        return _RFC9110_PHRASES[status]
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        # One that somebody configured. RFC 9112, 4: the phrase may be empty.
        return b""


def jsend_error(text: str) -> bytes:
    """The JSend form that S4 uses."""
    return json.dumps({"status": "error", "data": text}).encode("ascii")


def jsend_success(data: Any) -> bytes:
    """Return the JSend body of a success, without a line feed."""
    return json.dumps({"status": "success", "data": data}).encode("ascii")


def jsend_fail(title: str) -> bytes:
    """Return the JSend body of a rejected registration, without a line feed."""
    return json.dumps({"status": "fail", "data": {"title": title}}).encode("ascii")


def is_json(content_types: list[bytes]) -> bool:
    """Whether the values of Content-Type are exactly one, application/json with any parameters."""
    return len(content_types) == 1 and content_types[0].partition(b";")[0].strip().lower() == JSON


def local_reply_fields(
    body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> list[tuple[bytes, bytes]]:
    """The fields of an error answer, beside those about the connection."""
    return [
        (b"Content-Type", b"application/json"),
        (b"Content-Length", b"%d" % len(body)),
        *extra,
    ]


def local_reply(
    status: int,
    body: bytes,
    extra: tuple[tuple[bytes, bytes], ...],
    bodyless: bool,
    persistent: bool,
    now: float,
) -> bytes:
    """
    A whole answer of the proxy's own, of which the body is JSON.

    `bodyless`: it answers a HEAD. `persistent`: the connection goes on after
    it. `now` is in seconds since the epoch.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, reason_phrase(status)), b"Date: " + http_date(now)]
    lines += [b"%b: %b" % field for field in local_reply_fields(body, extra)]
    if not persistent:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodyless else body)
