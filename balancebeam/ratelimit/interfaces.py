"""The request as rate limits see it."""

from __future__ import annotations

from typing import Protocol


class LimitedRequest(Protocol):
    """A request from which a key function derives the key of a limit."""

    @property
    def client_key(self) -> bytes:
        """The client's address in 4 or 16 bytes."""

    @property
    def host(self) -> bytes | None:
        """The value of the Host field as the client sent it; `None` without one."""

    @property
    def target(self) -> bytes:
        """The request target as the client sent it."""

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`, which is in lower case."""
