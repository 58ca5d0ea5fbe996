"""Sets of networks, asked again and again for the same addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from balancebeam.core.ip import parse_unmapped_ip

# Answers that are remembered.
_CACHE_SIZE = 4096

# What a peer on a Unix socket is called, and the network it belongs to.
UNIX_PEER = "unknown"
UNIX_NETWORK = "unix:"


def parse_network(text: str) -> str:
    """
    A network as CIDR text, or `unix:` for peers on Unix sockets. Raises
    `ValueError`, saying what would be right.
    """
    if text == UNIX_NETWORK:
        return text
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"{text!r} is no network; give a CIDR such as 10.0.0.0/8") from None


class NetworkSet:
    """Networks as `parse_network` gives them. Raises `ValueError`."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._unix = UNIX_NETWORK in networks
        self._networks = [
            ipaddress.ip_network(network, strict=False)
            for network in networks
            if network != UNIX_NETWORK
        ]
        self._cache: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def contains(self, peer: str) -> bool:
        """Whether `peer`, as `peer_ip` calls it, is in one of the networks."""
        if not self:
            return False
        known = self._cache.get(peer)
        if known is None:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            known = self._cache[peer] = self._lookup(peer)
        return known

    def _lookup(self, peer: str) -> bool:
        if peer == UNIX_PEER:
            return self._unix
        address = parse_unmapped_ip(peer)
        return address is not None and any(address in network for network in self._networks)
