"""IP addresses as text: parsing, and one normal form for each."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

# Clients whose packed address is cached: it is needed for each of their requests.
_CACHE_SIZE = 4096


def normalize_ip(text: str) -> str | None:
    """
    Return the normal form of an IP address.

    Returns:
        Lower case, zeros compressed, IPv4-mapped addresses as IPv4; `None` if `text`
        is not an IP address.
    """
    address = parse_unmapped_ip(text)
    return None if address is None else str(address)


def parse_unmapped_ip(text: str) -> IPv4Address | IPv6Address | None:
    """Parse an IP address and unmap it (see `unmap_ipv4`); `None` if it is not valid."""
    address = parse_ip(text)
    return None if address is None else unmap_ipv4(address)


def parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    """
    Parse an IP address without a zone; `None` if it is not valid.

    A zone has a meaning on its own host only, and may contain any character.
    """
    if not text.isascii() or "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def unmap_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """
    Convert an IPv4-mapped IPv6 address (::ffff:192.0.2.1) to IPv4.

    Without that, a client had two addresses: one at IPv4 listeners and another
    at dual-stack listeners.
    """
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=_CACHE_SIZE)
def pack_address(client: str) -> bytes:
    """Return the 4 or 16 bytes of an IP address, or `client` encoded if it is none."""
    address = parse_unmapped_ip(client)
    return client.encode() if address is None else address.packed
