"""Access lists: the client networks that may use a frontend."""

from __future__ import annotations

from collections.abc import Sequence

from balancebeam.core.networks import NetworkSet


class AccessList:
    """
    Allowed and denied networks, as in nginx's `ngx_http_access_module`.

    Attributes:
        allows_all: Whether the list is empty, so that every client is allowed.
    """

    def __init__(self, allow: Sequence[str] = (), deny: Sequence[str] = ()) -> None:
        """
        Parse the networks.

        Args:
            allow: If not empty, only clients in these networks are allowed.
            deny: Clients in these networks are denied, even if `allow` has them.

        Raises:
            ValueError: A text is not a network.
        """
        self._allow = NetworkSet(allow)
        self._deny = NetworkSet(deny)
        self.allows_all = not self._allow and not self._deny

    def allows(self, client: str) -> bool:
        """Whether the client with this address is allowed."""
        if self._deny.contains(client):
            return False
        return not self._allow or self._allow.contains(client)
