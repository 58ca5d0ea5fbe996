"""Who the client is, when proxies stand before this one."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.core.networks import Networks
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.forwarded import forwarded, forwarded_for
from balancebeam.protocols.http1.request_rules import RequestHead


class TrustedProxies:
    """
    Knows which peers are proxies whose word about a client is taken: those in
    `networks`, which are CIDR texts or `unix:`. Raises `ValueError`.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = Networks(networks)

    def includes(self, peer: str) -> bool:
        """Whether `peer` is such a proxy."""
        return self._networks.includes(peer)

    def client_of(self, peer: str, head: RequestHead) -> str:
        """
        Who made a request that `peer`, a trusted proxy, sent: of those in
        X-Forwarded-For, or without that field in Forwarded, the right-most
        that is no trusted proxy itself. If only such are there, the left-most
        of them; if that cannot be found out, `peer`.

        The two fields are never mixed: a proxy that writes one of them may
        pass on the other as a client invented it.
        """
        found = peer
        if head.extras.forwarded_for:
            chain = forwarded_for(head.extras.forwarded_for)
        else:
            chain = forwarded(b",".join(field_values(head.wire, b"forwarded")))
        for address in chain:
            if address is None:
                return peer
            found = address
            if not self._networks.includes(address):
                break
        return found
