"""
The rules for request heads (RFC 9110 and RFC 9112), read strictly.

`validate_fields` combines the special fields of a head, `build_request_head` joins them with
the request line. Both refuse what could be read in more than one way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from attrs import define, evolve, frozen

from balancebeam.core.errors import RequestError
from balancebeam.protocols.http1 import fields as f
from balancebeam.protocols.http1.grammar import (
    ABSOLUTE_TARGET,
    MAX_CONTENT_LENGTH,
    MAX_LENGTH_DIGITS,
    TOKEN,
    is_host,
    list_items,
)

# RFC 9110, 7.6.1: fields that Connection names are removed. These, however,
# are meant for all recipients, and removing them would change what the
# message is; RFC 9110, 7.6.1 forbids to name such fields. Nor may a client
# make forget who it is.
_NEVER_HOP_BY_HOP = frozenset((b"host", b"content-length", b"transfer-encoding", b"forwarded"))


@frozen
class RareFields:
    """What only some requests have; absent from most."""

    forwarded_for: bytes = b""
    forwarded_proto: bytes = b""
    forwarded_host: bytes = b""
    upgrade: bytes = b""
    expects_continue: bool = False
    accepts_trailers: bool = False
    max_forwards: tuple[bytes, ...] = ()


NO_RARE_FIELDS = RareFields()


class RequestFields(NamedTuple):
    """
    A block of field lines, understood.

    `dropped` are the lines that go no further. `length` is the
    Content-Length, `None` without one. `keep_alive` and `close` are the connection
    options of these names.
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
    One request, before its body. Not frozen, because that costs half a microsecond.

    `forward_bytes` is what goes to a server: the request line and the fields that are
    passed on, each ended by CRLF; the end of the head is still to come.
    `host` is whom the client addressed; `None` if it did not say, which only
    HTTP/1.0 allows. `length` is that of the body: 0 for none, -1 for a
    chunked one. `max_forwards_exhausted`: Max-Forwards does not let the request go on.
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


def validate_fields(lines: list[bytes], special_fields: list[f.Field]) -> RequestFields:
    """Combine the special fields of one head, or refuse them."""
    hosts: list[bytes] = []
    lengths: list[bytes] = []
    codings: list[bytes] = []
    options: list[bytes] = []
    dropped: list[bytes] = []
    rare: list[f.Field] = []
    for field in special_fields:
        kind = field.kind
        if kind == f.HOST:
            hosts.append(field.value)
        elif kind == f.CONNECTION:
            options += list_items(field.value)
            dropped.append(field.line)
        elif kind == f.CONTENT_LENGTH:
            lengths.append(field.value)
        elif kind == f.TRANSFER_ENCODING:
            codings.append(field.value)
            dropped.append(field.line)
        elif kind != f.CREDENTIAL:
            rare.append(field)
    host = _check_host(hosts)
    length = _check_length(lengths)
    chunked = _check_codings(codings, length)
    rare_fields = NO_RARE_FIELDS
    if rare:
        rare_fields = _parse_rare_fields(rare, options, dropped)
        if rare_fields.upgrade and (chunked or length):
            # A protocol switch in the middle of a body has no meaning that
            # all servers share.
            rare_fields = evolve(rare_fields, upgrade=b"")
    if options:
        dropped += _connection_named_lines(lines, options, dropped)
    keep, close = b"keep-alive" in options, b"close" in options
    return RequestFields(host, dropped, length, chunked, keep, close, rare_fields)


def _check_host(hosts: list[bytes]) -> bytes | None:
    if not hosts:
        return None
    # RFC 9112, 3.2: "A server MUST respond with a 400 (Bad Request) status
    # code to any HTTP/1.1 request message that lacks a Host header field and
    # to any request message that contains more than one Host header field
    # line [...]."
    if len(hosts) > 1:
        raise RequestError(400, "more than one Host field")
    return hosts[0]


def _check_length(lengths: list[bytes]) -> int | None:
    if not lengths:
        return None
    # RFC 9110, 8.6 allows to accept repeated equal values; a reader that
    # takes the list for something else exists, so one value it must be.
    text = lengths[0]
    if len(lengths) > 1 or not text.isdigit():
        raise RequestError(400, "a malformed Content-Length")
    length = int(text) if len(text) <= MAX_LENGTH_DIGITS else MAX_CONTENT_LENGTH + 1
    if length > MAX_CONTENT_LENGTH:
        raise RequestError(400, "a Content-Length beyond 2^63")
    return length


def _check_codings(codings: list[bytes], length: int | None) -> bool:
    if not codings:
        return False
    # RFC 9112, 6.1: a request with both fields "might indicate an attempt to
    # perform request smuggling"; it is refused rather than repaired.
    if length is not None:
        raise RequestError(400, "Content-Length beside Transfer-Encoding")
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
            raise RequestError(501, "a transfer coding other than chunked")
        raise RequestError(400, "a malformed Transfer-Encoding")
    return True


def _connection_named_lines(
    lines: list[bytes], options: list[bytes], dropped: list[bytes]
) -> list[bytes]:
    """The lines whose fields Connection names, and that are not dropped yet."""
    names = set(options) - _NEVER_HOP_BY_HOP - {b"keep-alive", b"close"}
    if not names:
        return []
    left = list(dropped)
    named = []
    for line in lines:
        if line in left:
            left.remove(line)
        elif line.partition(b":")[0].lower() in names:
            named.append(line)
    return named


def _parse_rare_fields(
    rare: list[f.Field], options: list[bytes], dropped: list[bytes]
) -> RareFields:
    values: dict[int, list[bytes]] = {}
    for field in rare:
        values.setdefault(field.kind, []).append(field.value)
        if field.kind not in (f.EXPECT, f.TRAILER, f.MAX_FORWARDS):
            dropped.append(field.line)
    expectations = list_items(b",".join(values.get(f.EXPECT, [])))
    if any(expectation != b"100-continue" for expectation in expectations):
        raise RequestError(417, "an expectation other than 100-continue")
    upgrade = b""
    if f.UPGRADE in values and b"upgrade" in options:
        offers = [offer.strip(b" \t") for offer in b",".join(values[f.UPGRADE]).split(b",")]
        upgrade = b", ".join(o for o in offers if o and o.lower() != b"h2c")
    forwarded_for = [value for value in values.get(f.FORWARDED_FOR, []) if value]
    return RareFields(
        forwarded_for=b", ".join(forwarded_for),
        forwarded_proto=b", ".join(values.get(f.FORWARDED_PROTO, [])),
        forwarded_host=b", ".join(values.get(f.FORWARDED_HOST, [])),
        upgrade=upgrade,
        expects_continue=bool(expectations),
        accepts_trailers=b"trailers" in list_items(b",".join(values.get(f.TE, []))),
        max_forwards=tuple(values.get(f.MAX_FORWARDS, ())),
    )


def rare_forwarded_fields(fields: list[f.Field]) -> RareFields:
    """The rare fields of a head that has only X-Forwarded fields of what is rare."""
    values: dict[int, list[bytes]] = {}
    for field in fields:
        values.setdefault(field.kind, []).append(field.value)
    return RareFields(
        forwarded_for=b", ".join(value for value in values.get(f.FORWARDED_FOR, ()) if value),
        forwarded_proto=b", ".join(values.get(f.FORWARDED_PROTO, ())),
        forwarded_host=b", ".join(values.get(f.FORWARDED_HOST, ())),
    )


def _parse_max_forwards(values: Sequence[bytes]) -> int:
    if len(values) > 1 or not values[0].isdigit():
        raise RequestError(400, "a malformed Max-Forwards")
    # RFC 9110, 7.6.2: what goes on is the lesser of the value less one "and
    # the recipient's maximum supported value for Max-Forwards".
    return int(values[0]) if len(values[0]) < 10 else 10**9


def build_request_head(
    method: bytes, target: bytes, minor: int, block: bytes, fields: RequestFields
) -> RequestHead:
    """
    The head of any request, from all that is known of it. `block` is what is
    left of its fields.
    """
    host, _, length, chunked, keep, close, rare_fields = fields
    if minor >= 1 and host is None:
        raise RequestError(400, "no Host field")
    if minor == 0 and chunked:
        # RFC 9112, 6.1: "A server or client that receives an HTTP/1.0 message
        # containing a Transfer-Encoding header field MUST treat the message as
        # if the framing is faulty".
        raise RequestError(400, "Transfer-Encoding in HTTP/1.0")
    target, authority = _parse_target(method, target, host)
    if host is None and authority is not None:
        # RFC 9112, 3.2: every HTTP/1.1 request has one.
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
        # RFC 9110, 7.6.2: for these methods a proxy MUST count down; for
        # others the field means nothing, and passes.
        left = _parse_max_forwards(rare_fields.max_forwards)
        max_forwards_exhausted = left == 0
        block = _remove_field(block, b"max-forwards")
        block += b"Max-Forwards: %d\r\n" % max(left - 1, 0)
    wire = b"%b %b HTTP/1.1\r\n%b" % (method, target, block)
    persistent = not close and (minor >= 1 or keep)
    return RequestHead(
        method,
        target,
        min(minor, 1),
        host,
        wire,
        -1 if chunked else length or 0,
        persistent,
        rare_fields,
        max_forwards_exhausted,
    )


def _remove_field(block: bytes, name: bytes) -> bytes:
    lines = block.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() != name)


def _parse_target(method: bytes, target: bytes, host: bytes | None) -> tuple[bytes, bytes | None]:
    """The target in the form that goes to a server, and whom it addresses."""
    if method == b"CONNECT":
        raise RequestError(501, "CONNECT is not supported")
    if target.startswith(b"/"):
        return target, host
    if target == b"*":
        if method != b"OPTIONS":
            raise RequestError(400, "the target * belongs to OPTIONS")
        return target, host
    match = ABSOLUTE_TARGET.fullmatch(target)
    if match is None or match.group(1).lower() != b"http" or not match.group(2):
        raise RequestError(400, "a malformed request target")
    authority, path = match.group(2), match.group(3)
    if not is_host(authority):
        raise RequestError(400, "a malformed request target")
    if host is not None and _without_port(host) != _without_port(authority):
        # RFC 9112, 3.2.2 has a proxy replace Host by the target's; a server
        # that prefers the other one exists, so the two must agree.
        raise RequestError(400, "a Host field that contradicts the target")
    if not path:
        # RFC 9112, 3.2.4: "the last proxy on the request chain MUST send a
        # request-target of "*"" for an OPTIONS request with an empty path.
        path = b"*" if method == b"OPTIONS" else b"/"
    elif path.startswith(b"?"):
        path = b"/" + path
    return path, authority


def _without_port(authority: bytes) -> bytes:
    authority = authority.lower()
    return authority[:-3] if authority.endswith(b":80") else authority.rstrip(b":")
