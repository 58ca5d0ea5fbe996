"""TODO."""

from __future__ import annotations

from typing import Protocol


class LimitedRequest(Protocol):
    """
    A request, as far as limits have to know it.

    `client_key` is the client's address in 4 or 16 octets; `host` is as the
    client wrote it.
    """

    @property
    def client_key(self) -> bytes: ...

    @property
    def host(self) -> bytes | None: ...

    @property
    def target(self) -> bytes: ...

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`, which is in lower case."""
