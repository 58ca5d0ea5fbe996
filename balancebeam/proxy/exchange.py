"""
An exchange: one request, or one connection, on its way, and what became of it.

A door makes one and adapts it to its client; the dispatcher, the pool and a
connection to a server do the rest through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

from balancebeam.admission.admission import Permits
from balancebeam.balancing.interfaces import Selection
from balancebeam.core.failures import UpstreamFailure
from balancebeam.core.ip import normalize_ip, pack_address
from balancebeam.net.addresses import peer_ip
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.upstream.connection_pool import ConnectAttempt
from balancebeam.upstream.server_set import Server

if TYPE_CHECKING:
    from balancebeam.proxy.dispatcher import BalancerResource

# Bytes that are kept: until a server is connected, and of a request's body in
# order to send them again should it fail.
BUFFER_SIZE = 64 * 1024

Fields = tuple[tuple[bytes, bytes], ...]


class Observer(Interface):
    """Who is told of every request that has ended, or could not even be read."""

    def exchange_finished(self, exchange: Exchange) -> None:
        """`exchange` is over, one way or another."""

    def request_rejected(self, request: RejectedRequest) -> None:
        """`request` was answered by the door."""


class Exchange(ABC):
    """
    What the dispatcher and the pool have to know of it.

    `pending_body` is what waits for a connection. `selection_reason` says why `server` has
    the exchange; `attempted_servers` are those where it failed, `last_server` is who had it
    last. If the server is tracked,
    `sent_at` is when it got it and `response_started_at` when its answer began, on
    the reactor's clock. `downstream_response_started` means that an answer has begun, `finished`
    that nothing more will happen, `client_aborted` that this is because the
    client has gone, and `truncated` that the answer was cut. One on its
    `max_forwards_exhausted` must not go on, but has to be answered here. `upload_paused`
    tells that the client must not send for now, because a server does not take
    it.
    """

    dispatcher: BalancerResource
    observer: Observer | None = None
    client: str
    method: bytes
    connection: Any = None
    attempt: ConnectAttempt | None = None
    server: Server | None = None
    last_server: Server | None = None
    candidates: Iterator[Selection[Server]] = iter(())
    attempted_servers: tuple[Server, ...] = ()
    selection_reason = ""
    permits: Permits = ()
    sent_at: float | None = None
    response_started_at: float | None = None
    failure: UpstreamFailure | None = None
    downstream_response_started = False
    finished = False
    client_aborted = False
    truncated = False
    upload_paused = False
    max_forwards_exhausted = False
    status = 0
    pending_body: list[bytes] | tuple[()] = ()
    _pending_bytes = 0

    # For the dispatcher.

    @abstractmethod
    def rewind(self) -> bool:
        """Make ready to be sent once more; false if what was sent is no longer here."""

    @abstractmethod
    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        """Answer with an error of the proxy's own. No other answer has begun."""

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """A server did not answer."""
        self.connection = None
        self.dispatcher.attempt_failed(self, failure)

    # For limits to look at.

    @property
    def client_key(self) -> bytes:
        """The client's address in 4 or 16 octets."""
        return pack_address(self.client)

    @property
    @abstractmethod
    def host(self) -> bytes | None:
        """Whom the client addressed."""

    @property
    @abstractmethod
    def target(self) -> bytes:
        """What it asked for."""

    @abstractmethod
    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`, which is in lower case."""

    # For servers that want to be told of the client.

    @property
    def proxy_info_for_upstream(self) -> ProxyInfo | None:
        """
        The client's connection, as a header of the PROXY protocol names it. If
        a proxy spoke for the client, its port is not known.
        """
        came = self.proxy_info
        if came is not None and came.source == self.client:
            return came
        transport = self.client_transport()
        peer, here = transport.getPeer(), transport.getHost()
        if normalize_ip(self.client) is None or not hasattr(here, "port"):
            return None
        port = peer.port if peer_ip(peer) == self.client else 0
        return ProxyInfo(self.client, port, peer_ip(here), here.port)

    @property
    def proxy_info(self) -> ProxyInfo | None:
        """The connection of which a proxy told that speaks the PROXY protocol."""
        return None

    @abstractmethod
    def client_transport(self) -> Any:
        """The transport of the client's connection."""

    # For doors to call.

    def buffer_body(self, data: bytes, last: bool) -> None:
        """Keep what the client has sent until there is a server for it."""
        if not self.pending_body:
            self.pending_body = []
            self._pending_bytes = 0
        self.pending_body.append(data)
        self._pending_bytes += len(data)
        if not last and self._pending_bytes > BUFFER_SIZE:
            self.pause_upload()

    def client_disconnected(self) -> None:
        """The client has left: nobody waits for the answer."""
        if self.finished:
            return
        self.finished = self.client_aborted = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.detach()
        self.dispatcher.request_finished(self)

    # Backpressure.

    @abstractmethod
    def pause_upload(self) -> None:
        """The server takes no more for now."""

    @abstractmethod
    def resume_upload(self) -> None:
        """The server takes more."""
