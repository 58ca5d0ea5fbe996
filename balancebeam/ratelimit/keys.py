"""Key functions: the key under which a limit counts a request."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from ipaddress import ip_address, ip_network
from typing import Callable, Optional

from balancebeam.core.uri import canonical_path, has_prefix, normalize_host
from balancebeam.ratelimit.interfaces import LimitedRequest

# The key of a request; `None` if the limit does not apply to it.
KeyFunction = Callable[[LimitedRequest], Optional[bytes]]

# Bytes. Longer keys are hashed to 16 bytes, so that clients cannot fill the memory
# with long keys.
_MAX_KEY_LENGTH = 24

# Fields that are not forwarded, or not as the client sent them.
_RESERVED_FIELDS = frozenset(
    (
        *("connection", "content-length", "forwarded", "http2-settings", "keep-alive", "te"),
        *("trailer", "transfer-encoding", "upgrade", "via"),
    )
)

_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def build_key_function(names: Sequence[str], ipv6_prefix: int = 64) -> KeyFunction:
    """
    Build the function that derives the key of a limit from a request.

    Args:
        names: The parts of the key: "client", "host", "header:NAME" or
            "path:/PREFIX". A path restricts the limit to requests below the prefix.
        ipv6_prefix: The bits of an IPv6 address by which a client is counted.

    Raises:
        ValueError: A name or the prefix is invalid; the text has the expected form.
    """
    if not names:
        raise ValueError("invalid limit key: expected at least one part, such as client")
    parts = [_build_part(name, ipv6_prefix) for name in names]
    return parts[0] if len(parts) == 1 else _build_joined(parts)


def describe_key(names: Sequence[str], ipv6_prefix: int, request: LimitedRequest) -> str:
    """
    Return the key of a request as text: the values of its parts, separated by commas.

    Args:
        names: The parts of the key, as for `build_key_function`.
        ipv6_prefix: The bits of an IPv6 address by which a client is counted.
        request: A request to which the limit applies.
    """
    return ", ".join(_describe_part(name, ipv6_prefix, request) for name in names)


def _describe_part(name: str, ipv6_prefix: int, request: LimitedRequest) -> str:
    kind, _, rest = name.partition(":")
    if name == "client":
        key = request.client_key
        if len(key) == 16 and ipv6_prefix < 128:
            return str(ip_network((key, ipv6_prefix), strict=False))
        return str(ip_address(key)) if len(key) in (4, 16) else key.decode(errors="replace")
    if name == "host":
        return normalize_host(request.host or b"").decode("latin-1")
    if kind == "header":
        values = request.field_values(rest.lower().replace("_", "-").encode())
        if len(values) == 1:
            return values[0].decode("latin-1")
        return f"several {rest} fields" if values else f"no {rest} field"
    return rest


def _build_part(name: str, ipv6_prefix: int) -> KeyFunction:
    kind, _, rest = name.partition(":")
    if name == "client":
        return _build_client_key(ipv6_prefix)
    if name == "host":
        return lambda request: _hash_if_long(normalize_host(request.host or b""))
    if kind == "header" and _FIELD_NAME.fullmatch(rest):
        return _build_field_key(rest.lower().replace("_", "-"))
    if kind == "path" and rest.startswith("/"):
        prefix = canonical_path(rest.encode())
        return lambda request: prefix[-16:] if has_prefix(request.target, prefix) else None
    raise ValueError(
        f"invalid limit key {name!r}: expected client, host, header:NAME or path:/PREFIX"
    )


def _build_field_key(name: str) -> KeyFunction:
    if name in _RESERVED_FIELDS or name.startswith(("x-forwarded-", "proxy-")):
        raise ValueError(
            f"invalid limit key 'header:{name}': expected a field that is forwarded unchanged"
        )
    field = name.encode()

    def field_key(request: LimitedRequest) -> bytes:
        values = request.field_values(field)
        # Some servers use the first of several field lines, others the last. All
        # requests with several lines share one key, so that a client cannot evade
        # the limit with an additional line.
        return _hash_if_long(values[0]) if len(values) == 1 else b"\n%d" % min(len(values), 2)

    return field_key


def _build_client_key(ipv6_prefix: int) -> KeyFunction:
    if not 0 < ipv6_prefix <= 128:
        raise ValueError(f"invalid IPv6 prefix length {ipv6_prefix}: expected 1 to 128")
    whole_bytes, bits = divmod(ipv6_prefix, 8)

    def client_key(request: LimitedRequest) -> bytes:
        key = request.client_key
        if len(key) != 16:
            return key
        prefix = key[:whole_bytes]
        if bits:
            prefix += bytes((key[whole_bytes] >> (8 - bits) << (8 - bits),))
        # At least 5 bytes, so that it never equals the 4 bytes of an IPv4 client.
        return prefix.ljust(5, b"\0")

    return client_key


def _build_joined(parts: Sequence[KeyFunction]) -> KeyFunction:
    def joined_key(request: LimitedRequest) -> bytes | None:
        encoded = []
        for part in parts:
            key = part(request)
            if key is None:
                return None
            # With the length, so that two different lists of parts never join to the
            # same key.
            encoded.append(b"%d:%b" % (len(key), key))
        return _hash_if_long(b"".join(encoded))

    return joined_key


def _hash_if_long(key: bytes) -> bytes:
    return key if len(key) <= _MAX_KEY_LENGTH else blake2b(key, digest_size=16).digest()
