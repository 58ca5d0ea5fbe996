"""Interfaces between TLS contexts and the connections that use them."""

from __future__ import annotations

import ssl
from typing import Protocol

from attrs import frozen

from balancebeam.protocols.client_hello import ClientHello


@frozen
class TlsInfo:
    """
    The result of a handshake.

    Attributes:
        version: "TLSv1.2" or "TLSv1.3".
        resumed: Whether a session was resumed.
        alpn: The negotiated application protocol; `None` without ALPN.
        server_name: The server name that the client has sent; `None` without one.
        client_certificate: The verified certificate of the client in DER; `None` without one.
    """

    version: str
    resumed: bool = False
    alpn: str | None = None
    server_name: str | None = None
    client_certificate: bytes | None = None


class ContextSelector(Protocol):
    """Selects the TLS context of a client connection before its handshake."""

    def select(self, hello: ClientHello) -> ssl.SSLContext:
        """
        Return the context for a client.

        The handshake runs in this context only; nothing replaces it later. So the
        verification of clients and the session tickets always belong to the context.

        Raises:
            AlertError: The client is rejected.
        """
