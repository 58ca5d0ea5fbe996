"""Sets of IP networks, for access lists and trusted proxies."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from balancebeam.core.ip import parse_unmapped_ip

# Peers whose membership is cached, per set. Clients keep their address over many
# requests, and matching a network takes microseconds.
_CACHE_SIZE = 4096

# The "address" of peers on Unix sockets, and the network that contains them.
UNIX_PEER = "unknown"
UNIX_NETWORK = "unix:"


def parse_network(text: str) -> str:
    """
    Parse and normalize a network.

    Returns:
        The network as CIDR text with host bits cleared, or `UNIX_NETWORK`.

    Raises:
        ValueError: `text` is not a network; the message names the expected form.
    """
    if text == UNIX_NETWORK:
        return text
    try:
        return str(ipaddress.ip_network(text, strict=False))
    except ValueError:
        raise ValueError(f"invalid network {text!r}: expected a CIDR such as 10.0.0.0/8") from None


class NetworkSet:
    """
    A set of networks; false if it is empty.

    Args:
        networks: texts as `parse_network` returns them.

    Raises:
        ValueError: one of them is not a network.
    """

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
        """Whether one of the networks contains `peer`, an IP address or `UNIX_PEER`."""
        if not self:
            return False
        contained = self._cache.get(peer)
        if contained is None:
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            contained = self._cache[peer] = self._lookup(peer)
        return contained

    def _lookup(self, peer: str) -> bool:
        if peer == UNIX_PEER:
            return self._unix
        address = parse_unmapped_ip(peer)
        return address is not None and any(address in network for network in self._networks)
