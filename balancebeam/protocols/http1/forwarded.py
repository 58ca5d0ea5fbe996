"""
The chains of addresses that proxies leave: X-Forwarded-For, and Forwarded
(RFC 7239).

Every proxy adds to the end, and what stands left of what a trusted proxy
added may be anybody's invention. So both are read from the right, one element
at a time, and what is wrong further left is of no consequence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from balancebeam.core.ip import normalize_ip

# With a port, as some proxies write it.
_IPV4_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}")
_IPV6_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](:[0-9]{1,5})?")

# RFC 7239, 4: forwarded-pair = token "=" value, where a value is a token or a
# quoted-string; elements are parted by commas, pairs by semicolons. Quoted
# strings with commas, semicolons or escapes in them are for none of the
# parameters that there are.
_VALUE = rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+|\"[^\",;\\]*\")"
_PAIR = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+=" + _VALUE
_ELEMENT = re.compile(_PAIR + rb"(?:[ \t]*;[ \t]*" + _PAIR + rb")*")

# More proxies in a row there are not.
_MAX_ELEMENTS = 64


def iter_x_forwarded_for(value: bytes) -> Iterator[str | None]:
    """
    The addresses in the value of X-Forwarded-For, from the right; `None` for
    an element that is none.
    """
    for element in _iter_elements(value):
        yield parse_node(element.decode("latin-1"))


def iter_forwarded(value: bytes) -> Iterator[str | None]:
    """
    The addresses that made the requests by the value of Forwarded, from the
    right; `None` for an element that is broken, or hides the address.
    """
    for element in _iter_elements(value):
        yield _parse_for(element) if _ELEMENT.fullmatch(element) else None


def _iter_elements(value: bytes) -> Iterator[bytes]:
    """What stands between commas, from the right, but not without end."""
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
    found = []
    for pair in element.split(b";"):
        name, _, text = pair.strip(b" \t").partition(b"=")
        if name.lower() == b"for":
            found.append(text)
    if len(found) != 1:
        # RFC 7239, 4: "Each parameter MUST NOT occur more than once per field-value."
        return None
    text = found[0]
    if text.startswith(b'"'):
        text = text[1:-1]
    elif b":" in text or b"[" in text:
        # RFC 7239, 4: such a value has to be quoted.
        return None
    return parse_node(text.decode("latin-1"))


def parse_node(text: str) -> str | None:
    """An IP address, perhaps with a port, in the form in which peers are known."""
    match = _IPV4_PORT.fullmatch(text) or _IPV6_PORT.fullmatch(text)
    if match is not None:
        text = match.group(1)
    return normalize_ip(text)


def encode_forwarded_element(peer: bytes, host: bytes, proto: bytes) -> bytes:
    """What one proxy adds to Forwarded: who asked it, for which host, and how."""
    # RFC 7239, 6: IPv6 addresses are in brackets, and what has a colon is quoted.
    node = b'"[%b]"' % peer if b":" in peer else peer
    named = b';host="%b"' % host if host else b""
    return b"for=%b%b;proto=%b" % (node, named, proto)
