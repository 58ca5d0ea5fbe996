"""Under which key a request is counted."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import ip_address
from typing import Callable, Optional

from balancebeam.interfaces import LimitedRequest
from balancebeam.policy.paths import is_below, normal_path

# What a request is counted under; `None` if the limit is not about it.
KeyMaker = Callable[[LimitedRequest], Optional[bytes]]

# Longer keys are hashed, so that nobody fills the memory with long ones.
_LONGEST = 24

_FIELD_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@lru_cache(maxsize=4096)
def pack_client(client: str) -> bytes:
    """A client's address in 4 or 16 octets, or its text if it is none."""
    try:
        address = ip_address(client)
    except ValueError:
        return client.encode()
    return address.packed


def key_maker(names: Sequence[str], ipv6_prefix: int = 64) -> KeyMaker:
    """
    What makes keys of all that is in `names`: "client", "host",
    "header:NAME" or "path:/PREFIX"; a path only says which requests count.
    IPv6 clients are counted by their first `ipv6_prefix` bits.

    Raises `ValueError`, saying what would be right.
    """
    if not names:
        raise ValueError("a limit needs a key; give one such as client")
    makers = [_one(name, ipv6_prefix) for name in names]
    return makers[0] if len(makers) == 1 else _joined(makers)


def _one(name: str, ipv6_prefix: int) -> KeyMaker:
    kind, _, rest = name.partition(":")
    if name == "client":
        return _client_key(ipv6_prefix)
    if name == "host":
        return lambda request: _short(_without_port(request.host or b"").lower())
    if kind == "header" and _FIELD_NAME.fullmatch(rest):
        field = rest.encode().lower()
        return lambda request: _short(b", ".join(request.field_values(field)))
    if kind == "path" and rest.startswith("/"):
        prefix = normal_path(rest.encode())
        return lambda request: prefix[-16:] if is_below(request.target, prefix) else None
    raise ValueError(f"{name!r} is no key; give client, host, header:NAME or path:/PREFIX")


def _client_key(ipv6_prefix: int) -> KeyMaker:
    if not 0 < ipv6_prefix <= 128:
        raise ValueError(f"{ipv6_prefix} is no length of an IPv6 prefix; give 1 to 128")
    octets, bits = divmod(ipv6_prefix, 8)

    def make(request: LimitedRequest) -> bytes:
        key = request.client_key
        if len(key) != 16:
            return key
        if not bits:
            return key[:octets]
        return key[:octets] + bytes((key[octets] >> (8 - bits) << (8 - bits),))

    return make


def _joined(makers: Sequence[KeyMaker]) -> KeyMaker:
    def make(request: LimitedRequest) -> bytes | None:
        parts = []
        for maker in makers:
            part = maker(request)
            if part is None:
                return None
            # With its length, so that no two lists of parts look the same.
            parts.append(b"%d:%b" % (len(part), part))
        return _short(b"".join(parts))

    return make


def _short(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST else blake2b(key, digest_size=16).digest()


def _without_port(authority: bytes) -> bytes:
    return re.sub(rb":[0-9]*$", b"", authority)
