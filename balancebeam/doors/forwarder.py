"""What is added to the requests of one client's connection."""

from __future__ import annotations

from typing import Any

from balancebeam.http1.forwarding import forwarding, plain_forwarding
from balancebeam.http1.request_rules import RequestHead
from balancebeam.interfaces import StreamTransport
from balancebeam.model import TcpAddress


class Forwarder:
    """
    Knows the client, and keeps what most of its requests need.

    `plain` is the end of the head of a usual request to `host`.
    """

    __slots__ = ("_client", "_trusted", "host", "plain")

    def __init__(self, client: str, trusted: bool) -> None:
        self.host: bytes | None = None
        self.plain = b""
        self._client = client.encode("ascii")
        self._trusted = trusted

    def address(self, host: bytes | None) -> None:
        """Requests go to `host` from here on."""
        self.host = host
        self.plain = plain_forwarding(self._client, b"http", host or b"")

    def unusual(self, head: RequestHead, transport: StreamTransport) -> bytes:
        """
        The end of the head of any request. The address that the client is
        connected to stands for the host that it did not name.
        """
        local = b""
        if head.host is None:
            here: Any = transport.getHost()
            address = TcpAddress(getattr(here, "host", "localhost"), getattr(here, "port", 80))
            local = str(address).encode()
        return forwarding(head, self._client, b"http", local, self._trusted)
