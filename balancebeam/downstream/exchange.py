"""The base class of exchanges of clients: responses that the proxy makes itself."""

from __future__ import annotations

from abc import abstractmethod

from balancebeam.protocols.http1.local_reply import jsend_error
from balancebeam.proxy.exchange import Fields
from balancebeam.proxy.http_exchange import HttpExchange


class ClientExchange(HttpExchange):
    """What HTTP exchanges of every version can do for an endpoint of the proxy itself."""

    @property
    @abstractmethod
    def peer(self) -> str:
        """IP address of the peer, which may be a proxy."""

    @abstractmethod
    def send_100_continue(self) -> None:
        """Send the 100 (Continue) that the client awaits before its body (RFC 9110, 10.1.1)."""

    @abstractmethod
    def send_reply(self, status: int, body: bytes, fields: Fields = ()) -> None:
        """
        Respond with a body made by the proxy. No other response may have started.

        Args:
            status: The status code.
            body: The body, JSON unless `fields` has a Content-Type.
            fields: Header fields in addition to the standard ones.
        """

    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        self.send_reply(status, jsend_error(text) if status >= 400 else b"", fields)
