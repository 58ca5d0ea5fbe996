"""TLS handshakes of connections to servers, with resumption of the last session."""

from __future__ import annotations

import ssl
import typing
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.net.tls_transport import HandshakeOwner, TlsTransport
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.tls.errors import describe_ssl_error

# RFC 9113, 3.2: over TLS, ALPN selects HTTP/2; there is no prior knowledge.
NO_HTTP2 = "server did not negotiate h2"


class TlsHandshakeError(Exception):
    """A TLS handshake with a server failed; the text has the reason."""


class HandshakeResult(typing.Protocol):
    """Receives the result of a failed handshake."""

    def handshake_failed(self, error: TlsHandshakeError) -> None:
        """The handshake failed, and the connection is closed."""


class UpstreamTlsTransport(TlsTransport):
    """
    A TLS connection to a server.

    Attributes:
        tls: Context and name of the connection.
    """

    __slots__ = ("_offered", "tls")

    def __init__(self, lower: Any, tls: ServerTls, owner: HandshakeOwner) -> None:
        self.tls = tls
        self._offered = tls.session
        super().__init__(
            lower,
            tls.context,
            owner,
            server_side=False,
            server_hostname=tls.server_hostname,
            session=self._offered,
        )

    def save_session(self) -> None:
        """
        Keep the session for the next connections, unless the last one is still accepted.

        To copy a session costs as much as half a handshake. So this is done once for each full
        handshake: a server that rejects the offered session has made a full one.
        """
        engine, tls = self.engine, self.tls
        if engine is None or self.protocol is None:
            # The handshake is not complete: the TLS library cannot encode such a session.
            return
        if tls.session is not self._offered or engine.session_reused:
            return
        session = engine.session
        # In TLS 1.3, there is no identifier before the ticket, which follows the handshake.
        if session is not None and session.id:
            tls.session = session

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.save_session()
        super().connectionLost(reason)


def has_negotiated_http2(transport: TlsTransport) -> bool:
    """Whether ALPN has selected HTTP/2 in a complete handshake."""
    engine = transport.engine
    return engine is not None and engine.selected_alpn_protocol() == "h2"


def save_session(transport: Any) -> None:
    """Keep the TLS session of a connection to a server; does nothing without TLS."""
    if isinstance(transport, UpstreamTlsTransport):
        transport.save_session()


def tls_of(transport: Any) -> ServerTls | None:
    """The TLS context and name of a connection to a server; `None` without TLS."""
    return transport.tls if isinstance(transport, UpstreamTlsTransport) else None


@implementer(IHalfCloseableProtocol)
class UpstreamHandshake(Protocol):
    """
    Runs the handshake on a new connection, and then attaches the application protocol.

    Attributes:
        tls: Context and name of the connection.
    """

    transport: Any

    def __init__(
        self, attempt: HandshakeResult, tls: ServerTls, connection: Protocol, preamble: bytes
    ) -> None:
        """
        Args:
            attempt: Notified if the handshake fails.
            tls: Context and name of the connection.
            connection: The application protocol, connected after the handshake.
            preamble: The PROXY header, sent before the ClientHello; may be empty.
        """
        self.tls = tls
        self._attempt: HandshakeResult | None = attempt
        self._connection: Protocol = connection
        self._preamble = preamble

    def connectionMade(self) -> None:
        transport = self.transport
        if self._preamble:
            transport.write(self._preamble)
        try:
            upper = UpstreamTlsTransport(transport, self.tls, self)
        except ValueError as error:
            # The name is not valid in SNI, or there is none to verify.
            transport.abortConnection()
            self._fail(str(error))
            return
        transport.protocol = upper
        upper.start()

    def abort_handshake(self, text: str) -> None:
        """Close the connection within the handshake, which fails with `text`."""
        self.transport.abortConnection()
        self._fail(text)

    # HandshakeOwner

    def handshake_completed(self, transport: TlsTransport) -> None:
        if self.tls.http2 and not has_negotiated_http2(transport):
            self.abort_handshake(NO_HTTP2)
            return
        self._attempt = None
        transport.attach(self._connection)

    def handshake_failed(self, transport: TlsTransport, error: Exception) -> None:
        # A session that the server cannot resume must not fail all further handshakes.
        self.tls.session = None
        if transport.nothing_buffered:
            transport.lower.loseConnection()
        else:
            transport.lower.abortConnection()
        self._fail(describe_handshake_error(error))

    def _fail(self, text: str) -> None:
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.handshake_failed(TlsHandshakeError(f"TLS handshake failed: {text}"))

    # IHalfCloseableProtocol: after a ValueError only, when the connection is aborted

    def readConnectionLost(self) -> None:
        """Do nothing: the connection is aborted."""

    def writeConnectionLost(self) -> None:
        """Do nothing: the connection is aborted."""


def describe_handshake_error(error: Exception) -> str:
    """Return the reason of a failed handshake, such as the check that has failed."""
    if isinstance(error, ssl.SSLError):
        return describe_ssl_error(error).rstrip(".")
    # The text of Twisted's `ConnectionLost` begins with its docstring.
    return str(error.args[0]) if error.args else str(error)
