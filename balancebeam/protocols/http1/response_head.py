"""
Response heads: each is parsed in exactly one way, or rejected.

`ResponseHeadParser.parse` is a pure function of the bytes; its caches only make it
faster. The stages, with their times for five field lines (CPython 3.11):

1. Head cache, 1.3 µs: the same head, but for Content-Length, Transfer-Encoding and
   keep-alive, was parsed before.
2. Status line: cached or parsed (`_parse_status_line`).
3. Line cache, 6 µs: every line is plain, a credential, or one of the usual framing
   and keep-alive lines (`_parse_head`).
4. Rules, 12 µs: `_build_response_head` validates the special fields of any other
   head together.
"""

from __future__ import annotations

from typing import NamedTuple

from attrs import define

from balancebeam.core.errors import ResponseError
from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.body import CHUNKED, CLOSE_DELIMITED
from balancebeam.protocols.http1.grammar import (
    CRLF,
    MAX_LENGTH_DIGITS,
    STATUS_LINE,
    list_items,
    parse_content_length,
)

# Envoy has 60 KiB (max_response_headers_kb), Python 64 KiB for a single line.
MAX_RESPONSE_HEAD = 64 * 1024
# Envoy and Python have 100, HAProxy 101 (tune.http.maxhdr).
MAX_RESPONSE_FIELDS = 256
# RFC 9110, 15.2: "A client MUST be able to parse one or more 1xx responses". There is no
# upper limit there; more than this many is no longer a response but an attack or a bug.
MAX_INFORMATIONAL_RESPONSES = 100

_KEEP_ALIVE = b"\r\nConnection: keep-alive\r\n"
_CHUNKED = b"\r\nTransfer-Encoding: chunked\r\n"
_CONTENT_LENGTH = b"\r\nContent-Length: "

# RFC 9110, 8.6: "A server MUST NOT send a Content-Length header field in any
# response with a status code of 1xx (Informational) or 204 (No Content)."
_BODILESS_STATUSES = frozenset((*range(100, 200), 204))


class StatusLine(NamedTuple):
    """
    A parsed status line.

    Attributes:
        minor: The minor version, 0 or 1.
        status: The status code.
        forward_line: The line to forward, without CRLF, or `None` if the line is
            forwarded as received.
    """

    minor: int
    status: int
    forward_line: bytes | None


@define
class ResponseHead:
    """
    The head of one response.

    Not frozen: that would cost half a microsecond per request.

    Attributes:
        status: The status code.
        forward_bytes: The status line and the fields to forward, each ended by
            CRLF. The proxy's own fields and the empty line have to be appended.
        length: The length of the body in bytes, `CHUNKED` or `CLOSE_DELIMITED`,
            by the fields alone: whether there is a body depends on the request
            too (`has_body`).
        persistent: The server keeps the connection open after the response.
        needs_no_added_fields: The response is HTTP/1.1, has a Date and no Upgrade.
        has_date: It has a Date field.
        upgrade: The value of Upgrade.
        minor: The minor version, 0 or 1.
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
    Parses response heads, and caches what servers repeat.

    Besides field lines, whole heads are cached, without the lines that frame the
    body or concern the connection: the rest of them is plain.

    Attributes:
        MAX_CACHED_STATUS_LINES: Status lines, of `MAX_CACHED_STATUS_LINE_LENGTH`
            bytes at most. Servers use about 60 codes with one phrase each.
        MAX_CACHED_HEADS: Heads, of `MAX_CACHED_HEAD_LENGTH` bytes at most: 1 MiB.
    """

    MAX_CACHED_STATUS_LINES = 64
    MAX_CACHED_STATUS_LINE_LENGTH = 127
    MAX_CACHED_HEADS = 512
    MAX_CACHED_HEAD_LENGTH = 2048

    def __init__(self) -> None:
        self._line_cache = f.FieldLineCache(f.RESPONSE_KINDS)
        self._status_line_cache: dict[bytes, StatusLine] = {}
        # Status and presence of a Date, by the plain rest of a head.
        self._head_cache: dict[bytes, tuple[int, bool]] = {}

    def parse(self, head: bytes) -> ResponseHead:
        """
        Parse a complete response head.

        Args:
            head: The status line and the field lines, each ended by CRLF, without
                the empty line.

        Raises:
            ResponseError: The response cannot be forwarded.
        """
        # Most servers send it with every response; in HTTP/1.1 it changes nothing.
        forward_bytes = head.replace(_KEEP_ALIVE, CRLF, 1)
        start = forward_bytes.find(_CONTENT_LENGTH)
        if start >= 0:
            end = forward_bytes.find(CRLF, start + 2)
            value = forward_bytes[start + len(_CONTENT_LENGTH) : end]
            rest = forward_bytes[:start] + forward_bytes[end:]
            cached = self._head_cache.get(rest)
            if cached is not None and value.isdigit() and len(value) < MAX_LENGTH_DIGITS:
                return ResponseHead(
                    cached[0], forward_bytes, int(value), True, cached[1], cached[1]
                )
        else:
            rest = forward_bytes.replace(_CHUNKED, CRLF, 1)
            if len(rest) == len(forward_bytes):
                return self._parse_head(head)
            cached = self._head_cache.get(rest)
            if cached is not None:
                return ResponseHead(cached[0], rest, CHUNKED, True, cached[1], cached[1])
        parsed = self._parse_head(head)
        if (
            len(rest) <= self.MAX_CACHED_HEAD_LENGTH
            and parsed.persistent
            and parsed.status not in _BODILESS_STATUSES
        ):
            self._cache_head(rest, parsed)
        return parsed

    def _cache_head(self, rest: bytes, head: ResponseHead) -> None:
        """
        Cache `rest`, which is `head` without its framing, if all lines are known as plain.

        A line that was never seen before will hardly be seen again with all others.
        """
        line, *lines = rest.split(CRLF)
        if not lines:
            # The head ended within its last line, without CRLF.
            return
        lines.pop()
        cached = self._status_line_cache.get(line)
        if (
            cached is None
            or cached.forward_line is not None
            or not self._line_cache.all_plain(lines)
        ):
            return
        if len(lines) > MAX_RESPONSE_FIELDS - 2:
            # The next head may have two more lines, which are not in `rest`.
            return
        if len(self._head_cache) >= self.MAX_CACHED_HEADS:
            # Most entries have a Date that has passed.
            self._head_cache.clear()
        self._head_cache[rest] = (head.status, head.has_date)

    def _parse_head(self, head: bytes) -> ResponseHead:
        """Parse a head by its lines alone if they allow it, otherwise by the rules."""
        lines = head.split(CRLF)
        line = lines[0]
        status_line = self._status_line_cache.get(line) or self._parse_status_line(line)
        minor, status, forward_line = status_line
        # A search of the whole head instead of its lines: a Date changes every
        # second, and only its presence matters.
        has_date = b"\r\nDate:" in head
        length = CLOSE_DELIMITED
        persistent = minor == 1
        forward_bytes = head if forward_line is None else forward_line + head[len(line) :]
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
                    forward_bytes = forward_bytes.replace(_CHUNKED, CRLF, 1)
                    continue
            if line == b"Connection: keep-alive" and persistent:
                forward_bytes = forward_bytes.replace(_KEEP_ALIVE, CRLF, 1)
            elif self._is_special(line):
                return self._parse_slow_path(lines[0], status_line, lines[1:-1], has_date)
        # The status line and the empty item behind the last CRLF count as well.
        if len(lines) > MAX_RESPONSE_FIELDS + 2:
            raise ResponseError("too many headers")
        if status in _BODILESS_STATUSES:
            length = 0
        needs_no_added_fields = has_date and minor == 1
        return ResponseHead(
            status, forward_bytes, length, persistent, needs_no_added_fields, has_date, b"", minor
        )

    def _is_special(self, line: bytes) -> bool:
        """Whether a line that is not cached as plain has to be interpreted."""
        try:
            field = self._line_cache.special.get(line) or self._line_cache.classify(line)
        except f.FieldError as error:
            raise ResponseError(str(error)) from None
        return field is not None and field.kind is not f.CREDENTIAL

    def _parse_slow_path(
        self, first: bytes, status_line: StatusLine, lines: list[bytes], has_date: bool
    ) -> ResponseHead:
        """Parse a head by the rules; with the arguments of `_build_response_head`."""
        if len(lines) > MAX_RESPONSE_FIELDS:
            raise ResponseError("too many headers")
        try:
            special_fields = self._line_cache.special_fields(lines)
        except f.FieldError as error:
            raise ResponseError(str(error)) from None
        return _build_response_head(first, status_line, lines, special_fields, has_date)

    def _parse_status_line(self, line: bytes) -> StatusLine:
        """Parse a status line, and cache it unless it is long."""
        match = STATUS_LINE.fullmatch(line)
        if match is None:
            raise ResponseError("invalid status line")
        minor, status, reason = match.groups()
        # RFC 9112, 4: the space before an absent reason phrase is part of the line.
        forward_line = b"HTTP/1.1 %b %b" % (status, reason or b"")
        status_line = StatusLine(
            min(int(minor), 1), int(status), None if forward_line == line else forward_line
        )
        if len(self._status_line_cache) >= self.MAX_CACHED_STATUS_LINES:
            self._status_line_cache.clear()
        if len(line) <= self.MAX_CACHED_STATUS_LINE_LENGTH:
            self._status_line_cache[line] = status_line
        return status_line


def check_partial_head(data: bytes) -> None:
    """
    Check `data`, the beginning of a head whose end has not been received.

    Raises:
        ResponseError: It is too large, or no valid head can begin so.
    """
    if len(data) > MAX_RESPONSE_HEAD:
        raise ResponseError("response head too large")
    if not data.startswith(b"HTTP/1."[: len(data)]) or b"\n" in data.replace(CRLF, b""):
        raise ResponseError("invalid response head")


def has_body(method: bytes, status: int) -> bool:
    """Whether a response to `method` with this status has a body (RFC 9112, 6.3)."""
    return method != b"HEAD" and status >= 200 and status not in (204, 304)


def _parse_length(value: bytes) -> int:
    """Return the value of a Content-Length field."""
    length = parse_content_length(value)
    if length is None:
        raise ResponseError("invalid Content-Length")
    return length


def _build_response_head(
    first: bytes,
    status_line: StatusLine,
    lines: list[bytes],
    special_fields: list[f.Field],
    has_date: bool,
) -> ResponseHead:
    """
    Validate the special fields of a head together, and build the response.

    Args:
        first: The first line as received.
        status_line: What it means.
        lines: All field lines.
        special_fields: The special fields among them, in order.
        has_date: The head has a field that is spelled `Date`.

    Raises:
        ResponseError: The fields could be interpreted in more than one way.
    """
    minor, status, forward_line = status_line
    length: int | None = None
    options: list[bytes] = []
    codings: list[bytes] = []
    upgrades: list[bytes] = []
    dropped: list[bytes] = []
    for field in special_fields:
        kind = field.kind
        if kind is f.DATE:
            has_date = True
        elif kind is f.CONTENT_LENGTH:
            if length is not None:
                raise ResponseError("more than one Content-Length")
            length = _parse_length(field.value)
        elif kind is f.TRANSFER_ENCODING:
            codings.append(field.value.lower())
            dropped.append(field.line)
        elif kind is f.CONNECTION:
            options += list_items(field.value)
            dropped.append(field.line)
        elif kind is f.UPGRADE:
            upgrades.append(field.value)
            dropped.append(field.line)
        elif kind not in (f.CREDENTIAL, f.TRAILER):
            dropped.append(field.line)
    framing = _check_framing(minor, status, length, codings)
    if framing is None:
        dropped += [field.line for field in special_fields if field.kind is f.CONTENT_LENGTH]
    # RFC 9110, 7.6.1: a sender MUST NOT name a field that is intended for all
    # recipients, such as Date.
    names = set(options) - {b"keep-alive", b"close", b"content-length", b"date"}
    forwarded = [first if forward_line is None else forward_line]
    for line in lines:
        if line in dropped:
            dropped.remove(line)
        elif line.partition(b":")[0].lower() not in names:
            forwarded.append(line)
    forwarded.append(b"")
    persistent = b"close" not in options and (minor == 1 or b"keep-alive" in options)
    upgrade = b", ".join(upgrades)
    return ResponseHead(
        status,
        CRLF.join(forwarded),
        0 if framing is None else framing,
        persistent,
        has_date and minor == 1 and not upgrade,
        has_date,
        upgrade,
        minor,
    )


def _check_framing(minor: int, status: int, length: int | None, codings: list[bytes]) -> int | None:
    """
    Return the length of the body by RFC 9112, 6.3, applied strictly.

    Returns:
        Bytes, `CHUNKED` or `CLOSE_DELIMITED`; or `None` for a status without a body,
        whose framing fields mean nothing and are not forwarded.
    """
    if codings and (length is not None or minor == 0 or codings != [b"chunked"]):
        raise ResponseError(
            "invalid Transfer-Encoding: expected chunked, in HTTP/1.1, without Content-Length"
        )
    if status in _BODILESS_STATUSES:
        return None
    if codings:
        return CHUNKED
    return CLOSE_DELIMITED if length is None else length
