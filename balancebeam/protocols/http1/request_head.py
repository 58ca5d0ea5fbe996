"""
Request heads: each is parsed in exactly one way, or rejected.

`RequestHeadParser.parse` is a pure function of the bytes; its caches only make it
faster. The stages, with their times for five field lines (CPython 3.11):

1. Request line: one pattern, or `_request_line_error` for the status to reject with.
2. Block cache, 1 µs: the same block of field lines was parsed before.
3. Line cache, 4 µs, or 8 µs with X-Forwarded fields: every line is plain, a
   credential, Host, Content-Length or X-Forwarded.
4. Rules, 11 µs: `request_rules` validates the special fields of any other head and
   builds the request.

`check_partial_head` rejects an invalid head before its end has been received.
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

# RFC 9112, 3 recommends at least 8,000 octets for a request line. This allows for
# a target of 8 KiB, nginx's limit for the line (large_client_header_buffers).
MAX_REQUEST_LINE = 8 * 1024 + 256
# nginx has 32 KiB for all lines (large_client_header_buffers 4 8k).
MAX_REQUEST_HEAD = 32 * 1024
# Apache has 100 (LimitRequestFields), HAProxy 101 (tune.http.maxhdr).
MAX_REQUEST_FIELDS = 128

_SLASH = ord("/")
# What a head may begin with: nothing yet, part of an empty line, or a method.
_HEAD_START = re.compile(rb"\r?\Z|" + TOKEN.pattern)

# Fields that a proxy in front of this one adds to every request.
_FORWARDED = (f.FORWARDED_FOR, f.FORWARDED_PROTO, f.FORWARDED_HOST)
_KEEP_ALIVE = b"\r\nConnection: keep-alive\r\n"
_CLOSE = b"\r\nConnection: close\r\n"

# Host, Content-Length and X-Forwarded fields; no host: the rules have to decide.
_FastPath = tuple[Optional[bytes], int, Optional[list[f.Field]]]
_SLOW_PATH = (None, 0, None)


class RequestHeadParser:
    """
    Parses request heads, and caches what clients repeat.

    Besides field lines, whole blocks of them are cached: blocks in which only Host
    is special, so that the host is all that has to be known.

    Attributes:
        MAX_CACHED_BLOCKS: Blocks of one generation; there are two.
        MAX_CACHED_BLOCK_LENGTH: Length in bytes of the longest block that is
            cached. All blocks together take 2 MiB at most.
    """

    MAX_CACHED_BLOCKS = 512
    MAX_CACHED_BLOCK_LENGTH = 2048

    def __init__(self, secure: bool = False) -> None:
        """
        Create a parser with empty caches.

        Args:
            secure: The requests are received over TLS, so that the scheme of a target
                may be https.
        """
        self._secure = secure
        self._line_cache = f.FieldLineCache(f.REQUEST_KINDS)
        self._blocks: dict[bytes, bytes] = {}
        self._older_blocks: dict[bytes, bytes] = {}

    def parse(self, head: bytes) -> RequestHead:
        """
        Parse a complete request head.

        Args:
            head: The request line and the field lines, each ended by CRLF, without
                the empty line.

        Raises:
            RequestError: The request has to be rejected.
        """
        match = REQUEST_LINE.match(head)
        if match is None:
            raise _request_line_error(head)
        method, target, minor = match.groups()
        start = match.end()
        if start > MAX_REQUEST_LINE:
            raise RequestError(414, "request target too long")
        # Browsers send it with every request; in HTTP/1.1 it changes nothing.
        forward_bytes = head.replace(_KEEP_ALIVE, b"\r\n", 1)
        block = forward_bytes[start:]
        persistent, repeated_block = True, None
        try:
            length, forwarded = 0, None
            if len(forward_bytes) < len(head):
                host, length, forwarded = self._fast_path(block.split(b"\r\n"))
            else:
                host = self._blocks.get(block)
                if host is not None:
                    repeated_block = block
                elif _CLOSE in head:
                    persistent = False
                    forward_bytes = head.replace(_CLOSE, b"\r\n", 1)
                    host, length, forwarded = self._fast_path(forward_bytes[start:].split(b"\r\n"))
                else:
                    host, length, forwarded = self._cached_block(block)
            if host is not None and minor == b"1" and target[0] == _SLASH and method != b"CONNECT":
                rare_fields = NO_RARE_FIELDS
                if forwarded is not None:
                    forward_bytes = f.remove_lines(
                        forward_bytes, [field.line for field in forwarded]
                    )
                    rare_fields = rare_forwarded_fields(forwarded)
                return RequestHead(
                    method,
                    target,
                    1,
                    host,
                    forward_bytes,
                    length,
                    persistent,
                    rare_fields,
                    False,
                    repeated_block,
                )
            lines = head[start:].split(b"\r\n")
            lines.pop()
            if len(lines) > MAX_REQUEST_FIELDS:
                raise RequestError(431, "too many headers")
            fields = validate_fields(lines, self._line_cache.special_fields(lines))
        except f.FieldError as error:
            raise RequestError(400, str(error)) from None
        block = f.remove_lines(head, fields.dropped)[start:]
        return build_request_head(method, target, int(minor), block, fields, self._secure)

    def _fast_path(self, lines: list[bytes]) -> _FastPath:
        """
        Interpret a block by its lines alone, if they allow it.

        Args:
            lines: The field lines, and an empty item, which is removed.

        Returns:
            The values of Host and Content-Length (0 without one) and the X-Forwarded
            fields, if all other fields are plain or credentials; otherwise no host.
        """
        cache = self._line_cache
        plain = cache.plain
        host: bytes | None = None
        forwarded: list[f.Field] | None = None
        length = -1
        lines.pop()
        if len(lines) >= MAX_REQUEST_FIELDS:
            # A Connection field may have been removed; the slow path counts all lines.
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
            field = cache.special.get(line) or cache.classify(line)
            if field is None or field.kind is f.CREDENTIAL:
                continue
            if field.kind in _FORWARDED:
                if forwarded is None:
                    forwarded = []
                forwarded.append(field)
                continue
            if field.kind is not f.HOST or host is not None:
                return _SLOW_PATH
            host = field.value
        return host, max(length, 0), forwarded

    def _cached_block(self, block: bytes) -> _FastPath:
        """Interpret a block like `_fast_path`, and cache it if allowed."""
        host = self._older_blocks.get(block)
        if host is None:
            lines = block.split(b"\r\n")
            # A block with a line never seen before will hardly be seen again. Lines
            # with a length or a credential are not in the line cache, so that a
            # block with one of them is not cached either.
            repeated = self._line_cache.contains_all(lines[:-1])
            host, length, forwarded = self._fast_path(lines)
            if host is None or not repeated or len(block) > self.MAX_CACHED_BLOCK_LENGTH:
                return host, length, forwarded
        if len(self._blocks) >= self.MAX_CACHED_BLOCKS:
            self._older_blocks, self._blocks = self._blocks, {}
        self._blocks[block] = host
        return host, 0, None


def _request_line_error(head: bytes) -> RequestError:
    """Return the error for a head whose first line is not a valid request line."""
    line = head.partition(b"\r\n")[0]
    if len(line) > MAX_REQUEST_LINE:
        return RequestError(414, "request target too long")
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
        return RequestError(505, "unsupported HTTP version: expected 1.0 or 1.1")
    return RequestError(400, "invalid request line")


def check_partial_head(data: bytes, checked: int) -> int:
    """
    Check the lines of a head that is not complete.

    An invalid beginning cannot become a valid head, so it is rejected without
    waiting for the end or for a timeout.

    Args:
        data: What has been received of the head.
        checked: The return value of the previous call, at first 0.

    Returns:
        The number of bytes that have been checked.

    Raises:
        RequestError: The head is invalid.
    """
    last = data.rfind(b"\r\n")
    end = last + 2 if last >= 0 else 0
    if checked == 0:
        start = 2 if data.startswith(b"\r\n") else 0
        if not _HEAD_START.match(data, start):
            raise RequestError(400, "invalid request line")
        if end <= start:
            line_end = len(data)
        else:
            line_end = data.index(b"\r\n", start)
            if REQUEST_LINE.match(data, start) is None and line_end <= MAX_REQUEST_LINE:
                raise _request_line_error(data[start:])
            checked = line_end + 2
        if line_end - start > MAX_REQUEST_LINE:
            raise RequestError(414, "request target too long")
    if len(data) > MAX_REQUEST_HEAD:
        raise RequestError(431, "request head too large")
    if checked and end > checked:
        for line in data[checked : end - 2].split(b"\r\n"):
            if FIELD_LINE.fullmatch(line) is None:
                raise RequestError(400, "invalid header line")
        checked = end
    if b"\n" in data[max(checked, end) :]:
        raise RequestError(400, "bare LF in the request head")
    return checked
