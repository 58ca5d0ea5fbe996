"""The text by which clients are known."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address


def client_name(text: str) -> str | None:
    """
    The one way to write the IP address in `text`: IPv4 where IPv6 only wraps
    it, and no zone, which would mean something on another machine only and
    may hold any octet. `None` if it is no address.
    """
    address = parse(text)
    return None if address is None else name_of(address)


def parse(text: str) -> IPv4Address | IPv6Address | None:
    """The address in `text`, if it is one without a zone."""
    if not text.isascii() or "%" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def name_of(address: IPv4Address | IPv6Address) -> str:
    """What a client with this address is called."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)
