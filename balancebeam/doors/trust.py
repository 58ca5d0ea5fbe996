"""Which peers are proxies whose word about a client is taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence


class TrustedProxies:
    """Networks of trusted proxies, as CIDR texts. Raises `ValueError`."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]
        self._known: dict[str, bool] = {}

    def includes(self, peer: str) -> bool:
        """Whether `peer`, an IP address as text, is in one of the networks."""
        if not self._networks:
            return False
        known = self._known.get(peer)
        if known is None:
            if len(self._known) >= 1024:
                self._known.clear()
            known = self._known[peer] = self._look(peer)
        return known

    def _look(self, peer: str) -> bool:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        return any(address in network for network in self._networks)
