"""Who the client is, when proxies stand before this one."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.core.networks import NetworkSet
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for
from balancebeam.protocols.http1.request_rules import RequestHead


class TrustedProxies:
    """
    Knows which peers are proxies whose word about a client is taken: those in
    `networks`, which are CIDR texts or `unix:`. Raises `ValueError`.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = NetworkSet(networks)

    def contains(self, peer: str) -> bool:
        """Whether `peer` is such a proxy."""
        return self._networks.contains(peer)

    def client_ip(self, peer: str, head: RequestHead) -> str:
        """
        Who made a request that `peer`, a trusted proxy, sent: of those in
        X-Forwarded-For, or without that field in Forwarded, the right-most
        that is no trusted proxy itself. If only such are there, the left-most
        of them; if that cannot be found out, `peer`.

        The two fields are never mixed: a proxy that writes one of them may
        pass on the other as a client invented it.
        """
        found = peer
        if head.rare_fields.forwarded_for:
            chain = iter_x_forwarded_for(head.rare_fields.forwarded_for)
        else:
            chain = iter_forwarded(b",".join(field_values(head.forward_bytes, b"forwarded")))
        for address in chain:
            if address is None:
                return peer
            found = address
            if not self._networks.contains(address):
                break
        return found
