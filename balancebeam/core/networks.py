"""Sets of networks, asked again and again for the same addresses."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from balancebeam.core.ip import client_address

# Answers that are remembered.
_KNOWN = 4096

# What a peer on a Unix socket is called, and the network it belongs to.
UNIX_PEER = "unknown"
UNIX_NETWORK = "unix:"


def read_network(text: str) -> str:
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


class Networks:
    """Networks as `read_network` gives them. Raises `ValueError`."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._unix = UNIX_NETWORK in networks
        self._networks = [
            ipaddress.ip_network(network, strict=False)
            for network in networks
            if network != UNIX_NETWORK
        ]
        self._known: dict[str, bool] = {}

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def includes(self, peer: str) -> bool:
        """Whether `peer`, as `peer_ip` calls it, is in one of the networks."""
        if not self:
            return False
        known = self._known.get(peer)
        if known is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            known = self._known[peer] = self._look(peer)
        return known

    def _look(self, peer: str) -> bool:
        if peer == UNIX_PEER:
            return self._unix
        address = client_address(peer)
        return address is not None and any(address in network for network in self._networks)
