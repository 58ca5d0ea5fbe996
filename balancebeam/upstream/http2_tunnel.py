"""WebSockets to HTTP/2 servers: the upgrade of HTTP/1.1 as extended CONNECT (RFC 8441)."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha1

from attrs import evolve

from balancebeam.protocols.http1.response_head import ResponseHead

WEBSOCKET = b"websocket"

# RFC 6455, 1.3: appended to the key of the client, whose hash proves that the server has read it.
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def switching_protocols(head: ResponseHead, key: bytes) -> ResponseHead:
    """
    Return the 101 response for the response that has accepted an extended CONNECT.

    Args:
        head: The response of the server, with a status of 2xx.
        key: The value of Sec-WebSocket-Key of the client; empty without it.
    """
    lines = head.forward_bytes.split(b"\r\n")
    lines[0] = b"HTTP/1.1 101 Switching Protocols"
    if key:
        accept = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
        lines.insert(-1, b"Sec-WebSocket-Accept: " + accept)
    return evolve(
        head,
        status=101,
        forward_bytes=b"\r\n".join(lines),
        length=0,
        needs_no_added_fields=False,
        upgrade=WEBSOCKET,
    )
