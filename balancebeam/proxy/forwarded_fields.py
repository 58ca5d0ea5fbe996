"""
The fields that the balancer adds to a request.

X-Forwarded-*, Forwarded, Client-Cert, Via, Host and TE.
"""

from __future__ import annotations

from base64 import b64encode

from balancebeam.core.settings import ForwardingSettings
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.forwarded import encode_forwarded_element
from balancebeam.protocols.http1.request_rules import RequestHead


def encode_client_cert(certificate: bytes) -> bytes:
    """
    Return the Client-Cert line for a certificate in DER, ended by CRLF.

    RFC 9440, 2.1: the value is a byte sequence (RFC 8941, 3.3.5), which is base64 between
    colons.
    """
    return b"Client-Cert: :%b:\r\n" % b64encode(certificate)


def build_default_forwarded_fields(
    peer: bytes, proto: bytes, host: bytes, client_cert: bytes = b"", version: bytes = b"1.1"
) -> bytes:
    """
    The end of a request's head, for HTTP/1.1 requests without rare fields.

    It is the same for all requests of one client to one host, so the `Forwarder` of
    a connection caches it.

    Args:
        peer: The client's address as text.
        proto: "http" or "https".
        host: The value of the Host field.
        client_cert: The Client-Cert line, ended by CRLF; empty without a certificate.
        version: The HTTP version of the client, for Via.
    """
    return (
        b"X-Forwarded-For: %b\r\nX-Forwarded-Proto: %b\r\nX-Forwarded-Host: %b\r\n"
        b"%bVia: %b balancebeam\r\n\r\n" % (peer, proto, host, client_cert, version)
    )


def build_forwarded_fields(
    head: RequestHead,
    peer: bytes,
    proto: bytes,
    host: bytes,
    trusted: bool,
    settings: ForwardingSettings = ForwardingSettings(),
    received_forwarded: bytes = b"",
    client_cert: bytes = b"",
    version: bytes = b"",
) -> bytes:
    """
    The end of a request's head in all other cases.

    Args:
        head: The head of the request.
        peer: The peer's address as text.
        proto: "http" or "https", the scheme of the peer's request.
        host: The value for a missing Host field.
        trusted: Whether the peer is a trusted proxy, whose X-Forwarded-Proto,
            X-Forwarded-Host, Client-Cert and Client-Cert-Chain are forwarded.
        settings: Which fields are sent.
        received_forwarded: The value of Forwarded to which an element is appended.
        client_cert: The Client-Cert line for the peer's own certificate, ended by CRLF;
            empty without a certificate.
        version: The HTTP version of the client, for Via; empty for the version in `head`.
    """
    rare_fields = head.rare_fields
    # Several field lines are one list (RFC 9110, 5.3); the peer is appended to it.
    chain = b"%b, %b" % (rare_fields.forwarded_for, peer) if rare_fields.forwarded_for else peer
    lines = []
    if head.host is None:
        # RFC 9112, 3.2: "A client MUST send a Host header field [...] in all HTTP/1.1
        # request messages". An HTTP/1.0 client may omit it.
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
    if trusted and rare_fields.client_cert:
        # Never mixed: a chain from the proxy does not belong to the proxy's own certificate.
        lines += rare_fields.client_cert
    elif client_cert:
        lines.append(client_cert[:-2])
    if settings.via:
        lines.append(b"Via: %b %b" % (version or b"1.%d" % head.minor, settings.via_name))
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
    lines.append(b"\r\n")
    return b"\r\n".join(lines)
