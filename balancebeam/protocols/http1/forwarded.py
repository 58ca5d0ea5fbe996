"""
Addresses that proxies add to a request: X-Forwarded-For, and Forwarded (RFC 7239).

Every proxy appends its peer's address. Whatever is to the left of an element that a
trusted proxy has added may be forged. Both fields are therefore read from the
right, one element at a time, and an invalid element further left has no effect.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from balancebeam.core.ip import normalize_ip
from balancebeam.protocols.http1.grammar import TOKEN

# Some proxies add the port.
_IPV4_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_IPV6_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](:[0-9]{1,5})?")

# RFC 7239, 4: forwarded-pair = token "=" value, where a value is a token or a
# quoted-string; commas separate elements, semicolons separate pairs. No
# parameter in use has commas, semicolons or escapes in its quoted string.
_VALUE = rb"(?:" + TOKEN.pattern + rb"|\"[^\",;\\]*\")"
_PAIR = TOKEN.pattern + rb"=" + _VALUE
_ELEMENT = re.compile(_PAIR + rb"(?:[ \t]*;[ \t]*" + _PAIR + rb")*")

# Bounds the work for one request; no chain of proxies is that long.
_MAX_ELEMENTS = 64


def iter_x_forwarded_for(value: bytes) -> Iterator[str | None]:
    """Yield the addresses of X-Forwarded-For from the right; `None` for an invalid element."""
    for element in _iter_elements(value):
        yield parse_node(element.decode("latin-1"))


def iter_forwarded(value: bytes) -> Iterator[str | None]:
    """
    Yield the addresses of the "for" parameters of Forwarded, from the right.

    An element that is invalid, or hides the address, gives `None`.
    """
    for element in _iter_elements(value):
        yield _parse_for(element) if _ELEMENT.fullmatch(element) else None


def _iter_elements(value: bytes) -> Iterator[bytes]:
    """Yield the items of a list from the right: at most 64, then an empty one for the rest."""
    rest = value
    for _ in range(_MAX_ELEMENTS):
        if not rest:
            return
        rest, comma, element = rest.rpartition(b",")
        yield element.strip(b" \t")
        if not comma:
            return
    yield b""


def _parse_for(element: bytes) -> str | None:
    """Return the address in a valid element of Forwarded; `None` if it has not exactly one."""
    nodes = []
    for pair in element.split(b";"):
        name, _, text = pair.strip(b" \t").partition(b"=")
        if name.lower() == b"for":
            nodes.append(text)
    if len(nodes) != 1:
        # RFC 7239, 4: "Each parameter MUST NOT occur more than once per field-value."
        return None
    text = nodes[0]
    if text.startswith(b'"'):
        text = text[1:-1]
    elif b":" in text or b"[" in text:
        # RFC 7239, 6: such a value must be quoted.
        return None
    return parse_node(text.decode("latin-1"))


def parse_node(text: str) -> str | None:
    """Return an IP address with an optional port as `normalize_ip` does, without the port."""
    match = _IPV4_PORT.fullmatch(text) or _IPV6_PORT.fullmatch(text)
    if match is not None:
        text = match.group(1)
    return normalize_ip(text)


def encode_forwarded_element(peer: bytes, host: bytes, proto: bytes) -> bytes:
    """
    Return the element of Forwarded that this proxy adds.

    Args:
        peer: The IP address of the client connection.
        host: The host that the client addressed, or nothing.
        proto: "http" or "https".
    """
    # RFC 7239, 6: IPv6 addresses are in brackets, and a value with a colon is quoted.
    node = b'"[%b]"' % peer if b":" in peer else peer
    named = b';host="%b"' % host if host else b""
    return b"for=%b%b;proto=%b" % (node, named, proto)
