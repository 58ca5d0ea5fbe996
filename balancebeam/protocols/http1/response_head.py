"""
Response heads from servers: read in exactly one way, or not passed on.
"""

from __future__ import annotations

from typing import NamedTuple

from attrs import define

from balancebeam.core.errors import ResponseError
from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.grammar import (
    CRLF,
    MAX_CONTENT_LENGTH,
    MAX_LENGTH_DIGITS,
    STATUS_LINE,
    list_items,
)

MAX_RESPONSE_HEAD = 64 * 1024
MAX_RESPONSE_FIELDS = 256

CHUNKED = -1
CLOSE_DELIMITED = -2

_KEEP_ALIVE = b"\r\nConnection: keep-alive\r\n"
_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n"
_CONTENT_LENGTH = b"\r\nContent-Length: "

# RFC 9110, 8.6: "A server MUST NOT send a Content-Length header field in any
# response with a status code of 1xx (Informational) or 204 (No Content)."
_BODILESS_STATUSES = frozenset((*range(100, 200), 204))


class StatusLine(NamedTuple):
    """
    A status line, understood. `forward_line` is what a client gets for it, without
    CRLF; `None` if that is the line itself.
    """

    minor: int
    status: int
    forward_line: bytes | None


@define
class ResponseHead:
    """
    One response, before its body. Not frozen, because that costs half a microsecond.

    `forward_bytes` is the status line and the fields to pass on, each ended by CRLF.
    `length` is the body's, or `CHUNKED`, or `CLOSE_DELIMITED`. It is what the
    fields say: whether a body may be there at all depends on the request
    (`has_body`). `persistent` tells whether the server keeps the connection.
    `needs_no_added_fields` responses are HTTP/1.1, have a Date and are not about an upgrade.
    """

    status: int
    forward_bytes: bytes
    length: int
    persistent: bool
    needs_no_added_fields: bool
    has_date: bool = True
    upgrade: bytes = b""
    minor: int = 1


class ResponseHeadParser:
    """
    Reads response heads and remembers what repeats itself.

    Beside field lines, whole heads are remembered, without the lines that
    frame a body or are about the connection: what is left of them is plain.
    """

    MAX_CACHED_STATUS_LINES = 64
    MAX_CACHED_HEADS = 512
    MAX_CACHED_HEAD_LENGTH = 2048

    def __init__(self) -> None:
        self._line_cache = f.FieldLineCache(f.RESPONSE_KINDS)
        self._status_line_cache: dict[bytes, StatusLine] = {}
        # A plain rest of a head, and its status and whether it has a Date.
        self._head_cache: dict[bytes, tuple[int, bool]] = {}

    def parse(self, head: bytes) -> ResponseHead:
        """
        Read `head`: the status line and the field lines, each with its CRLF.

        Raises `ResponseError`.
        """
        # What most servers send, and what changes nothing in HTTP/1.1.
        wire = head.replace(_KEEP_ALIVE, CRLF, 1)
        start = wire.find(_CONTENT_LENGTH)
        if start >= 0:
            end = wire.find(CRLF, start + 2)
            value = wire[start + len(_CONTENT_LENGTH) : end]
            rest = wire[:start] + wire[end:]
            known = self._head_cache.get(rest)
            if known is not None and value.isdigit() and len(value) < MAX_LENGTH_DIGITS:
                return ResponseHead(known[0], wire, int(value), True, known[1], known[1])
        else:
            rest = wire.replace(_CHUNKED, CRLF, 1)
            if len(rest) == len(wire):
                return self._parse_head(head)
            known = self._head_cache.get(rest)
            if known is not None:
                return ResponseHead(known[0], rest, CHUNKED, True, known[1], known[1])
        read = self._parse_head(head)
        if (
            len(rest) <= self.MAX_CACHED_HEAD_LENGTH
            and read.persistent
            and read.status not in _BODILESS_STATUSES
        ):
            self._cache_head(rest, read)
        return read

    def _cache_head(self, rest: bytes, head: ResponseHead) -> None:
        """
        Remember `rest`, if all of its lines are known as plain: a line that was
        never seen before will hardly be seen again with all the others.
        """
        line, *lines = rest.split(CRLF)
        if not lines:
            # It was cut short, within its last line.
            return
        lines.pop()
        known = self._status_line_cache.get(line)
        if known is None or known.forward_line is not None or not self._line_cache.all_plain(lines):
            return
        if len(lines) > MAX_RESPONSE_FIELDS - 2:
            # What was left out may be too much next time.
            return
        if len(self._head_cache) >= self.MAX_CACHED_HEADS:
            # Most of them have a Date that will not come again.
            self._head_cache.clear()
        self._head_cache[rest] = (head.status, head.has_date)

    def _parse_head(self, head: bytes) -> ResponseHead:
        lines = head.split(CRLF)
        line = lines[0]
        known = self._status_line_cache.get(line) or self._parse_status_line(line)
        minor, status, wire_line = known
        # Found by a search instead of line by line: a Date changes every
        # second, and all that matters of it is that there is one.
        dated = b"\r\nDate:" in head
        length = CLOSE_DELIMITED
        persistent = minor == 1
        wire = head if wire_line is None else wire_line + head[len(line) :]
        plain = self._line_cache.plain
        for line in lines[1:-1]:
            if line in plain:
                continue
            if length == CLOSE_DELIMITED and persistent and status not in _BODILESS_STATUSES:
                if line[:16] == b"Content-Length: ":
                    length = _parse_length(line[16:].strip(b" \t"))
                    continue
                if line == b"Transfer-Encoding: chunked":
                    length = CHUNKED
                    wire = wire.replace(_CHUNKED, CRLF, 1)
                    continue
            if line == b"Connection: keep-alive" and persistent:
                wire = wire.replace(_KEEP_ALIVE, CRLF, 1)
            elif self._is_special(line):
                return self._parse_slow_path(lines[0], known, lines[1:-1], dated)
        # The status line and the empty end are in the count as well.
        if len(lines) > MAX_RESPONSE_FIELDS + 2:
            raise ResponseError("too many header fields")
        if status in _BODILESS_STATUSES:
            length = 0
        usual = dated and minor == 1
        return ResponseHead(status, wire, length, persistent, usual, dated, b"", minor)

    def _is_special(self, line: bytes) -> bool:
        """Whether a line, not known as plain, is one that decides something."""
        try:
            field = self._line_cache.special.get(line) or self._line_cache.classify(line)
        except f.FieldError as error:
            raise ResponseError(str(error)) from None
        return field is not None and field.kind != f.CREDENTIAL

    def _parse_slow_path(
        self, first: bytes, line: StatusLine, lines: list[bytes], dated: bool
    ) -> ResponseHead:
        if len(lines) > MAX_RESPONSE_FIELDS:
            raise ResponseError("too many header fields")
        try:
            special_fields = self._line_cache.special_fields(lines)
        except f.FieldError as error:
            raise ResponseError(str(error)) from None
        return _build_response_head(first, line, lines, special_fields, dated)

    def _parse_status_line(self, line: bytes) -> StatusLine:
        match = STATUS_LINE.fullmatch(line)
        if match is None:
            raise ResponseError("a malformed status line")
        minor, status, reason = match.groups()
        # RFC 9112, 4: the blank before an absent reason is part of the line.
        wire = b"HTTP/1.1 %b %b" % (status, reason or b"")
        understood = StatusLine(min(int(minor), 1), int(status), None if wire == line else wire)
        if len(self._status_line_cache) >= self.MAX_CACHED_STATUS_LINES:
            self._status_line_cache.clear()
        if len(line) < 128:
            self._status_line_cache[line] = understood
        return understood


def has_body(method: bytes, status: int) -> bool:
    """Whether RFC 9112, 6.3 gives such a response a body at all."""
    return method != b"HEAD" and status >= 200 and status not in (204, 304)


def _parse_length(value: bytes) -> int:
    if value.isdigit() and len(value) <= MAX_LENGTH_DIGITS:
        length = int(value)
        if length <= MAX_CONTENT_LENGTH:
            return length
    raise ResponseError("a malformed Content-Length")


def _build_response_head(
    first: bytes, line: StatusLine, lines: list[bytes], special_fields: list[f.Field], dated: bool
) -> ResponseHead:
    """
    The whole of the rules, for heads that are not of the plainest form.
    `first` is the first line as it came, `line` what it means.
    """
    minor, status, wire_line = line
    length: int | None = None
    options: list[bytes] = []
    codings: list[bytes] = []
    upgrades: list[bytes] = []
    dropped: list[bytes] = []
    for field in special_fields:
        kind = field.kind
        if kind == f.DATE:
            dated = True
        elif kind == f.CONTENT_LENGTH:
            if length is not None:
                raise ResponseError("more than one Content-Length")
            length = _parse_length(field.value)
        elif kind == f.TRANSFER_ENCODING:
            codings.append(field.value.lower())
            dropped.append(field.line)
        elif kind == f.CONNECTION:
            options += list_items(field.value)
            dropped.append(field.line)
        elif kind == f.UPGRADE:
            upgrades.append(field.value)
            dropped.append(field.line)
        elif kind not in (f.CREDENTIAL, f.TRAILER):
            dropped.append(field.line)
    framing = _check_framing(minor, status, length, codings)
    if framing is None:
        dropped += [s.line for s in special_fields if s.kind == f.CONTENT_LENGTH]
    # Date is for all recipients, and RFC 9110, 7.6.1 forbids to name such fields.
    names = set(options) - {b"keep-alive", b"close", b"content-length", b"date"}
    passed = [first if wire_line is None else wire_line]
    for text in lines:
        if text in dropped:
            dropped.remove(text)
        elif text.partition(b":")[0].lower() not in names:
            passed.append(text)
    passed.append(b"")
    persistent = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    upgrade = b", ".join(upgrades)
    return ResponseHead(
        status,
        CRLF.join(passed),
        0 if framing is None else framing,
        persistent,
        dated and minor == 1 and not upgrade,
        dated,
        upgrade,
        minor,
    )


def _check_framing(minor: int, status: int, length: int | None, codings: list[bytes]) -> int | None:
    """
    RFC 9112, 6.3, read strictly. `None`: such a status has no body, and
    framing fields in it mean nothing and go no further.
    """
    if codings and (length is not None or minor == 0 or codings != [b"chunked"]):
        raise ResponseError("a Transfer-Encoding that cannot be trusted")
    if status in _BODILESS_STATUSES:
        return None
    if codings:
        return CHUNKED
    return CLOSE_DELIMITED if length is None else length
