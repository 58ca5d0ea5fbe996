"""
Request heads: read in exactly one way, or refused.

`RequestHeadParser.parse` is a pure function of the bytes, apart from what it
remembers in order to be faster the next time.
"""

from __future__ import annotations

import re
from typing import Optional

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.grammar import FIELD_LINE, MAX_LENGTH_DIGITS, REQUEST_LINE, TOKEN
from balancebeam.protocols.http1.request_rules import (
    NO_RARE_FIELDS,
    RequestHead,
    build_request_head,
    rare_forwarded_fields,
    validate_fields,
)

# nginx has 8 KiB for a line and 32 KiB for all of them; RFC 9112, 3 asks for
# at least 8,000 octets for the request line. A target of 8 KiB has room.
MAX_REQUEST_LINE = 8 * 1024 + 256
MAX_REQUEST_HEAD = 32 * 1024
MAX_REQUEST_FIELDS = 128

_SLASH = ord("/")
# Nothing yet, the beginning of an empty line, or of a method.
_HEAD_START = re.compile(rb"\r?\Z|" + TOKEN.pattern)
_SLOW_PATH = (None, 0, None)

# Fields that a proxy in front adds to every request.
_FORWARDED = (f.FORWARDED_FOR, f.FORWARDED_PROTO, f.FORWARDED_HOST)
_KEEP_ALIVE = b"\r\nConnection: keep-alive\r\n"


# Host, Content-Length, X-Forwarded fields.
_FastPath = tuple[Optional[bytes], int, Optional[list[f.Field]]]


class RequestHeadParser:
    """
    Reads request heads and remembers what repeats itself.

    Beside field lines, whole blocks of them are remembered: those in which
    only Host is special, so that the host is all there is to know.
    """

    MAX_CACHED_BLOCKS = 512
    MAX_CACHED_BLOCK_LENGTH = 2048

    def __init__(self) -> None:
        self._line_cache = f.FieldLineCache(f.REQUEST_KINDS)
        self._blocks: dict[bytes, bytes] = {}
        self._older_blocks: dict[bytes, bytes] = {}

    def parse(self, head: bytes) -> RequestHead:
        """
        Read `head`: the request line and the field lines, each with its CRLF.

        Raises `RequestError`.
        """
        match = REQUEST_LINE.match(head)
        if match is None:
            raise _request_line_error(head)
        method, target, minor = match.groups()
        start = match.end()
        if start > MAX_REQUEST_LINE:
            raise RequestError(414, "the request target is too long")
        # What browsers send, and what changes nothing in HTTP/1.1.
        wire = head.replace(_KEEP_ALIVE, b"\r\n", 1)
        block = wire[start:]
        try:
            length, forwarded = 0, None
            if len(wire) < len(head):
                host, length, forwarded = self._fast_path(block.split(b"\r\n"))
            else:
                host = self._blocks.get(block)
                if host is None:
                    host, length, forwarded = self._cached_block(block)
            if host is not None and minor == b"1" and target[0] == _SLASH and method != b"CONNECT":
                rare_fields = NO_RARE_FIELDS
                if forwarded is not None:
                    wire = f.remove_lines(wire, [field.line for field in forwarded])
                    rare_fields = rare_forwarded_fields(forwarded)
                return RequestHead(method, target, 1, host, wire, length, True, rare_fields)
            lines = head[start:].split(b"\r\n")
            lines.pop()
            if len(lines) > MAX_REQUEST_FIELDS:
                raise RequestError(431, "too many header fields")
            fields = validate_fields(lines, self._line_cache.special_fields(lines))
        except f.FieldError as error:
            raise RequestError(400, str(error)) from None
        block = f.remove_lines(head, fields.dropped)[start:]
        return build_request_head(method, target, int(minor), block, fields)

    def _fast_path(self, lines: list[bytes]) -> _FastPath:
        """
        The values of Host and Content-Length, and the X-Forwarded fields, if
        beside them and credentials all fields are plain; otherwise no host.
        `lines` ends with an empty one.
        """
        memory = self._line_cache
        plain = memory.plain
        host: bytes | None = None
        forwarded: list[f.Field] | None = None
        length = -1
        lines.pop()
        if len(lines) >= MAX_REQUEST_FIELDS:
            # Connection may have been there as well; those who count all know.
            return _SLOW_PATH
        for line in lines:
            if line in plain:
                continue
            if line[:16] == b"Content-Length: " and length < 0:
                value = line[16:]
                if not value.isdigit() or len(value) >= MAX_LENGTH_DIGITS:
                    return _SLOW_PATH
                length = int(value)
                continue
            field = memory.special.get(line) or memory.classify(line)
            if field is None or field.kind == f.CREDENTIAL:
                continue
            if field.kind in _FORWARDED:
                if forwarded is None:
                    forwarded = []
                forwarded.append(field)
                continue
            if field.kind != f.HOST or host is not None:
                return _SLOW_PATH
            host = field.value
        return host, max(length, 0), forwarded

    def _cached_block(self, block: bytes) -> _FastPath:
        """As `_fast_path` for a block of lines, which is remembered if it may be."""
        host = self._older_blocks.get(block)
        if host is None:
            lines = block.split(b"\r\n")
            # A block with a line that was never seen before will hardly be
            # seen again, and one with a length or credentials is not kept.
            known = self._line_cache.contains_all(lines[:-1])
            host, length, forwarded = self._fast_path(lines)
            if host is None or not known or len(block) > self.MAX_CACHED_BLOCK_LENGTH:
                return host, length, forwarded
        if len(self._blocks) >= self.MAX_CACHED_BLOCKS:
            self._older_blocks, self._blocks = self._blocks, {}
        self._blocks[block] = host
        return host, 0, None


def _request_line_error(head: bytes) -> RequestError:
    line = head.partition(b"\r\n")[0]
    if len(line) > MAX_REQUEST_LINE:
        return RequestError(414, "the request target is too long")
    parts = line.split(b" ")
    version = parts[-1]
    if (
        len(parts) == 3
        and TOKEN.fullmatch(parts[0])
        and len(version) == 8
        and version.startswith(b"HTTP/")
        and version[6:7] == b"."
        and (version[5:6] + version[7:8]).isdigit()
        and version[5:6] != b"1"
    ):
        return RequestError(505, "an HTTP version other than 1.0 and 1.1")
    return RequestError(400, "a malformed request line")


def check_partial_head(data: bytes, checked: int) -> int:
    """
    Check the lines of a head that is not complete, from `checked` on.

    What is no head now never becomes one; waiting for its end would only hide
    that. Returns how far the lines have been checked, for the next time.
    Raises `RequestError`.
    """
    last = data.rfind(b"\r\n")
    end = last + 2 if last >= 0 else 0
    if checked == 0:
        start = 2 if data.startswith(b"\r\n") else 0
        if not _HEAD_START.match(data, start):
            raise RequestError(400, "a malformed request line")
        if end <= start:
            line_end = len(data)
        else:
            line_end = data.index(b"\r\n", start)
            if REQUEST_LINE.match(data, start) is None and line_end <= MAX_REQUEST_LINE:
                raise _request_line_error(data[start:])
            checked = line_end + 2
        if line_end - start > MAX_REQUEST_LINE:
            raise RequestError(414, "the request target is too long")
    if len(data) > MAX_REQUEST_HEAD:
        raise RequestError(431, "the request head is too large")
    if checked and end > checked:
        for line in data[checked : end - 2].split(b"\r\n"):
            if FIELD_LINE.fullmatch(line) is None:
                raise RequestError(400, "a malformed field line")
        checked = end
    if b"\n" in data[max(checked, end) :]:
        raise RequestError(400, "a bare LF")
    return checked
