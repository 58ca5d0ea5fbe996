"""
Interfaces between the factories of client connections and their protocols.

The interface that an exchange needs of its client's connection is `ClientStream`, in
`http1.exchange`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from balancebeam.proxy.exchange import Exchange


class ClientChannel(Protocol):
    """A client connection, as its factory manages it."""

    @property
    def exchanges(self) -> Collection[Exchange]:
        """The exchanges in progress."""

    def check_timeouts(self, now: float) -> None:
        """Close or abort the connection if a timeout has expired at `now`, on the ticker."""

    def drain(self) -> None:
        """Close the connection as soon as the exchange in progress has finished."""

    def shutdown(self) -> None:
        """Abort the connection and the exchange in progress."""


class PendingHandshakes(Protocol):
    """Accepted connections that have not been given to a client channel yet."""

    @property
    def has_connections(self) -> bool:
        """Whether there is any such connection."""

    @property
    def byte_counts(self) -> tuple[int, int]:
        """Bytes received and sent on the open ones, and on the ones that never became a channel."""

    def close_all(self) -> None:
        """Abort all of them."""
