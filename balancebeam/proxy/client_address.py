"""The address of the client, where trusted proxies report it."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.core.networks import NetworkSet
from balancebeam.protocols.http1.fields import field_values
from balancebeam.protocols.http1.forwarded import iter_forwarded, iter_x_forwarded_for
from balancebeam.protocols.http1.request_rules import RequestHead


class TrustedProxies:
    """The peers whose X-Forwarded-* and Forwarded fields are trusted."""

    def __init__(self, networks: Sequence[str]) -> None:
        """
        Parse the networks of the proxies.

        Args:
            networks: CIDR texts, or `unix:` for peers on Unix sockets.

        Raises:
            ValueError: A text is not a network.
        """
        self._networks = NetworkSet(networks)

    def contains(self, peer: str) -> bool:
        """Whether `peer` is a trusted proxy."""
        return self._networks.contains(peer)

    def client_ip(self, peer: str, head: RequestHead) -> str:
        """
        The client's address in a request from a trusted proxy.

        It is the right-most address in X-Forwarded-For that is not a trusted proxy,
        or the left-most one if all are trusted. Forwarded (RFC 7239) is used if there
        is no X-Forwarded-For. The two fields are never combined: a proxy that writes
        one of them may forward the other as the client has forged it.

        Args:
            peer: The address of the proxy.
            head: The head of the request.

        Returns:
            The client's address; `peer` if the chain has an entry that is not an IP
            address before the client is found.
        """
        client = peer
        if head.rare_fields.forwarded_for:
            chain = iter_x_forwarded_for(head.rare_fields.forwarded_for)
        else:
            chain = iter_forwarded(b",".join(field_values(head.forward_bytes, b"forwarded")))
        for address in chain:
            if address is None:
                return peer
            client = address
            if not self._networks.contains(address):
                break
        return client
