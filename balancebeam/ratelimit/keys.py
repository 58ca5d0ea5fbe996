"""Under which key a request is counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Callable, Optional

from balancebeam.core.uri import canonical_path, has_prefix, normalize_host
from balancebeam.ratelimit.interfaces import LimitedRequest

# What a request is counted under; `None` if the limit is not about it.
KeyFunction = Callable[[LimitedRequest], Optional[bytes]]

# Longer keys are hashed, so that nobody fills the memory with long ones.
_MAX_KEY_LENGTH = 24

# Fields that do not go on, or not as they came.
_RESERVED_FIELDS = frozenset(
    (
        *("connection", "content-length", "forwarded", "http2-settings", "keep-alive", "te"),
        *("trailer", "transfer-encoding", "upgrade", "via"),
    )
)

_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def build_key_function(names: Sequence[str], ipv6_prefix: int = 64) -> KeyFunction:
    """
    What makes keys of all that is in `names`: "client", "host",
    "header:NAME" or "path:/PREFIX"; a path only says which requests count.
    IPv6 clients are counted by their first `ipv6_prefix` bits.

    Raises `ValueError`, saying what would be right.
    """
    if not names:
        raise ValueError("a limit needs a key; give one such as client")
    makers = [_build_part(name, ipv6_prefix) for name in names]
    return makers[0] if len(makers) == 1 else _build_joined(makers)


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
    raise ValueError(f"{name!r} is no key; give client, host, header:NAME or path:/PREFIX")


def _build_field_key(name: str) -> KeyFunction:
    if name in _RESERVED_FIELDS or name.startswith(("x-forwarded-", "proxy-")):
        raise ValueError(f"header:{name} is the proxy's own business; give another field")
    field = name.encode()

    def make(request: LimitedRequest) -> bytes:
        values = request.field_values(field)
        # Servers take the first of several lines, or the last. Those who send
        # several are counted together, so that none is a way out.
        return _hash_if_long(values[0]) if len(values) == 1 else b"\n%d" % min(len(values), 2)

    return make


def _build_client_key(ipv6_prefix: int) -> KeyFunction:
    if not 0 < ipv6_prefix <= 128:
        raise ValueError(f"{ipv6_prefix} is no length of an IPv6 prefix; give 1 to 128")
    octets, bits = divmod(ipv6_prefix, 8)

    def make(request: LimitedRequest) -> bytes:
        key = request.client_key
        if len(key) != 16:
            return key
        short = key[:octets]
        if bits:
            short += bytes((key[octets] >> (8 - bits) << (8 - bits),))
        # Never as short as that of an IPv4 client.
        return short.ljust(5, b"\0")

    return make


def _build_joined(makers: Sequence[KeyFunction]) -> KeyFunction:
    def make(request: LimitedRequest) -> bytes | None:
        parts = []
        for maker in makers:
            part = maker(request)
            if part is None:
                return None
            # With its length, so that no two lists of parts look the same.
            parts.append(b"%d:%b" % (len(part), part))
        return _hash_if_long(b"".join(parts))

    return make


def _hash_if_long(key: bytes) -> bytes:
    return key if len(key) <= _MAX_KEY_LENGTH else blake2b(key, digest_size=16).digest()
