"""
Forwarding: the head of a request as it is sent to a server.

`ForwardingPolicy` belongs to a frontend, `Forwarder` to one connection of a client.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen
from twisted.internet.address import IPv4Address, IPv6Address

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.interfaces import Random
from balancebeam.core.settings import ForwardingSettings
from balancebeam.net.interfaces import StreamTransport
from balancebeam.protocols.http1.fields import field_values, remove_fields
from balancebeam.protocols.http1.request_rules import NO_RARE_FIELDS, RequestHead
from balancebeam.proxy.forwarded_fields import (
    build_default_forwarded_fields,
    build_forwarded_fields,
    encode_client_cert,
)
from balancebeam.proxy.tracing import RequestTrace, Tracer


@frozen
class ForwardingPolicy:
    """
    Builds the heads of forwarded requests.

    Attributes:
        settings: Which fields about the client are sent.
        new_request_id: Returns a new value for X-Request-Id.
        tracer: Traces requests; `None` without tracing.
    """

    settings: ForwardingSettings
    new_request_id: Callable[[], bytes]
    tracer: Tracer | None = None

    @property
    def is_default(self) -> bool:
        """Whether `build_default_forwarded_fields` builds all added fields."""
        settings = self.settings
        return (
            settings.x_forwarded
            and not settings.forwarded
            and settings.request_id == "off"
            and settings.via is True
        )

    def build_head(
        self,
        head: RequestHead,
        client: bytes,
        proto: bytes,
        local: bytes,
        trusted: bool,
        client_cert: bytes = b"",
        version: bytes = b"",
    ) -> bytes:
        """
        Build the complete head of any request.

        Args:
            head: The head of the request.
            client: The peer's address as text.
            proto: "http" or "https".
            local: The value for a missing Host field.
            trusted: Whether the peer is a trusted proxy.
            client_cert: The Client-Cert line for the peer's certificate, ended by CRLF;
                empty without a certificate.
            version: The HTTP version of the client; empty for the version in `head`.
        """
        settings, head_bytes, received_forwarded = self.settings, head.forward_bytes, b""
        if settings.forwarded:
            if trusted:
                received_forwarded = b", ".join(field_values(head_bytes, b"forwarded"))
            # An untrusted peer may have forged it.
            head_bytes = remove_fields(head_bytes, b"forwarded")
        if settings.request_id == "make" or (
            settings.request_id == "keep"
            and not _is_single_value(field_values(head_bytes, b"x-request-id"))
        ):
            head_bytes = remove_fields(head_bytes, b"x-request-id")
            head_bytes += b"X-Request-Id: %b\r\n" % self.new_request_id()
        return head_bytes + build_forwarded_fields(
            head,
            client,
            proto,
            local,
            trusted,
            settings,
            received_forwarded,
            client_cert,
            version,
        )


def _is_single_value(values: list[bytes]) -> bool:
    return len(values) == 1 and bool(values[0])


def request_id_generator(random: Random) -> Callable[[], bytes]:
    """A function that generates request ids: 26 random hexadecimal digits, 104 bits."""

    def generate() -> bytes:
        high, low = (int(random.random() * 2**52) for _ in range(2))
        return b"%013x%013x" % (high, low)

    return generate


class Forwarder:
    """
    Builds the heads of one client connection, and caches what most of them end with.

    Args:
        client: The peer's address as text.
        trusted: Whether the peer is a trusted proxy.
        forwarding: The policy of the frontend.
        proto: The scheme of the connection, "http" or "https".
        client_cert: The verified certificate of the peer in DER; `None` without one.
        version: The HTTP version of the connection; empty for HTTP/1, where it is in each head.

    Attributes:
        host: The Host value for which `fast_suffix` was built.
        fast_suffix: The end of the head of a request without rare fields to `host`; with
            `tracer` without the empty line.
        has_fast_path: Whether `fast_suffix` may be used.
        trusted: Whether the client is a trusted proxy.
        tracer: Traces the requests; `None` without tracing. With one, `build_traced_head`
            builds all heads, and has a fast path of its own.
        via: The name in Via if it is not the default; empty to add no Via, `None` for the default.
            With any value but `None` there is no fast path.
    """

    __slots__ = (
        "_client",
        "_client_cert",
        "_forwarding",
        "_has_default_fields",
        "_proto",
        "_version",
        "fast_suffix",
        "has_fast_path",
        "host",
        "tracer",
        "trusted",
        "via",
    )

    def __init__(
        self,
        client: str,
        trusted: bool,
        forwarding: ForwardingPolicy,
        proto: bytes = b"http",
        client_cert: bytes | None = None,
        version: bytes = b"",
    ) -> None:
        self.host: bytes | None = None
        self.fast_suffix = b""
        self.trusted = trusted
        settings = forwarding.settings
        self.via = None if settings.via is True else settings.via_name
        self.tracer = forwarding.tracer
        self._has_default_fields = forwarding.is_default and not trusted
        self.has_fast_path = self._has_default_fields and self.tracer is None
        self._client = client.encode("ascii")
        self._forwarding = forwarding
        self._proto = proto
        self._version = version
        self._client_cert = b"" if client_cert is None else encode_client_cert(client_cert)

    def set_host(self, host: bytes | None) -> None:
        """Build `fast_suffix` for requests to `host`."""
        self.host = host
        self.fast_suffix = build_default_forwarded_fields(
            self._client, self._proto, host or b"", self._client_cert, self._version or b"1.1"
        )
        if self.tracer is not None:
            # The field of the trace and the empty line follow.
            self.fast_suffix = self.fast_suffix[:-2]

    def build_head(self, head: RequestHead, transport: StreamTransport) -> bytes:
        """
        Build the complete head of any request.

        A missing Host field gets the address that the client is connected to.
        """
        local = b""
        if head.host is None:
            host = transport.getHost()
            if isinstance(host, (IPv4Address, IPv6Address)):
                address = TcpAddress(host.host, host.port)
            else:
                # A Unix socket has neither host nor port.
                address = TcpAddress("localhost", 443 if self._proto == b"https" else 80)
            local = str(address).encode()
        return self._forwarding.build_head(
            head,
            self._client,
            self._proto,
            local,
            self.trusted,
            self._client_cert,
            self._version,
        )

    def build_traced_head(
        self, head: RequestHead, transport: StreamTransport
    ) -> tuple[bytes, RequestTrace | None]:
        """
        Build the complete head of any request, with the fields of its trace.

        Returns:
            The head, and the trace if there is tracing and the request is sampled.
        """
        tracer = self.tracer
        if tracer is None:
            return self.build_head(head, transport), None
        if (
            self._has_default_fields
            and head.rare_fields is NO_RARE_FIELDS
            and head.length >= 0
            and head.minor
        ):
            if head.host is not self.host:
                self.set_host(head.host)
            return tracer.trace(head.forward_bytes + self.fast_suffix, False)
        return tracer.trace(self.build_head(head, transport)[:-2], self.trusted)
