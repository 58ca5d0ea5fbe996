"""
Header blocks of requests: the head of an HTTP/1.1 request, encoded for any connection.

The encoder has no dynamic table, so blocks belong to no connection. The request line and the
fields are memoised apart: the target often differs where the fields are the same. Credentials are
in neither memo.
"""

from __future__ import annotations

from balancebeam.protocols.http2.hpack import SENSITIVE_NAMES
from balancebeam.protocols.http2.hpack_encoder import encode_field

# Bounds of each memo: 1 MiB of keys, and about as much of blocks.
MAX_ENTRIES = 1024
MAX_LENGTH = 1024

# RFC 9113, 8.2.2: connection-specific fields. TE is forwarded if its value is "trailers".
_NOT_FORWARDED = frozenset(
    (
        *(b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"),
        *(b"http2-settings", b"te"),
    )
)

# RFC 8441, 5: "Sec-WebSocket-Key and Sec-WebSocket-Accept [...] are not used".
_KEY = b"sec-websocket-key"


class RequestEncoder:
    """
    Encodes the heads of requests to the servers of one pool.

    Args:
        secure: Whether the connections use TLS, for `:scheme`.
    """

    __slots__ = ("_fields", "_lines", "_request_lines", "_scheme")

    def __init__(self, secure: bool) -> None:
        self._scheme = b"https" if secure else b"http"
        self._request_lines: dict[bytes, bytes] = {}
        self._fields: dict[bytes, bytes] = {}
        self._lines: dict[bytes, bytes] = {}

    def encode(self, head: bytes) -> bytes:
        """
        Encode a complete head.

        Args:
            head: The request line, with a target in origin form or "*", and the field lines, each
                ended by CRLF, with the empty line.
        """
        end = head.index(b"\r\n")
        line, fields = head[:end], head[end:]
        first = self._request_lines.get(line)
        if first is None:
            method, target, _ = line.split(b" ")
            first = self._pseudo_fields(method, target)
            _remember(self._request_lines, line, first)
        return first + (self._fields.get(fields) or self._encode_fields(fields))

    def encode_connect(self, head: bytes, protocol: bytes) -> tuple[bytes, bytes]:
        """
        Encode a request for an upgrade as extended CONNECT (RFC 8441).

        Args:
            head: See `encode`.
            protocol: The value for `:protocol`.

        Returns:
            The header block, and the value of Sec-WebSocket-Key; empty without that.
        """
        line, _, fields = head.partition(b"\r\n")
        target = line.split(b" ")[1]
        key = b""
        kept = []
        for text in fields.split(b"\r\n"):
            name, _, value = text.partition(b":")
            if name.lower() == _KEY:
                key = value.strip(b" \t")
            else:
                kept.append(text)
        block = self._pseudo_fields(b"CONNECT", target) + encode_field(b":protocol", protocol)
        return block + self._encode_fields(b"\r\n" + b"\r\n".join(kept)), key

    def _pseudo_fields(self, method: bytes, target: bytes) -> bytes:
        return (
            encode_field(b":method", method)
            + encode_field(b":scheme", self._scheme)
            + encode_field(b":path", target)
        )

    def _encode_fields(self, fields: bytes) -> bytes:
        """Encode field lines, with Host as `:authority` before the others."""
        known = self._lines
        authority = b""
        parts = []
        memoisable = True
        for line in fields.split(b"\r\n"):
            part = known.get(line)
            if part is None:
                if not line:
                    continue
                name, _, value = line.partition(b":")
                name, value = name.lower(), value.strip(b" \t")
                if name == b"host":
                    authority = encode_field(b":authority", value)
                    continue
                part = _encode_field(name, value)
                if name in SENSITIVE_NAMES:
                    memoisable = False
                else:
                    _remember(known, line, part)
            parts.append(part)
        block = authority + b"".join(parts)
        if memoisable:
            _remember(self._fields, fields, block)
        return block


def _encode_field(name: bytes, value: bytes) -> bytes:
    """Encode a field; return nothing for one that is not forwarded."""
    if name in _NOT_FORWARDED and (name != b"te" or value.lower() != b"trailers"):
        return b""
    return encode_field(name, value)


def _remember(memo: dict[bytes, bytes], key: bytes, block: bytes) -> None:
    """Add an entry to a memo unless it is long; a full memo is emptied first."""
    if len(key) <= MAX_LENGTH:
        if len(memo) >= MAX_ENTRIES:
            memo.clear()
        memo[key] = block
