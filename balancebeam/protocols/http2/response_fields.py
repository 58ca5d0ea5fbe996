"""
Fields of responses (RFC 9113, 8.2 and 8.3.2): interpreted as HTTP/1.1, or rejected.

As with requests, the fields become the text that HTTP/1.1 would have carried, which
`ResponseHeadParser` parses: responses pass the same checks in both versions.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Union

from balancebeam.core.errors import ResponseError
from balancebeam.protocols.http1.body import BodyError, filter_trailers
from balancebeam.protocols.http1.response_head import ResponseHead, ResponseHeadParser
from balancebeam.protocols.http2.request_fields import (
    CONNECTION_SPECIFIC,
    FIELD_NAME,
    FIELD_VALUE,
    TrailerSection,
)

ResponseSection = Union[ResponseHead, TrailerSection]

# RFC 9110, 15: a status code has three digits, from 100 to 599.
_STATUS = re.compile(rb"[1-5][0-9][0-9]")

# RFC 9113, 8.6: "HTTP/2 removes support for the 101 (Switching Protocols) informational status
# code".
_SWITCHING_PROTOCOLS = b"101"

# HTTP/2 has no reason phrases; HTTP/1.1 clients show them.
_STATUS_LINES = {
    b"%d" % status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode())
    for status in HTTPStatus
}

# The spellings that the fast paths of `ResponseHeadParser` recognise.
_SPELLINGS = {b"content-length": b"Content-Length", b"date": b"Date"}


class ResponseInterpreter:
    """
    Interprets decoded field sections of responses.

    Args:
        parser: Parses the responses as HTTP/1.1.
    """

    def __init__(self, parser: ResponseHeadParser) -> None:
        self._parser = parser

    def interpret(self, fields: Sequence[tuple[bytes, bytes]]) -> ResponseSection:
        """
        Interpret one section, which is the head of a response if it has `:status`.

        Raises:
            ResponseError: The section is malformed.
        """
        status = b""
        lines: list[bytes] = []
        for name, value in fields:
            if name[:1] == b":":
                # RFC 9113, 8.3: pseudo-fields come first, once each; responses have only one.
                if name != b":status" or status or lines:
                    raise ResponseError("unknown, repeated or late pseudo-header")
                if not _STATUS.fullmatch(value) or value == _SWITCHING_PROTOCOLS:
                    raise ResponseError("invalid :status")
                status = value
            elif not FIELD_NAME.fullmatch(name) or not FIELD_VALUE.fullmatch(value):
                raise ResponseError("invalid header line")
            elif name in CONNECTION_SPECIFIC:
                raise ResponseError("connection-specific header")
            else:
                lines.append(b"%b: %b" % (_SPELLINGS.get(name, name), value))
        if not status:
            return _interpret_trailers(lines)
        status_line = _STATUS_LINES.get(status) or b"HTTP/1.1 %b " % status
        return self._parser.parse(b"\r\n".join([status_line, *lines, b""]))


def _interpret_trailers(lines: list[bytes]) -> TrailerSection:
    try:
        return TrailerSection(filter_trailers(lines))
    except BodyError as error:
        raise ResponseError(str(error)) from None
