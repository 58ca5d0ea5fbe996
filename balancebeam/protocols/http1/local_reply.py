"""Local replies: complete responses that the proxy makes itself, mostly with JSend bodies."""

from __future__ import annotations

import json
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

ALLOWED_METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH"

JSON = b"application/json"

# Python's phrases for these are older than RFC 9110.
_RFC9110_PHRASES = {413: b"Content Too Large", 414: b"URI Too Long"}


def http_date(seconds: float) -> bytes:
    """Return a time in seconds since the epoch as an IMF-fixdate (RFC 9110, 5.6.7)."""
    return formatdate(seconds, usegmt=True).encode("ascii")


def reason_phrase(status: int) -> bytes:
    """Return the phrase of RFC 9110, 15 for a status; nothing for an unknown one."""
    if status in _RFC9110_PHRASES:
        return _RFC9110_PHRASES[status]
    try:
        return HTTPStatus(status).phrase.encode("ascii")
    except ValueError:
        # The status of a rate limit is configurable. RFC 9112, 4: the reason
        # phrase may be empty.
        return b""


def jsend_error(text: str) -> bytes:
    """Return the JSend body of an error, without a line feed."""
    return json.dumps({"status": "error", "data": text}).encode("ascii")


def jsend_success(data: Any) -> bytes:
    """Return the JSend body of a success, without a line feed."""
    return json.dumps({"status": "success", "data": data}).encode("ascii")


def jsend_fail(title: str) -> bytes:
    """Return the JSend body of a rejected registration, without a line feed."""
    return json.dumps({"status": "fail", "data": {"title": title}}).encode("ascii")


# Characters of a method in an error message. A method can be as long as a request line.
_MAX_METHOD = 100


def wrong_method(method: str) -> str:
    """Return the title of the failure of a registration with another method than POST."""
    return f"Wrong method. Expected POST, got {method[:_MAX_METHOD]}."


def is_json(content_types: list[bytes]) -> bool:
    """Whether the values of Content-Type are exactly one, application/json with any parameters."""
    return len(content_types) == 1 and content_types[0].partition(b";")[0].strip().lower() == JSON


def local_reply_fields(
    body: bytes, extra: tuple[tuple[bytes, bytes], ...] = ()
) -> list[tuple[bytes, bytes]]:
    """
    Return the fields of a local reply, without Date and Connection.

    The body is JSON unless `extra` has a Content-Type. A reply without a body has none.
    """
    fields = [(b"Content-Length", b"%d" % len(body)), *extra]
    if body and not any(name == b"Content-Type" for name, _ in extra):
        fields.insert(0, (b"Content-Type", JSON))
    return fields


def local_reply(
    status: int,
    body: bytes,
    extra: tuple[tuple[bytes, bytes], ...],
    bodyless: bool,
    persistent: bool,
    now: float,
) -> bytes:
    """
    Return a complete local reply.

    Args:
        status: The status code.
        body: The body, JSON unless `extra` has a Content-Type.
        extra: Names and values of further fields.
        bodyless: The request was HEAD: the body is left out, its length is not.
        persistent: The connection stays open after the response.
        now: The time in seconds since the epoch.
    """
    lines = [b"HTTP/1.1 %d %b" % (status, reason_phrase(status)), b"Date: " + http_date(now)]
    lines += [b"%b: %b" % field for field in local_reply_fields(body, extra)]
    if not persistent:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if bodyless else body)
