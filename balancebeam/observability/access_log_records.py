"""
Access log records: what a log format reads of a finished exchange.

The protocols are the contract between exchanges and logs. Exchanges implement
them as they are, so that logging a request copies nothing.
"""

from __future__ import annotations

from typing import Protocol

from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.proxy.timeline import RouteNames, Timeline
from balancebeam.tls.interfaces import TlsInfo

# As nginx logs a client that disconnected before the response.
CLIENT_CLOSED_REQUEST = 499


class PoolName(Protocol):
    """The dispatcher of an exchange, as far as logs read it."""

    @property
    def pool_name(self) -> str:
        """The name of the pool."""


class ExchangeRecord(Timeline, Protocol):
    """What finished HTTP requests and TCP connections have in common."""

    @property
    def client(self) -> str:
        """The address of the client, after the rules for trusted proxies."""

    @property
    def dispatcher(self) -> PoolName:
        """The dispatcher; names the pool."""

    @property
    def route(self) -> RouteNames | None:
        """The route; `None` before it is known."""

    @property
    def tls(self) -> TlsInfo | None:
        """The TLS handshake of the client's connection."""

    @property
    def limit_name(self) -> str:
        """The name of the limit that has rejected the exchange; empty otherwise."""


class HttpRecord(ExchangeRecord, Protocol):
    """A finished HTTP request."""

    @property
    def head(self) -> RequestHead:
        """The head of the request, as the client sent it."""

    @property
    def http_version(self) -> str:
        """The version of the client's request, such as "1.1"."""

    @property
    def upstream_head(self) -> bytes:
        """The head of the request, as it was built for a server."""

    @property
    def body_bytes_received(self) -> int:
        """The length of the request body received, in bytes, without framing."""

    @property
    def body_bytes_sent(self) -> int:
        """The length of the body that was sent to the client, in bytes."""

    @property
    def truncated(self) -> bool:
        """Whether the response ended before it was complete."""


class TcpRecord(ExchangeRecord, Protocol):
    """A closed TCP connection."""

    @property
    def server_name(self) -> str:
        """The address of the server; empty if the client was connected to none."""

    @property
    def close_reason(self) -> str:
        """Why the connection was closed."""

    @property
    def bytes_from_client(self) -> int:
        """The number of bytes received from the client."""

    @property
    def bytes_from_server(self) -> int:
        """The number of bytes received from the server."""

    @property
    def started_at(self) -> float:
        """When the connection was accepted, in seconds on the reactor's clock."""


def logged_status(record: HttpRecord) -> int:
    """Return the status that was sent to the client; 499 if it disconnected before."""
    status = record.status
    return CLIENT_CLOSED_REQUEST if record.client_aborted and not status else status


def referer_and_agent(head: bytes) -> tuple[bytes, bytes]:
    """Return the values of Referer and User-Agent in a request head; empty without one."""
    # The spelling of nearly all clients first. `partition` costs less than `find` and a slice.
    _, has_agent, agent = head.partition(b"\r\nUser-Agent: ")
    _, has_referer, referer = head.partition(b"\r\nReferer: ")
    if not (has_agent and has_referer):
        lower = head.lower()
        if not has_agent:
            agent = _after(head, lower, b"\r\nuser-agent:")
        if not has_referer:
            referer = _after(head, lower, b"\r\nreferer:")
    return referer.partition(b"\r")[0].strip(b" \t"), agent.partition(b"\r")[0].strip(b" \t")


def _after(head: bytes, lower_head: bytes, name: bytes) -> bytes:
    start = lower_head.find(name)
    return b"" if start < 0 else head[start + len(name) :]


def header_value(head: bytes, lower_head: bytes, name: bytes) -> bytes:
    """
    Return the value of the first header called `name`; empty if there is none.

    Args:
        head: A request head.
        lower_head: The same in lower case.
        name: The name between line break and colon, such as b"\\r\\nreferer:".
    """
    start = lower_head.find(name)
    if start < 0:
        return b""
    end = head.find(b"\r\n", start + len(name))
    return head[start + len(name) : end if end >= 0 else None].strip(b" \t")
