"""
An exchange: one request on its way, and what became of it.

A door makes one for each request and adapts it to its client; the spine, the
pool and a connection to a server do the rest through it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from balancebeam.http1.chains import read_address
from balancebeam.http1.fields import field_values
from balancebeam.http1.request_rules import RequestHead
from balancebeam.http1.responses import ResponseHead
from balancebeam.interfaces import Choice
from balancebeam.model import UpstreamFailure
from balancebeam.policy.limits.keys import pack_client
from balancebeam.proxy_protocol import ProxiedConnection
from balancebeam.transport import peer_name
from balancebeam.upstream.connection import UpstreamConnection
from balancebeam.upstream.directory import Server
from balancebeam.upstream.limiter import Held
from balancebeam.upstream.pool import Attempt

if TYPE_CHECKING:
    from balancebeam.doors.resource import BalancerResource

# Bytes of a body that are kept: until a server is connected, and in order to
# send them again should it fail.
BUFFER = 64 * 1024

Fields = tuple[tuple[bytes, bytes], ...]


class Exchange(ABC):
    """
    What all doors have in common.

    `wire` is the head as it goes to a server. `pending` is what of the body
    waits for a connection, in wire form. `reason` says why `server` has the
    request; `tried` are those where it failed. If the server is watched,
    `taken_at` is when it got it and `answered_at` when its response began, on
    the reactor's clock. `responded` means that a response has
    begun, `ended` that nothing more will happen, and `abandoned` that this is
    because the client has gone. `upload_paused` tells
    that the client must not send for now, because a server does not take it;
    `awaits_continue`, that it will send when the server tells it to.
    """

    connection: UpstreamConnection | None = None
    attempt: Attempt | None = None
    server: Server | None = None
    candidates: Iterator[Choice[Server]] = iter(())
    tried: tuple[Server, ...] = ()
    reason = ""
    held: Held = ()
    taken_at: float | None = None
    answered_at: float | None = None
    failure: UpstreamFailure | None = None
    body_complete = True
    responded = False
    ended = False
    abandoned = False
    upload_paused = False
    awaits_continue = False
    status = 0
    upgrade = b""
    pending: list[bytes] | tuple[()] = ()
    _pending_octets = 0
    _sent: list[bytes] | None = None
    _sent_octets = 0

    def __init__(
        self, spine: BalancerResource, head: RequestHead, wire: bytes, client: str
    ) -> None:
        self.spine = spine
        self.head = head
        self.method = head.method
        if head.extras.upgrade:
            self.upgrade = head.extras.upgrade
        self.wire = wire
        self.client = client

    # For limits to look at.

    @property
    def client_key(self) -> bytes:
        """The client's address in 4 or 16 octets."""
        return pack_client(self.client)

    @property
    def host(self) -> bytes | None:
        """Whom the client addressed."""
        return self.head.host

    @property
    def target(self) -> bytes:
        """What it asked for."""
        return self.head.target

    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`, which is in lower case."""
        return field_values(self.head.wire, name)

    # For doors to call.

    def expect_body(self) -> None:
        """There is a body, and it will come in by `upload`."""
        self.awaits_continue = self.head.extras.expects_continue
        self.body_complete = False
        self._sent = []

    def upload(self, data: bytes, last: bool) -> None:
        """More of the request's body, in wire form; `last` when it is complete."""
        if last:
            self.body_complete = True
        if not data:
            return
        self.awaits_continue = False
        if self._sent is not None:
            self._sent_octets += len(data)
            if self._sent_octets > BUFFER:
                self._sent = None
            else:
                self._sent.append(data)
        if self.connection is not None:
            self.connection.send_body(data)
            return
        if not self.pending:
            self.pending = []
            self._pending_octets = 0
        self.pending.append(data)
        self._pending_octets += len(data)
        if not last and self._pending_octets > BUFFER:
            self.pause_upload()

    def client_gone(self) -> None:
        """The client has left: nobody waits for the answer."""
        if self.ended:
            return
        self.ended = self.abandoned = True
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.abandon()
        self.spine.finished(self)

    # For the spine to call.

    def rewind(self) -> bool:
        """Make ready to be sent once more; false if the body is no longer here."""
        if self.body_complete and not self.head.length:
            return True
        if self._sent is None:
            return False
        self.pending = self._sent.copy()
        self._pending_octets = self._sent_octets
        return True

    @abstractmethod
    def answer(self, status: int, text: str, fields: Fields = ()) -> None:
        """Answer with an error of the proxy's own. The response has not begun."""

    @property
    def origin(self) -> ProxiedConnection | None:
        """
        The client's connection, as a header of the PROXY protocol names it. If
        a proxy spoke for the client, its port is not known.
        """
        transport = self.client_transport()
        peer, here = transport.getPeer(), transport.getHost()
        if read_address(self.client) is None or not hasattr(here, "port"):
            return None
        port = peer.port if peer_name(peer) == self.client else 0
        return ProxiedConnection(self.client, port, peer_name(here), here.port)

    @abstractmethod
    def client_transport(self) -> Any:
        """The transport of the client's connection."""

    # For the pool and a connection to call; a door says how.

    @property
    def waits_for_client(self) -> bool:
        """Whether the server cannot answer because the client has yet to send."""
        return not (self.body_complete or self.upload_paused or self.awaits_continue)

    def is_stuck(self, now: float) -> bool:
        """Whether the client takes nothing; doors with sweeps of their own know better."""
        return False

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        self.connection = None
        self.spine.failed(self, failure)

    @abstractmethod
    def informational(self, head: ResponseHead) -> None:
        """See `Asker.informational`."""

    @abstractmethod
    def respond_whole(self, head: ResponseHead, body: bytes) -> None:
        """See `Asker.respond_whole`."""

    @abstractmethod
    def respond(self, head: ResponseHead, length: int) -> None:
        """See `Asker.respond`."""

    @abstractmethod
    def relay(self, data: bytes) -> None:
        """See `Asker.relay`."""

    @abstractmethod
    def flush(self) -> None:
        """See `Asker.flush`."""

    @abstractmethod
    def finish(self, content: bytes, trailers: bytes) -> None:
        """See `Asker.finish`."""

    @abstractmethod
    def cut(self, why: UpstreamFailure) -> None:
        """See `Asker.cut`."""

    @abstractmethod
    def switch(self, head: ResponseHead) -> None:
        """See `Asker.switch`."""

    @abstractmethod
    def tunnel_data(self, data: bytes) -> None:
        """See `Asker.tunnel_data`."""

    @abstractmethod
    def tunnel_ended(self, clean: bool) -> None:
        """See `Asker.tunnel_ended`."""

    @abstractmethod
    def pause_upload(self) -> None:
        """See `Asker.pause_upload`."""

    @abstractmethod
    def resume_upload(self) -> None:
        """See `Asker.resume_upload`."""
