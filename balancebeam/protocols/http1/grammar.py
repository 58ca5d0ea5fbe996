"""
The grammar of RFC 9110 and RFC 9112, as far as a proxy needs it.

Every pattern runs in linear time: a hostile line costs no more than its length.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address

CRLF = b"\r\n"
HEAD_END = b"\r\n\r\n"

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

TOKEN = re.compile(_TOKEN)

# RFC 9112, 5: field-line = field-name ":" OWS field-value OWS. The parser strips
# the whitespace around the value. Within it every byte but a control character
# is allowed, so bare CR, bare LF and NUL do not match.
FIELD_LINE = re.compile(rb"(" + _TOKEN + rb"):([\t\x20-\x7e\x80-\xff]*)")

# What `FIELD_LINE` allows behind the colon, for `bytes.translate`.
VALUE_BYTES = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

# RFC 9112, 3: method SP request-target SP HTTP-version. The target may contain
# characters that RFC 3986 does not allow in a URI but that browsers send. Others
# are rejected, because servers interpret them differently: "#", quotes, angle
# brackets, a backslash in a path (some servers take it for a slash), and all
# bytes that are not ASCII.
REQUEST_LINE = re.compile(
    rb"(" + _TOKEN + rb") ([!$-;=@-\[\]-~]+(?:\?[!$-;=?-~]*)?) HTTP/1\.([0-9])\r\n"
)

STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([1-5][0-9][0-9])(?: ([\t\x20-\x7e\x80-\xff]*))?")

# RFC 3986, 3.2.2, without sub-delims: no host name in use has them, and servers
# interpret a comma or a semicolon differently. Empty only without a port: RFC
# 9110, 4.2.1 has a recipient reject an http URI with an empty host.
_HOST = re.compile(
    rb"(?:(?:(?:[A-Za-z0-9\-._~]|%[0-9A-Fa-f]{2})+|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{0,5}))?)?"
)

ABSOLUTE_TARGET = re.compile(rb"([A-Za-z][A-Za-z0-9+.\-]*)://([^/?]*)(.*)")

# RFC 9110, 8.6: any Content-Length value >= 0 is valid. The limit is that of a
# signed 64-bit integer, in which servers keep it.
MAX_CONTENT_LENGTH = 2**63 - 1
MAX_LENGTH_DIGITS = len(str(MAX_CONTENT_LENGTH))

# RFC 9112, 7.1: chunk-size [ chunk-ext ], without the line end. Sixteen digits
# are a 64-bit integer.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)

IDEMPOTENT_METHODS: frozenset[bytes] = frozenset(
    # RFC 9110, 9.2.2: "PUT, DELETE, and safe request methods are idempotent".
    (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")
)


def list_items(value: bytes) -> list[bytes]:
    """Return the non-empty members of a comma-separated field value, in lower case."""
    return [item for item in (part.strip(b" \t").lower() for part in value.split(b",")) if item]


def parse_content_length(value: bytes) -> int | None:
    """
    Parse the value of Content-Length, without whitespace around it.

    Returns:
        The length in bytes, or `None` if `value` is not a decimal number below 2^63.
    """
    # `bytes.isdigit` accepts ASCII digits only: no sign, no underscore.
    if value.isdigit() and len(value) <= MAX_LENGTH_DIGITS:
        length = int(value)
        if length <= MAX_CONTENT_LENGTH:
            return length
    return None


def is_host(value: bytes) -> bool:
    """Whether `value` is valid in a Host field: a host with an optional port, or nothing."""
    match = _HOST.fullmatch(value)
    if match is None:
        return False
    address, port = match.groups()
    if port and int(port) > 65535:
        return False
    if address is not None:
        try:
            IPv6Address(address.decode("ascii"))
        except ValueError:
            return False
    return True
