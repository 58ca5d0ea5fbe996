"""
The base class of exchanges: one request, or one TCP connection, with its response.

A downstream protocol creates an exchange and adapts it to its client; the
dispatcher, the connection pool and the upstream connection process it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from twisted.internet.address import IPv4Address, IPv6Address

from balancebeam.admission.admission import Permits
from balancebeam.balancing.interfaces import Selection
from balancebeam.core.failures import UpstreamFailure
from balancebeam.core.ip import normalize_ip, pack_address
from balancebeam.net.addresses import peer_ip
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.proxy.interfaces import AbandonableConnection, ClientTransport, Observer, Pipeline
from balancebeam.proxy.timeline import LIMIT, REFUSED, RouteNames, Try
from balancebeam.ratelimit.limit import Rejection
from balancebeam.tls.interfaces import TlsInfo
from balancebeam.upstream.connect_attempt import Detachable
from balancebeam.upstream.server import Server

# Bytes of the request that are buffered: until a server is connected, and of a body
# for a retry. It is also the size at which reading from the client is paused.
BUFFER_SIZE = 64 * 1024

Fields = tuple[tuple[bytes, bytes], ...]


class Exchange(ABC):
    """
    The state of an exchange that does not depend on the client's protocol.

    Defaults are class attributes, so that a new exchange sets only what differs.

    Attributes:
        dispatcher: The pipeline that processes the exchange.
        observer: Receives the exchange when it is finished; `None` without logs.
        client: The client's IP address as text, reported by a proxy if that is
            trusted; "unknown" for Unix sockets.
        method: The request's method; empty for a TCP connection.
        connection: The upstream connection that sends the request.
        attempt: The connect attempt that the exchange waits for.
        server: The server that has the exchange in flight.
        last_server: The last server that had it.
        candidates: The servers still to try; the dispatcher sets it before the
            first attempt.
        attempted_servers: The servers at which it failed.
        sent_again: Whether it was sent again because the connection was closed, or the server
            refused it, before it was processed; reset when another server is tried.
        selection_reason: Why `server` was selected, for logs.
        permits: What `Admission.release` has to give back.
        sent_at: When `server` got the request, on the reactor's clock; set for
            tracked servers only.
        response_started_at: When the response's head arrived, on the reactor's
            clock; set for tracked servers only.
        failure: The failure of the last attempt that failed.
        downstream_response_started: Whether a response was sent to the client, or
            a part of it.
        finished: Whether the exchange is complete, and `request_finished` was or is
            about to be called.
        client_aborted: Whether the client disconnected before the response was
            complete.
        truncated: Whether the response was cut off.
        upload_paused: Whether reading from the client is paused because the server
            does not accept more.
        max_forwards_exhausted: Whether Max-Forwards is 0: the request must not be
            forwarded, and gets a local reply.
        status: The status of the response; 0 before there is one.
        pending_body: Body bytes received before an upstream connection exists.
        route: The route, with the names of route and frontend; see `timeline`.
        received_at: When the dispatcher got the request. This and the other times are
            in seconds of `Dispatcher.perf_counter`; 0 means not yet.
        queue_seconds: Time spent in the queue of the pool.
        connect_seconds: Duration of the connection attempt (name resolution, TCP, TLS)
            of the last attempt; `None` if it has opened no connection.
        attempt_at: When the request was sent to `server`; before, when the current wait
            for a connection or in the queue began.
        first_byte_at: When the head of the final response, or the first byte of a TCP
            server, arrived.
        finished_at: When the exchange ended.
        tries: The failed attempts, in order.
        last_try_failed: Whether the last attempt is in `tries`.
        outcome: How the exchange ended if it was not complete; see `timeline.ended`.
        limit_name: The name of the limit that has rejected the request.
        uneventful: Whether the first server has sent the whole response at once, over a
            connection that was open before; set for observers when the exchange is
            finished. Then `attempt_at` equals `received_at`, `first_byte_at` equals
            `finished_at`, and nothing was queued, connected, retried or cut off: one test
            instead of one for each attribute.
    """

    dispatcher: Pipeline[Exchange]
    observer: Observer[Exchange] | None = None
    client: str
    method: bytes
    connection: AbandonableConnection | None = None
    attempt: Detachable | None = None
    server: Server | None = None
    last_server: Server | None = None
    candidates: Iterator[Selection[Server]]
    attempted_servers: tuple[Server, ...] = ()
    sent_again = False
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
    route: RouteNames | None = None
    received_at = 0.0
    queue_seconds = 0.0
    connect_seconds: float | None = None
    attempt_at = 0.0
    first_byte_at = 0.0
    finished_at = 0.0
    tries: tuple[Try, ...] = ()
    last_try_failed = False
    outcome = ""
    limit_name = ""
    uneventful = False
    _pending_bytes = 0

    # Called by the dispatcher.

    @abstractmethod
    def rewind(self) -> bool:
        """Prepare to send the request again; return false if its body is not buffered."""

    @abstractmethod
    def local_reply(self, status: int, text: str, fields: Fields = ()) -> None:
        """Answer with an error of the balancer itself; no response has been started."""

    def reject(self, rejection: Rejection) -> None:
        """Answer a request that was not admitted."""
        self.limit_name = rejection.name
        self.outcome = LIMIT if rejection.name else REFUSED
        fields: Fields = ()
        if rejection.limit:
            # RFC 6585, 4: 429 "MAY include a Retry-After header".
            fields = (
                (b"Retry-After", b"%d" % rejection.retry_after),
                (b"RateLimit", rejection.limit.encode()),
                (b"RateLimit-Policy", rejection.policy.encode()),
            )
        self.local_reply(rejection.status, rejection.message, fields)

    # Called by the connection pool and upstream connections.

    def upstream_connected(self) -> None:
        """Report to the dispatcher that a connection was opened for this exchange."""
        self.dispatcher.connected(self)

    def upstream_failed(self, failure: UpstreamFailure) -> None:
        """Report to the dispatcher that the server sent no response."""
        self.connection = None
        self.dispatcher.attempt_failed(self, failure)

    @property
    def proxy_info_for_upstream(self) -> ProxyInfo | None:
        """
        The client's connection for the PROXY header of an upstream connection.

        The port is 0 if a proxy reported the client's address, because it does not
        report the port. `None` without an IP address.
        """
        received = self.proxy_info
        if received is not None and received.source == self.client:
            return received
        transport = self.client_transport()
        peer, host = transport.getPeer(), transport.getHost()
        if normalize_ip(self.client) is None or not isinstance(host, (IPv4Address, IPv6Address)):
            return None
        port = peer.port if peer_ip(peer) == self.client else 0
        return ProxyInfo(self.client, port, peer_ip(host), host.port)

    @property
    def proxy_info(self) -> ProxyInfo | None:
        """The connection that the client's PROXY header described; `None` without one."""
        return None

    @abstractmethod
    def client_transport(self) -> ClientTransport:
        """The transport of the client's connection."""

    @abstractmethod
    def pause_upload(self) -> None:
        """Stop reading from the client: the server does not accept more."""

    @abstractmethod
    def resume_upload(self) -> None:
        """Read from the client again."""

    # Called by logs.

    @property
    def tls(self) -> TlsInfo | None:
        """The TLS handshake of the client's connection; `None` without TLS."""
        return None

    # Called by rate limits.

    @property
    def client_key(self) -> bytes:
        """The client's address in 4 or 16 bytes."""
        return pack_address(self.client)

    @property
    @abstractmethod
    def host(self) -> bytes | None:
        """The value of the Host field; `None` without one."""

    @property
    @abstractmethod
    def target(self) -> bytes:
        """The request target."""

    @abstractmethod
    def field_values(self, name: bytes) -> list[bytes]:
        """The values of the fields called `name`, which is in lower case."""

    # Called by downstream protocols.

    def buffer_body(self, data: bytes, last: bool) -> None:
        """
        Buffer body bytes until an upstream connection exists.

        Beyond `BUFFER_SIZE` bytes reading from the client is paused, unless `data`
        is the `last` of the body.
        """
        if not self.pending_body:
            self.pending_body = []
            self._pending_bytes = 0
        self.pending_body.append(data)
        self._pending_bytes += len(data)
        if not last and self._pending_bytes > BUFFER_SIZE:
            self.pause_upload()

    def client_disconnected(self) -> None:
        """Abandon the exchange: the client has disconnected."""
        if self.finished:
            return
        self.finished = self.client_aborted = True
        self.abandon_attempt()
        self.dispatcher.request_finished(self)

    def abandon_attempt(self) -> None:
        """Detach the exchange from the server, or from the connection attempt that it awaits."""
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.abandon()
        attempt, self.attempt = self.attempt, None
        if attempt is not None:
            attempt.detach()
