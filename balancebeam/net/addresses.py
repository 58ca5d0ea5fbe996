"""Socket addresses, Twisted's address objects and the IP address of a peer."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address

from balancebeam.core.networks import UNIX_PEER


def twisted_address(sockname: tuple[Any, ...]) -> IPv4Address | IPv6Address:
    """Convert the result of `getsockname()` or `getpeername()` of a TCP socket."""
    if len(sockname) == 2:
        return IPv4Address("TCP", *sockname)
    return IPv6Address("TCP", *sockname)


def peer_ip(peer: object) -> str:
    """
    Return the IP address of `peer`, one of Twisted's address objects, as text.

    The zone of a link-local address is dropped, and an IPv4 address that a
    dual-stack listener maps into IPv6 is unmapped. All others, such as
    peers on Unix sockets, are `UNIX_PEER`.
    """
    if isinstance(peer, (IPv4Address, IPv6Address)):
        host = peer.host.partition("%")[0]
        return host[7:] if host.startswith("::ffff:") and "." in host else host
    return UNIX_PEER
