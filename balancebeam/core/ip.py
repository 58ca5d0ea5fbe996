"""The text by which clients are known."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address


def normalize_ip(text: str) -> str | None:
    """The one way to write the IP address in `text`; `None` if it is no address."""
    address = parse_unmapped_ip(text)
    return None if address is None else str(address)


def parse_unmapped_ip(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address in `text`, out of its wrapping; `None` if it is no address."""
    address = parse_ip(text)
    return None if address is None else unmap_ipv4(address)


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """
    The address in `text`, but not with a zone, which would mean something on
    another machine only and may hold any octet.
    """
    if not text.isascii() or "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def unmap_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """IPv4 where IPv6 only wraps it, so that nobody is known by two addresses."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def pack_address(client: str) -> bytes:
    """A client's address in 4 or 16 octets, or its text if it is none."""
    address = parse_unmapped_ip(client)
    return client.encode() if address is None else address.packed
