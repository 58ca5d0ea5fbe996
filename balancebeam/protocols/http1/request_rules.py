"""
The rules for request heads (RFC 9110 and RFC 9112), applied strictly.

`validate_fields` combines the special fields of a head, `build_request_head` joins
them with the request line. Both reject what could be interpreted in more than one
way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import define, evolve, frozen
from attrs import field as attrs_field

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.body import CHUNKED
from balancebeam.protocols.http1.grammar import TOKEN, list_items, parse_content_length
from balancebeam.protocols.http1.request_target import parse_target

# RFC 9110, 7.6.1: fields that Connection names are removed, but a sender MUST NOT
# name "a field that is intended for all recipients of the content". Removing the
# framing or Host would change the message, removing Forwarded would hide the client.
_NEVER_HOP_BY_HOP = frozenset((b"host", b"content-length", b"transfer-encoding", b"forwarded"))


@frozen
class RareFields:
    """
    What only some requests have.

    Attributes:
        forwarded_for: X-Forwarded-For, all lines joined to one list.
        forwarded_proto: X-Forwarded-Proto, likewise.
        forwarded_host: X-Forwarded-Host, likewise.
        upgrade: The protocols of Upgrade that may be offered to a server.
        expects_continue: Expect: 100-continue was sent.
        accepts_trailers: TE: trailers was sent.
        max_forwards: The values of Max-Forwards, not validated.
        client_cert: The lines of Client-Cert and Client-Cert-Chain, as received.
    """

    forwarded_for: bytes = b""
    forwarded_proto: bytes = b""
    forwarded_host: bytes = b""
    upgrade: bytes = b""
    expects_continue: bool = False
    accepts_trailers: bool = False
    max_forwards: tuple[bytes, ...] = ()
    client_cert: tuple[bytes, ...] = ()


NO_RARE_FIELDS = RareFields()


class RequestFields(NamedTuple):
    """
    A validated block of field lines.

    Attributes:
        host: The value of Host, or `None` without one.
        dropped: The lines that are not forwarded.
        length: The Content-Length in bytes, or `None` without one.
        chunked: The body is in chunked transfer coding.
        keep_alive: Connection has the option keep-alive.
        close: Connection has the option close.
        rare_fields: The other fields that matter.
    """

    host: bytes | None
    dropped: Sequence[bytes]
    length: int | None
    chunked: bool
    keep_alive: bool
    close: bool
    rare_fields: RareFields


@define
class RequestHead:
    """
    The head of one request.

    Not frozen: that would cost half a microsecond per request.

    Attributes:
        method: The method, as received.
        target: The target to forward, in origin-form or "*".
        minor: The minor version, 0 or 1.
        host: The host and port that the client addressed, or `None`, which only
            HTTP/1.0 allows.
        forward_bytes: The request line and the fields to forward, each ended by
            CRLF. The proxy's own fields and the empty line have to be appended.
        length: The length of the body in bytes, 0 without a body, or `CHUNKED`.
        persistent: The connection may carry another request after this one.
        rare_fields: What only some requests have.
        max_forwards_exhausted: Max-Forwards is 0: the request is not forwarded.
        repeated_block: The field lines, if other requests had the same before: without
            credentials and lengths. A key for what is derived from fields; otherwise `None`.
    """

    method: bytes
    target: bytes
    minor: int
    host: bytes | None
    forward_bytes: bytes
    length: int
    persistent: bool
    rare_fields: RareFields
    max_forwards_exhausted: bool = False
    repeated_block: bytes | None = attrs_field(default=None, eq=False, repr=False)


def validate_fields(lines: list[bytes], special_fields: list[f.Field]) -> RequestFields:
    """
    Validate the special fields of one head together.

    Args:
        lines: All field lines of the head.
        special_fields: The special fields among them, in order.

    Raises:
        RequestError: They could be interpreted in more than one way, or they
            require something that the proxy does not support.
    """
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    dropped: list[bytes] = []
    rare: list[f.Field] = []
    for field in special_fields:
        kind = field.kind
        if kind is f.HOST:
            hosts.append(field.value)
        elif kind is f.CONNECTION:
            options += list_items(field.value)
            dropped.append(field.line)
        elif kind is f.CONTENT_LENGTH:
            lengths.append(field.value)
        elif kind is f.TRANSFER_ENCODING:
            codings.append(field.value)
            dropped.append(field.line)
        elif kind is not f.CREDENTIAL:
            rare.append(field)
    host = _check_host(hosts)
    length = _check_length(lengths)
    chunked = _check_codings(codings, length)
    rare_fields = NO_RARE_FIELDS
    if rare:
        rare_fields = _parse_rare_fields(rare, options, dropped)
        if rare_fields.upgrade and (chunked or length):
            # Servers differ in whether the new protocol begins before or after
            # the body.
            rare_fields = evolve(rare_fields, upgrade=b"")
    if options:
        dropped += _connection_named_lines(lines, options, dropped)
    keep_alive, close = b"keep-alive" in options, b"close" in options
    return RequestFields(host, dropped, length, chunked, keep_alive, close, rare_fields)


def _check_host(hosts: list[bytes]) -> bytes | None:
    """Return the value of Host, of which there may be one."""
    if not hosts:
        return None
    # RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status
    # code to any HTTP/1.1 request message that lacks a Host header field and
    # to any request message that contains more than one Host header field
    # line [...]."
    if len(hosts) > 1:
        raise RequestError(400, "more than one Host header")
    return hosts[0]


def _check_length(lengths: list[bytes]) -> int | None:
    """Return the Content-Length, of which there may be one."""
    if not lengths:
        return None
    # RFC 9110, 8.6 allows a recipient to accept repeated equal values. Some
    # recipients interpret such a list differently, so it is rejected.
    length = parse_content_length(lengths[0]) if len(lengths) == 1 else None
    if length is None:
        raise RequestError(400, "invalid Content-Length: expected one number below 2^63")
    return length


def _check_codings(codings: list[bytes], length: int | None) -> bool:
    """Whether the body is chunked; other transfer codings are rejected."""
    if not codings:
        return False
    # RFC 9112, 6.1: a request with both fields "might indicate an attempt to
    # perform request smuggling"; it is rejected rather than repaired.
    if length is not None:
        raise RequestError(400, "both Content-Length and Transfer-Encoding")
    if len(codings) > 1 or codings[0].lower() != b"chunked":
        *foreign, last = (name.strip(b" \t") for name in b",".join(codings).lower().split(b","))
        if (
            foreign
            and last == b"chunked"
            and b"chunked" not in foreign
            and all(TOKEN.fullmatch(name) for name in foreign)
        ):
            # RFC 9112, 6.1: "A server that receives a request message with a
            # transfer coding it does not understand SHOULD respond with 501".
            raise RequestError(501, "unsupported transfer coding: expected chunked")
        raise RequestError(400, "invalid Transfer-Encoding")
    return True


def _connection_named_lines(
    lines: list[bytes], options: list[bytes], dropped: list[bytes]
) -> list[bytes]:
    """Return the lines whose fields Connection names, without the lines dropped already."""
    names = set(options) - _NEVER_HOP_BY_HOP - {b"keep-alive", b"close"}
    if not names:
        return []
    already_dropped = list(dropped)
    named = []
    for line in lines:
        if line in already_dropped:
            already_dropped.remove(line)
        elif line.partition(b":")[0].lower() in names:
            named.append(line)
    return named


def _parse_rare_fields(
    rare: list[f.Field], options: list[bytes], dropped: list[bytes]
) -> RareFields:
    """
    Interpret the rare fields of a head.

    Args:
        rare: The special fields that are neither Host, framing, Connection nor
            credentials.
        options: The connection options.
        dropped: The lines that are not forwarded; the hop-by-hop, X-Forwarded and
            Client-Cert fields among `rare` are added.
    """
    values: dict[f.FieldKind, list[bytes]] = {}
    for field in rare:
        values.setdefault(field.kind, []).append(field.value)
        if field.kind not in (f.EXPECT, f.TRAILER, f.MAX_FORWARDS):
            dropped.append(field.line)
    expectations = list_items(b",".join(values.get(f.EXPECT, [])))
    if any(expectation != b"100-continue" for expectation in expectations):
        raise RequestError(417, "unsupported expectation: expected 100-continue")
    upgrade = b""
    if f.UPGRADE in values and b"upgrade" in options:
        offers = [offer.strip(b" \t") for offer in b",".join(values[f.UPGRADE]).split(b",")]
        # RFC 9113, 3.1 deprecates h2c; in a tunnel it would bypass the checks of
        # every later request.
        upgrade = b", ".join(offer for offer in offers if offer and offer.lower() != b"h2c")
    forwarded_for = [value for value in values.get(f.FORWARDED_FOR, []) if value]
    return RareFields(
        forwarded_for=b", ".join(forwarded_for),
        forwarded_proto=b", ".join(values.get(f.FORWARDED_PROTO, [])),
        forwarded_host=b", ".join(values.get(f.FORWARDED_HOST, [])),
        upgrade=upgrade,
        expects_continue=bool(expectations),
        accepts_trailers=b"trailers" in list_items(b",".join(values.get(f.TE, []))),
        max_forwards=tuple(values.get(f.MAX_FORWARDS, ())),
        client_cert=tuple(field.line for field in rare if field.kind is f.CLIENT_CERT),
    )


def rare_forwarded_fields(fields: list[f.Field]) -> RareFields:
    """Return the rare fields of a head whose only rare fields are these X-Forwarded fields."""
    values: dict[f.FieldKind, list[bytes]] = {}
    for field in fields:
        values.setdefault(field.kind, []).append(field.value)
    return RareFields(
        forwarded_for=b", ".join(value for value in values.get(f.FORWARDED_FOR, ()) if value),
        forwarded_proto=b", ".join(values.get(f.FORWARDED_PROTO, ())),
        forwarded_host=b", ".join(values.get(f.FORWARDED_HOST, ())),
    )


def _parse_max_forwards(values: Sequence[bytes]) -> int:
    """Return the value of Max-Forwards, 10^9 at most."""
    if len(values) > 1 or not values[0].isdigit():
        raise RequestError(400, "invalid Max-Forwards")
    # RFC 9110, 7.6.2: the forwarded value is the lesser of the value less one
    # and "the recipient's maximum supported value for Max-Forwards".
    return int(values[0]) if len(values[0]) < 10 else 10**9


def build_request_head(
    method: bytes,
    target: bytes,
    minor: int,
    block: bytes,
    fields: RequestFields,
    secure: bool = False,
) -> RequestHead:
    """
    Build the head of a request from its request line and its validated fields.

    Args:
        method: The method.
        target: The request target as received.
        minor: The minor version as received, 0 to 9.
        block: The field lines without the dropped ones, each ended by CRLF.
        fields: The validated fields.
        secure: The connection uses TLS.

    Raises:
        RequestError: The request line and the fields do not fit together.
    """
    host, _, length, chunked, keep_alive, close, rare_fields = fields
    if minor >= 1 and host is None:
        raise RequestError(400, "missing Host header")
    if minor == 0 and chunked:
        # RFC 9112, 6.1: "A server or client that receives an HTTP/1.0 message
        # containing a Transfer-Encoding header field MUST treat the message as
        # if the framing is faulty".
        raise RequestError(400, "Transfer-Encoding in an HTTP/1.0 request")
    target, authority = parse_target(method, target, host, secure)
    if host is None and authority is not None:
        # RFC 9112, 3.2: "A client MUST send a Host header field [...] in all
        # HTTP/1.1 request messages."
        block += b"Host: %b\r\n" % authority
    host = authority
    if minor == 0 and rare_fields.expects_continue:
        # RFC 9110, 10.1.1: "A server that receives a 100-continue expectation
        # in an HTTP/1.0 request MUST ignore that expectation."
        block = _remove_field(block, b"expect")
        rare_fields = evolve(rare_fields, expects_continue=False)
    if minor == 0 and rare_fields.upgrade:
        # RFC 9110, 7.8: "A server MUST ignore an Upgrade header field that is
        # received in an HTTP/1.0 request."
        rare_fields = evolve(rare_fields, upgrade=b"")
    max_forwards_exhausted = False
    if rare_fields.max_forwards and method in (b"TRACE", b"OPTIONS"):
        # RFC 9110, 7.6.2: for these methods a proxy MUST count down; for others
        # it may ignore the field, which is forwarded unchanged.
        max_forwards = _parse_max_forwards(rare_fields.max_forwards)
        max_forwards_exhausted = max_forwards == 0
        block = _remove_field(block, b"max-forwards")
        block += b"Max-Forwards: %d\r\n" % max(max_forwards - 1, 0)
    forward_bytes = b"%b %b HTTP/1.1\r\n%b" % (method, target, block)
    persistent = not close and (minor >= 1 or keep_alive)
    return RequestHead(
        method,
        target,
        min(minor, 1),
        host,
        forward_bytes,
        CHUNKED if chunked else length or 0,
        persistent,
        rare_fields,
        max_forwards_exhausted,
    )


def _remove_field(block: bytes, name: bytes) -> bytes:
    """Remove the field lines with exactly this lower-case name."""
    lines = block.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() != name)
