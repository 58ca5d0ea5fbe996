"""
Access log records: what a log format reads of a finished exchange.

The protocols are the contract between exchanges and logs. Exchanges implement
them as they are, so that logging a request copies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from balancebeam.core.failures import UpstreamFailure
from balancebeam.protocols.http1.request_rules import RequestHead
from balancebeam.upstream.server import Server


class PoolName(Protocol):
    """The dispatcher of an exchange, as far as logs read it."""

    @property
    def pool_name(self) -> str:
        """The name of the pool."""


class HttpRecord(Protocol):
    """A finished HTTP request."""

    @property
    def client(self) -> str:
        """The address of the client, after the rules for trusted proxies."""

    @property
    def head(self) -> RequestHead:
        """The head of the request, as the client sent it."""

    @property
    def upstream_head(self) -> bytes:
        """The head of the request, as it was built for a server."""

    @property
    def dispatcher(self) -> PoolName:
        """The dispatcher; names the pool."""

    @property
    def status(self) -> int:
        """The status that was sent to the client; 0 if there was none."""

    @property
    def body_bytes_sent(self) -> int:
        """The length of the body that was sent to the client, in bytes."""

    @property
    def started_at(self) -> float:
        """When the request was read, in seconds since the epoch; 0 if unknown."""

    @property
    def last_server(self) -> Server | None:
        """The server of the last attempt; `None` if there was no attempt."""

    @property
    def attempted_servers(self) -> Sequence[Server]:
        """The servers of failed attempts, in order."""

    @property
    def failure(self) -> UpstreamFailure | None:
        """The last failure of a server."""

    @property
    def truncated(self) -> bool:
        """Whether the response ended before it was complete."""

    @property
    def client_aborted(self) -> bool:
        """Whether the client disconnected before the response was complete."""


class TcpRecord(Protocol):
    """A closed TCP connection."""

    @property
    def client(self) -> str:
        """The address of the client."""

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
