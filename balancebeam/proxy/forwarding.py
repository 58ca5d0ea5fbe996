"""What is added to the requests of one client's connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import ForwardingSettings
from balancebeam.net.interfaces import StreamTransport
from balancebeam.protocols.http1.fields import field_values, remove_fields
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.proxy.forwarded_fields import forwarding, plain_forwarding


@frozen
class Onward:
    """How requests go on: what servers are told, and where ids of requests come from."""

    style: ForwardingSettings
    make_id: Callable[[], bytes]

    @property
    def plain(self) -> bool:
        """Whether most requests can be given the same."""
        style = self.style
        return style.x_forwarded and not style.forwarded and style.request_id == "off"

    def wire(
        self, head: RequestHead, client: bytes, proto: bytes, local: bytes, trusted: bool
    ) -> bytes:
        """
        The whole head of any request as it goes to a server. `client` is the
        peer, `local` stands for the host that it did not name.
        """
        style, wire, earlier = self.style, head.forward_bytes, b""
        if style.forwarded:
            if trusted:
                earlier = b", ".join(field_values(wire, b"forwarded"))
            # From anybody else it may be an invention.
            wire = remove_fields(wire, b"forwarded")
        if style.request_id == "make" or (
            style.request_id == "keep" and not _is_one(field_values(wire, b"x-request-id"))
        ):
            wire = remove_fields(wire, b"x-request-id")
            wire += b"X-Request-Id: %b\r\n" % self.make_id()
        return wire + forwarding(head, client, proto, local, trusted, style, earlier)


def _is_one(values: list[bytes]) -> bool:
    return len(values) == 1 and bool(values[0])


def make_ids(random: Random) -> Callable[[], bytes]:
    """What makes ids of requests: 26 hexadecimal digits at random."""

    def make() -> bytes:
        high, low = (int(random.random() * 2**52) for _ in range(2))
        return b"%013x%013x" % (high, low)

    return make


class Forwarder:
    """
    Knows the client, and keeps what most of its requests need.

    `plain` is the end of the head of a usual request to `host`; there are such
    requests if it is `usual`.
    """

    __slots__ = ("_client", "_onward", "host", "plain", "trusted", "usual")

    def __init__(self, client: str, trusted: bool, onward: Onward) -> None:
        self.host: bytes | None = None
        self.plain = b""
        self.trusted = trusted
        self.usual = onward.plain and not trusted
        self._client = client.encode("ascii")
        self._onward = onward

    def address(self, host: bytes | None) -> None:
        """Requests go to `host` from here on."""
        self.host = host
        self.plain = plain_forwarding(self._client, b"http", host or b"")

    def unusual(self, head: RequestHead, transport: StreamTransport) -> bytes:
        """
        The head of any request. The address that the client is connected to
        stands for the host that it did not name.
        """
        local = b""
        if head.host is None:
            here: Any = transport.getHost()
            address = TcpAddress(getattr(here, "host", "localhost"), getattr(here, "port", 80))
            local = str(address).encode()
        return self._onward.wire(head, self._client, b"http", local, self.trusted)
