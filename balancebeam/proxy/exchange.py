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

from balancebeam.admission.admission import Held
from balancebeam.balancing.interfaces import Selection
from balancebeam.core.failures import UpstreamFailure
from balancebeam.core.ip import normalize_ip, pack_address
from balancebeam.net.transport import peer_ip
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.rejected import UnreadRequest
from balancebeam.upstream.connection_pool import ConnectAttempt
from balancebeam.upstream.server_set import Server

if TYPE_CHECKING:
    from balancebeam.proxy.dispatcher import BalancerResource

# Bytes that are kept: until a server is connected, and of a request's body in
# order to send them again should it fail.
BUFFER = 64 * 1024

Fields = tuple[tuple[bytes, bytes], ...]


class Observer(Interface):
    """Who is told of every request that has ended, or could not even be read."""

    def exchange_ended(self, exchange: Exchange) -> None:
        """`exchange` is over, one way or another."""

    def request_refused(self, request: UnreadRequest) -> None:
        """`request` was answered by the door."""


class Exchange(ABC):
    """
    What the dispatcher and the pool have to know of it.

    `pending` is what waits for a connection. `reason` says why `server` has
    the exchange; `tried` are those where it failed, `last_server` is who had it
    last. If the server is tracked,
    `taken_at` is when it got it and `answered_at` when its answer began, on
    the reactor's clock. `responded` means that an answer has begun, `ended`
    that nothing more will happen, `abandoned` that this is because the
    client has gone, and `incomplete` that the answer was cut. One on its
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
    tried: tuple[Server, ...] = ()
    reason = ""
    held: Held = ()
    taken_at: float | None = None
    answered_at: float | None = None
    failure: UpstreamFailure | None = None
    responded = False
    ended = False
    abandoned = False
    incomplete = False
    upload_paused = False
    max_forwards_exhausted = False
    status = 0
    pending_body: list[bytes] | tuple[()] = ()
    _pending_octets = 0

    # For the dispatcher.

    @abstractmethod
    def rewind(self) -> bool:
        """Make ready to be sent once more; false if what was sent is no longer here."""

    @abstractmethod
    def answer(self, status: int, text: str, fields: Fields = ()) -> None:
        """Answer with an error of the proxy's own. No other answer has begun."""

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """A server did not answer."""
        self.connection = None
        self.dispatcher.failed(self, failure)

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
    def origin(self) -> ProxyInfo | None:
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

    def hold(self, data: bytes, last: bool) -> None:
        """Keep what the client has sent until there is a server for it."""
        if not self.pending_body:
            self.pending_body = []
            self._pending_octets = 0
        self.pending_body.append(data)
        self._pending_octets += len(data)
        if not last and self._pending_octets > BUFFER:
            self.pause_upload()

    def client_disconnected(self) -> None:
        """The client has left: nobody waits for the answer."""
        if self.ended:
            return
        self.ended = self.abandoned = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.detach()
        self.dispatcher.finished(self)

    # Backpressure.

    @abstractmethod
    def pause_upload(self) -> None:
        """The server takes no more for now."""

    @abstractmethod
    def resume_upload(self) -> None:
        """The server takes more."""
