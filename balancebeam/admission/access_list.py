"""Who may use a frontend at all."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.core.networks import NetworkSet


class AccessList:
    """
    Addresses in one of the networks in `deny` are not let in; if there are any
    in `allow`, only they are. Raises `ValueError` for what is no network.
    """

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        self._allow = NetworkSet(allow)
        self._deny = NetworkSet(deny)
        self.allows_all = not self._allow and not self._deny

    def allows(self, client: str) -> bool:
        """Whether `client` may come in."""
        if self._deny.contains(client):
            return False
        return not self._allow or self._allow.contains(client)
