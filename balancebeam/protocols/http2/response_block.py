"""
Header blocks of responses: the head of an HTTP/1.1 response, encoded for any connection.

The encoder has no dynamic table, so blocks belong to no connection and are memoised: whole heads,
which repeat until their Date or Content-Length changes, and the lines of all other heads.
Credentials are in neither memo.
"""

from __future__ import annotations

from collections.abc import Iterable

from balancebeam.protocols.http1.local_reply import http_date
from balancebeam.protocols.http1.response_head import ResponseHead
from balancebeam.protocols.http2.hpack import SENSITIVE_NAMES
from balancebeam.protocols.http2.hpack_encoder import encode_field, encode_fields

DEFAULT_VIA = b"balancebeam"

# Bounds of the memos, 1 MiB and about 2 MiB at most. Most heads have a Date that has passed.
MAX_HEADS = 512
MAX_HEAD_LENGTH = 2048
MAX_LINES = 4096
MAX_LINE_LENGTH = 512

# RFC 9113, 8.2.2: connection-specific fields, which HTTP/2 does not have. `ResponseHeadParser`
# removes them from heads that it forwards; the ones of a 101 response are left.
_NOT_FORWARDED = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"),
        # RFC 8441, 5: "Sec-WebSocket-Key and Sec-WebSocket-Accept [...] are not used".
        b"sec-websocket-accept",
    )
)


class ResponseEncoder:
    """
    Encodes the heads of responses, and memoises what servers repeat.

    Attributes:
        heads: Header blocks by `ResponseHead.forward_bytes`, of heads to which only the default
            Via is added. Hot paths look into it themselves; they do not change it.
    """

    __slots__ = ("_lines", "heads")

    def __init__(self) -> None:
        self.heads: dict[bytes, bytes] = {}
        self._lines: dict[bytes, bytes] = {}

    def encode_head(self, head: ResponseHead, via: bytes, now: float) -> bytes:
        """
        Encode the head of a final response.

        Args:
            head: The head as received from the server.
            via: The name of this proxy in Via; empty to add none.
            now: The time in seconds since the epoch, for a missing Date.
        """
        block, memoisable = self._encode_lines(head.status, head.forward_bytes)
        if not head.has_date:
            # RFC 9110, 6.6.1: a recipient with a clock "MUST record the time it was received
            # and append a corresponding Date header field".
            block += encode_field(b"date", http_date(now))
        if via:
            block += encode_field(b"via", b"1.%d %b" % (head.minor, via))
        if memoisable and head.needs_no_added_fields and via == DEFAULT_VIA:
            if len(self.heads) >= MAX_HEADS:
                self.heads.clear()
            if len(head.forward_bytes) <= MAX_HEAD_LENGTH:
                self.heads[head.forward_bytes] = block
        return block

    def encode_informational(self, head: ResponseHead) -> bytes:
        """Encode the head of a 1xx response."""
        return self._encode_lines(head.status, head.forward_bytes)[0]

    def encode_tunnel_head(self, head: ResponseHead, via: bytes) -> bytes:
        """
        Encode the response that accepts a WebSocket.

        RFC 8441, 5: the status is 200 instead of 101.
        """
        block = self._encode_lines(200, head.forward_bytes)[0]
        return block + encode_field(b"via", b"1.%d %b" % (head.minor, via)) if via else block

    def _encode_lines(self, status: int, forward_bytes: bytes) -> tuple[bytes, bool]:
        """Encode a status and field lines; return also whether no line has a credential."""
        known = self._lines
        lines = forward_bytes.split(b"\r\n")
        parts = [encode_field(b":status", b"%d" % status)]
        memoisable = True
        for line in lines[1:-1]:
            part = known.get(line)
            if part is None:
                name, part = _encode_line(line)
                if name in SENSITIVE_NAMES:
                    memoisable = False
                elif len(line) <= MAX_LINE_LENGTH:
                    if len(known) >= MAX_LINES:
                        known.clear()
                    known[line] = part
            parts.append(part)
        return b"".join(parts), memoisable


def encode_local_reply(status: int, fields: Iterable[tuple[bytes, bytes]], now: float) -> bytes:
    """
    Encode the head of a response that the proxy makes itself.

    Args:
        status: The status code.
        fields: Names, in any case, and values.
        now: The time in seconds since the epoch.
    """
    return encode_fields(
        [
            (b":status", b"%d" % status),
            (b"date", http_date(now)),
            *((name.lower(), value) for name, value in fields),
        ]
    )


def encode_trailers(trailers: bytes) -> bytes:
    """Encode field lines, each ended by CRLF, as a trailer section; empty if none remains."""
    return b"".join([_encode_line(line)[1] for line in trailers.split(b"\r\n")[:-1]])


def _encode_line(line: bytes) -> tuple[bytes, bytes]:
    """Return the name of a valid field line, and the line encoded; nothing if not forwarded."""
    name, _, value = line.partition(b":")
    name = name.lower()
    if name in _NOT_FORWARDED:
        return name, b""
    return name, encode_field(name, value.strip(b" \t"))
