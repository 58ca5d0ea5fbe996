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
from balancebeam.proxy.forwarded_fields import (
    build_default_forwarded_fields,
    build_forwarded_fields,
)


@frozen
class ForwardingPolicy:
    """How requests go on: what servers are told, and where ids of requests come from."""

    settings: ForwardingSettings
    new_request_id: Callable[[], bytes]

    @property
    def is_default(self) -> bool:
        """Whether most requests can be given the same."""
        settings = self.settings
        return settings.x_forwarded and not settings.forwarded and settings.request_id == "off"

    def build_head(
        self, head: RequestHead, client: bytes, proto: bytes, local: bytes, trusted: bool
    ) -> bytes:
        """
        The whole head of any request as it goes to a server. `client` is the
        peer, `local` stands for the host that it did not name.
        """
        settings, wire, received_forwarded = self.settings, head.forward_bytes, b""
        if settings.forwarded:
            if trusted:
                received_forwarded = b", ".join(field_values(wire, b"forwarded"))
            # From anybody else it may be an invention.
            wire = remove_fields(wire, b"forwarded")
        if settings.request_id == "make" or (
            settings.request_id == "keep"
            and not _is_single_value(field_values(wire, b"x-request-id"))
        ):
            wire = remove_fields(wire, b"x-request-id")
            wire += b"X-Request-Id: %b\r\n" % self.new_request_id()
        return wire + build_forwarded_fields(
            head, client, proto, local, trusted, settings, received_forwarded
        )


def _is_single_value(values: list[bytes]) -> bool:
    return len(values) == 1 and bool(values[0])


def request_id_generator(random: Random) -> Callable[[], bytes]:
    """What makes ids of requests: 26 hexadecimal digits at random."""

    def make() -> bytes:
        high, low = (int(random.random() * 2**52) for _ in range(2))
        return b"%013x%013x" % (high, low)

    return make


class Forwarder:
    """
    Knows the client, and keeps what most of its requests need.

    `fast_suffix` is the end of the head of a usual request to `host`; there are such
    requests if it `has_fast_path`.
    """

    __slots__ = ("_client", "_forwarding", "fast_suffix", "has_fast_path", "host", "trusted")

    def __init__(self, client: str, trusted: bool, forwarding: ForwardingPolicy) -> None:
        self.host: bytes | None = None
        self.fast_suffix = b""
        self.trusted = trusted
        self.has_fast_path = forwarding.is_default and not trusted
        self._client = client.encode("ascii")
        self._forwarding = forwarding

    def set_host(self, host: bytes | None) -> None:
        """Requests go to `host` from here on."""
        self.host = host
        self.fast_suffix = build_default_forwarded_fields(self._client, b"http", host or b"")

    def build_head(self, head: RequestHead, transport: StreamTransport) -> bytes:
        """
        The head of any request. The address that the client is connected to
        stands for the host that it did not name.
        """
        local = b""
        if head.host is None:
            here: Any = transport.getHost()
            address = TcpAddress(getattr(here, "host", "localhost"), getattr(here, "port", 80))
            local = str(address).encode()
        return self._forwarding.build_head(head, self._client, b"http", local, self.trusted)
