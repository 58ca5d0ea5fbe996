"""What a proxy adds to a request on its way to a server."""

from __future__ import annotations

from balancebeam.core.settings import ForwardingSettings
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.forwarded import encode_forwarded_element
from balancebeam.protocols.http1.request_rules import RequestHead


def build_default_forwarded_fields(peer: bytes, proto: bytes, host: bytes) -> bytes:
    """
    The end of a request's head when nothing came that it builds upon.

    `peer` is the client's address as text, `proto` is "http" or "https".
    The same for all requests of one client to one host, so doors keep it.
    """
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b"Via: 1.1 balancebeam\r\n\r\n" % (peer, proto, host)
    )


def build_forwarded_fields(
    head: RequestHead,
    peer: bytes,
    proto: bytes,
    host: bytes,
    trusted: bool,
    settings: ForwardingSettings = ForwardingSettings(),
    received_forwarded: bytes = b"",
) -> bytes:
    """
    The end of a request's head in all other cases.

    `host` stands for the Host field of a request that has none. `trusted`:
    the peer is a proxy whose X-Forwarded-Proto and -Host are believed.
    `received_forwarded` is the value of Forwarded that is to be continued.
    """
    rare_fields = head.rare_fields
    # Several lines are one list (RFC 9110, 5.3), and the peer ends it.
    chain = b"%b, %b" % (rare_fields.forwarded_for, peer) if rare_fields.forwarded_for else peer
    lines = []
    if head.host is None:
        # RFC 9112, 3.2: every HTTP/1.1 request has one.
        lines.append(b"Host: " + host)
    else:
        host = head.host
    if settings.forwarded:
        element = encode_forwarded_element(peer, host, proto)
        lines.append(
            b"Forwarded: "
            + (b"%b, %b" % (received_forwarded, element) if received_forwarded else element)
        )
    if trusted:
        proto = rare_fields.forwarded_proto or proto
        host = rare_fields.forwarded_host or host
    if settings.x_forwarded:
        lines += [
            b"X-Forwarded-For: " + chain,
            b"X-Forwarded-Proto: " + proto,
            b"X-Forwarded-Host: " + host,
        ]
    lines.append(b"Via: 1.%d balancebeam" % head.minor)
    options = []
    if rare_fields.upgrade:
        lines.append(b"Upgrade: " + rare_fields.upgrade)
        options.append(b"upgrade")
    if rare_fields.accepts_trailers:
        # RFC 9110, 10.1.4: a sender of TE MUST also send a "TE" connection option.
        lines.append(b"TE: trailers")
        options.append(b"TE")
    if options:
        lines.append(b"Connection: " + b", ".join(options))
    if head.length == CHUNKED:
        lines.append(b"Transfer-Encoding: chunked")
    return b"\r\n".join(lines) + b"\r\n\r\n"
