"""
Accepts client connections over TLS.

The ClientHello is read before a TLS context is chosen for it, and the handshake runs in that
context alone. So the verification of client certificates and the session tickets always
belong to the context; callbacks of the TLS library that switch contexts in a handshake do
not guarantee that. After the handshake, the connection is handed over to the client's channel.
"""

from __future__ import annotations

import re
import ssl
from collections import defaultdict
from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.downstream.context import DRAIN_IDLE_TIMEOUT, ConnectionSet
from balancebeam.downstream.factory import DownstreamFactory
from balancebeam.net.addresses import peer_ip
from balancebeam.net.ticker import sweep_each
from balancebeam.net.tls_transport import TlsTransport
from balancebeam.protocols.client_hello import ClientHello, ClientHelloError, ClientHelloReader
from balancebeam.protocols.proxy_protocol import ProxyInfo
from balancebeam.protocols.tls_records import (
    INTERNAL_ERROR,
    PROTOCOL_VERSION,
    AlertError,
    encode_fatal_alert,
    is_http_request,
)
from balancebeam.tls.errors import describe_ssl_error
from balancebeam.tls.interfaces import ACME_TLS_PROTOCOL, ContextSelector, TlsInfo

# Handshakes of one frontend at once. Beyond it, the oldest one is aborted, so that a flood
# neither fills the memory (about 60 KiB each) nor keeps out clients that complete theirs in time.
MAX_HANDSHAKES = 1024

# Seconds for which a rejected client can read the alert or the response: closing at once, with
# unread input, would send a reset, which can destroy it.
LINGERING_TIMEOUT = 2.0

# Seconds between two log lines about failed handshakes with the same reason.
LOG_INTERVAL = 60.0

# The beginning of a method: whether it is a request is not known yet.
_PARTIAL_METHOD = re.compile(rb"[A-Z][A-Z-]{0,31} ?")

# The first byte of an SSL 2 ClientHello: the high bit of a length of two bytes.
_SSL2_HELLO = 0x80

# Substrings of the reasons of OpenSSL, and the reason of the metric.
_REASONS = (
    ("CERTIFICATE", "certificate"),
    ("NO_SHARED_CIPHER", "cipher"),
    ("NO_SUITABLE", "cipher"),
    ("UNSUPPORTED_PROTOCOL", "version"),
    ("VERSION", "version"),
    ("ALERT", "alert"),
)


class TlsFactory(ServerFactory):
    """
    Performs the TLS handshake of each connection, and then passes it to `wrapped_factory`.

    Attributes:
        wrapped_factory: Builds the channels of the clients.
        contexts: Selects the context of each connection; a reload replaces or changes it.
        handshakes: Connections whose handshake is not complete, the oldest first.
        completed: Number of handshakes by version and whether a session was resumed.
        failed: Number of failed handshakes by reason.
    """

    noisy = False
    _log = Logger()

    def __init__(self, wrapped_factory: DownstreamFactory) -> None:
        self.wrapped_factory = wrapped_factory
        self.contexts: ContextSelector | None = None
        self.handshakes: ConnectionSet[TlsHandshake] = ConnectionSet()
        self.completed: defaultdict[tuple[str, bool], int] = defaultdict(int)
        self.failed: defaultdict[str, int] = defaultdict(int)
        self._by_age: dict[TlsHandshake, None] = {}
        self._logged_at: dict[str, float] = {}
        wrapped_factory.ticker.add(self.sweep)
        wrapped_factory.pending_handshakes.append(self)

    def buildProtocol(self, addr: IAddress | None) -> TlsHandshake:  # type: ignore[override]
        return self.build_channel(peer_ip(addr))

    def build_channel(self, peer: str, proxy_info: ProxyInfo | None = None) -> TlsHandshake:
        """The protocol of a new connection; see `DownstreamFactory.build_channel`."""
        return TlsHandshake(self, peer, proxy_info)

    def add(self, handshake: TlsHandshake) -> None:
        """Add a connection, and abort the oldest one if there are too many."""
        self.handshakes.add(handshake)
        self._by_age[handshake] = None
        if len(self._by_age) > MAX_HANDSHAKES:
            next(iter(self._by_age)).abort("overload", "too many handshakes at once")

    def remove(self, handshake: TlsHandshake) -> None:
        """Remove a connection; a second call does nothing."""
        self.handshakes.discard(handshake)
        self._by_age.pop(handshake, None)

    def hand_over(self, handshake: TlsHandshake) -> None:
        """Remove a connection that a client's channel gets."""
        self.handshakes.hand_over(handshake)
        self._by_age.pop(handshake, None)

    def count_failure(self, peer: str, reason: str, text: str) -> None:
        """
        Count a failed handshake, and log it unless the same reason was logged recently.

        Args:
            peer: IP address of the client.
            reason: A word of a fixed set, for metrics.
            text: The details, for the log.
        """
        self.failed[reason] += 1
        now = self.wrapped_factory.ticker.now
        logged_at = self._logged_at.get(reason)
        if logged_at is None or now - logged_at >= LOG_INTERVAL:
            self._logged_at[reason] = now
            self._log.info(
                "TLS handshake with {peer} failed: {text} ({reason}, {count} so far)",
                peer=peer,
                text=text,
                reason=reason,
                count=self.failed[reason],
            )

    def sweep(self, now: float) -> None:
        """Abort connections whose handshake is late, and idle ones while draining."""
        sweep_each(self.handshakes, lambda handshake: handshake.check_timeouts(now))

    @property
    def has_connections(self) -> bool:
        """Whether the handshake of any connection is incomplete."""
        return bool(self.handshakes)

    @property
    def byte_counts(self) -> tuple[int, int]:
        """Bytes received and sent on connections without a complete handshake."""
        return self.handshakes.byte_counts

    def close_all(self) -> None:
        """Abort all connections whose handshake is incomplete."""
        for handshake in list(self.handshakes):
            handshake.abort("", "")


@implementer(IHalfCloseableProtocol)
class TlsHandshake(Protocol):
    """
    Reads the ClientHello, runs the handshake, and hands the connection over to a channel.

    Attributes:
        started_at: When the connection was accepted, on the ticker.
    """

    transport: Any

    def __init__(self, factory: TlsFactory, peer: str, proxy_info: ProxyInfo | None) -> None:
        self.factory: TlsFactory = factory
        self.started_at = factory.wrapped_factory.ticker.now
        self._peer = peer
        self._proxy_info = proxy_info
        self._reader: ClientHelloReader | None = ClientHelloReader()
        self._hello: ClientHello | None = None
        # When the client was rejected, on the ticker; its input is ignored from then on.
        self._rejected_at: float | None = None

    @property
    def _no_input(self) -> bool:
        """Whether nothing has been received."""
        return self._reader is not None and not self._reader.received

    def connectionMade(self) -> None:
        self.factory.add(self)

    def dataReceived(self, data: bytes) -> None:
        reader = self._reader
        if reader is None or self._rejected_at is not None:
            return
        try:
            hello = reader.feed(data)
        except ClientHelloError as error:
            self._reject_unreadable(reader.received, error)
            return
        if hello is not None:
            self._reader = None
            self._start(hello, reader.received)

    def _start(self, hello: ClientHello, received: bytearray) -> None:
        """Start the handshake in the context for `hello`."""
        contexts = self.factory.contexts
        try:
            if contexts is None:
                # A reload has removed TLS from the frontend.
                raise AlertError(INTERNAL_ERROR, "closed", "the frontend has no TLS any more")
            context = contexts.select(hello)
        except AlertError as error:
            self._reject(encode_fatal_alert(error.description), error.reason, str(error))
            return
        self._hello = hello
        transport = self.transport
        tls = TlsTransport(transport, context, self, server_side=True)
        transport.protocol = tls
        tls.start(received)

    # HandshakeOwner

    def handshake_completed(self, transport: TlsTransport) -> None:
        """Hand the connection over to the client's channel."""
        factory, hello, engine = self.factory, self._hello, transport.engine
        assert hello is not None and engine is not None
        info = TlsInfo(
            engine.version() or "",
            bool(engine.session_reused),
            engine.selected_alpn_protocol(),
            hello.server_name,
            engine.getpeercert(True),
        )
        factory.completed[info.version, info.resumed] += 1
        if info.alpn == ACME_TLS_PROTOCOL:
            factory.remove(self)
            transport.attach(ValidationConnection())
            return
        factory.hand_over(self)
        channel = factory.wrapped_factory.build_channel(self._peer, self._proxy_info, info)
        transport.attach(channel)

    def handshake_failed(self, transport: TlsTransport, error: Exception) -> None:
        """Close the connection; the client can still read the alert."""
        if isinstance(error, ssl.SSLError):
            self.transport.protocol = self
            self._reject(b"", _classify(error), describe_ssl_error(error))
        else:
            self.abort("closed", "connection closed by the peer")

    # Rejection

    def _reject_unreadable(self, received: bytearray, error: ClientHelloError) -> None:
        """Reject bytes that are not a ClientHello; HTTP without TLS gets a response."""
        if _PARTIAL_METHOD.fullmatch(received):
            # Perhaps HTTP. The reader raises the same error for the next bytes.
            return
        if is_http_request(received):
            response = self.factory.wrapped_factory.plaintext_reply(self._peer, bytes(received))
            self._reject(response, "plaintext", "HTTP request without TLS")
            return
        alert = PROTOCOL_VERSION if received[0] & _SSL2_HELLO else error.alert
        self._reject(encode_fatal_alert(alert), "protocol", str(error))

    def _reject(self, response: bytes, reason: str, text: str) -> None:
        """Send `response` and EOF, and ignore what the client still sends."""
        self._reader = None
        self._rejected_at = self.factory.wrapped_factory.ticker.now
        self.factory.count_failure(self._peer, reason, text)
        if response:
            self.transport.write(response)
        self.transport.loseWriteConnection()

    def abort(self, reason: str, text: str) -> None:
        """Abort the connection; a failure with `reason` is counted unless that is empty."""
        self.factory.remove(self)
        if reason and self._rejected_at is None:
            self.factory.count_failure(self._peer, reason, text)
        self._rejected_at = self.started_at
        self.transport.abortConnection()

    def check_timeouts(self, now: float) -> None:
        """Abort if the handshake is late, or nothing was received while draining."""
        factory = self.factory.wrapped_factory
        if self._rejected_at is not None:
            if now - self._rejected_at >= LINGERING_TIMEOUT:
                self.abort("", "")
        elif now - self.started_at >= factory.timeouts.header:
            self.abort("timeout", "header timeout expired")
        elif factory.draining and self._no_input and now - self.started_at >= DRAIN_IDLE_TIMEOUT:
            self.abort("", "")

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        if self._rejected_at is None:
            # Health checks of load balancers connect and close: no failure without input.
            self.abort("" if self._no_input else "closed", "connection closed by the peer")
        else:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: the alert is sent; the client closes the connection."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.remove(self)
        if self._rejected_at is None and not self._no_input:
            self.factory.count_failure(self._peer, "closed", "connection closed by the peer")


class ValidationConnection(Protocol):
    """
    A connection of an ACME server that validates a name: closes it after the handshake.

    The protocol has no application data (RFC 8737, 4), and what is received is ignored. Otherwise
    a client could send requests in the context of a challenge, which verifies no client.
    """

    transport: Any

    def connectionMade(self) -> None:
        self.transport.loseConnection()


def _classify(error: ssl.SSLError) -> str:
    """Return the reason of a failed handshake, a word of a fixed set."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate"
    reason = error.reason or ""
    for part, word in _REASONS:
        if part in reason:
            return word
    return "protocol"
