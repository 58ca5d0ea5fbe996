"""
TLS on a stream transport.

A `TlsTransport` is the protocol of a socket's transport and the transport of an application
protocol, as Twisted's `TLSMemoryBIOProtocol`. It uses `ssl.MemoryBIO` directly, which takes
about two thirds of the CPU time: one `recv(2)` and one `send(2)` carry many records. It works on
every stream transport.
"""

from __future__ import annotations

import ssl
from ssl import SSLWantReadError as NeedMoreInput
from typing import Any, Protocol

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, IProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from balancebeam.net.transport_wrapper import TransportWrapper
from balancebeam.tls.errors import TlsError, describe_ssl_error

# Bytes of plaintext in a record, at most (RFC 8446, 5.1).
MAX_RECORD = 2**14

# Plaintext that is encrypted at once. A MemoryBIO keeps the memory of its largest content until
# it is freed: after one write of 1 MiB, each connection would hold that much.
WRITE_SIZE = 2 * MAX_RECORD

# Bytes of TLS control messages that wait while the peer does not read: answers to its own
# messages (renegotiation, KeyUpdate), a flood of which would fill the memory.
MAX_CONTROL_BACKLOG = 4096


class HandshakeOwner(Protocol):
    """Starts a handshake, and decides what follows it."""

    def handshake_completed(self, transport: TlsTransport) -> None:
        """The handshake is complete. Call `attach` with the application protocol."""

    def handshake_failed(self, transport: TlsTransport, error: Exception) -> None:
        """
        The handshake failed, and the alert has been written. Close the transport below.

        `error` is an `ssl.SSLError`, or a `ConnectionLost` if the peer closed the connection.
        """


@implementer(IHalfCloseableProtocol, IProtocol)
class TlsTransport(TransportWrapper):
    """
    One TLS connection.

    Args:
        lower: The transport of the socket, or any other stream transport. Its protocol has to
            be set to this object.
        context: The context of the handshake.
        owner: Notified of the end of the handshake.
        server_side: Whether this is the server of the handshake.
        server_hostname: The name or IP address for SNI and verification; for clients only.
        session: A session to resume; for clients only.

    Attributes:
        lower: The transport below.
        engine: The state of the TLS library; `None` once the connection is closed.
        protocol: The application protocol, after the handshake.
        eof_truncated: The peer has closed its side without a close_notify alert, so that its
            last message may be cut (RFC 8446, 6.1).
    """

    __slots__ = (
        "_close_pending",
        "_encrypt",
        "_error",
        "_has_producer",
        "_incoming",
        "_input_closed",
        "_outgoing",
        "_output_closed",
        "_owner",
        "_read",
        "_send",
        "_server_side",
        "engine",
        "eof_truncated",
        "protocol",
    )

    def __init__(
        self,
        lower: Any,
        context: ssl.SSLContext,
        owner: HandshakeOwner,
        *,
        server_side: bool,
        server_hostname: str | None = None,
        session: ssl.SSLSession | None = None,
    ) -> None:
        super().__init__(lower)
        self.protocol: Any = None
        self.eof_truncated = False
        self._owner: HandshakeOwner | None = owner
        lower.bufferSize = WRITE_SIZE  # The incoming BIO keeps its memory, too.
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.engine: ssl.SSLObject | None = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_side,
            server_hostname=server_hostname,
            session=session,
        )
        # The methods of the C object: `SSLObject` delegates to them, by a call in Python for
        # each record (60 ns on CPython 3.11).
        raw: Any = getattr(self.engine, "_sslobj", self.engine)
        self._read, self._encrypt = raw.read, raw.write
        self._send = lower.write
        self._server_side = server_side
        self._input_closed = False
        self._output_closed = False
        self._has_producer = False
        # `loseConnection` was called while a producer was registered.
        self._close_pending = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.lower!r}>"

    # Handshake

    def start(self, received: bytes | bytearray = b"") -> None:
        """Start the handshake with the bytes that were `received` before."""
        if received:
            self._incoming.write(received)
        self._continue_handshake()

    def attach(self, protocol: Any) -> None:
        """Connect the application protocol. The handshake is complete."""
        self.protocol = protocol
        protocol.makeConnection(self)
        if self._incoming.pending and not self._input_closed:
            self._read_records()

    def _continue_handshake(self) -> None:
        engine, owner = self.engine, self._owner
        assert engine is not None and owner is not None
        try:
            engine.do_handshake()
        except NeedMoreInput:
            self._flush()
            return
        except ssl.SSLError as error:
            self._owner = None
            self._flush()
            self._output_closed = self._input_closed = True
            owner.handshake_failed(self, error)
            return
        self._owner = None
        # The first request may have arrived with the last flight of the client. The session
        # ticket is then sent with its response, which saves a segment. In TLS 1.2, the client
        # waits for Finished, even if it has sent data before that (RFC 7918).
        early_request = self._server_side and self._incoming.pending
        early_request = early_request and engine.version() == "TLSv1.3"
        owner.handshake_completed(self)
        if not early_request:
            # Likewise, the last flight of a client is sent with its first request, if it has
            # written that already.
            self._flush()

    # IProtocol: called by the transport below

    def dataReceived(self, data: bytes) -> None:
        if self._input_closed:
            # RFC 8446, 6.1: data "after a closure alert has been received MUST be ignored."
            return
        self._incoming.write(data)
        if self._owner is not None:
            self._continue_handshake()
        elif self.protocol is not None:
            self._read_records()

    def _read_records(self) -> None:
        """Decrypt what has been received, and pass it to the protocol."""
        try:
            data = self._read(MAX_RECORD)
        except NeedMoreInput:
            # An incomplete record, or a message without application data.
            self._flush_control()
            return
        except ssl.SSLZeroReturnError:
            # As no data, if this side has sent close_notify before.
            data = b""
        except ssl.SSLError as error:
            self._fail(error)
            return
        if not data:
            self._end_input()
        elif self._incoming.pending:
            self._read_further_records(data)
        else:
            if self._outgoing.pending > MAX_CONTROL_BACKLOG:
                self._flush_control()
            self.protocol.dataReceived(data)

    def _read_further_records(self, data: bytes) -> None:
        """
        Decrypt all further records, and pass them to the protocol together with `data`.

        Nothing stays behind in the engine, so a protocol that pauses its transport receives
        at most the content of one `recv(2)` more.
        """
        records = [data]
        incoming = self._incoming
        try:
            while data and incoming.pending:
                data = self._read(MAX_RECORD)
                records.append(data)
        except NeedMoreInput:
            self._flush_control()
        except ssl.SSLZeroReturnError:
            data = b""
        except ssl.SSLError as error:
            # The engine is unusable, so the alert precedes what the protocol writes now.
            self._send_alert(error)
        if self._outgoing.pending > MAX_CONTROL_BACKLOG:
            self._flush_control()
        self.protocol.dataReceived(b"".join(records))
        if self.protocol is None:
            return
        if self._error is not None:
            self._close_failed()
        elif not data and not self._input_closed:
            self._end_input()

    def _end_input(self) -> None:
        """The peer has sent close_notify."""
        self._input_closed = True
        self._notify_eof()

    def readConnectionLost(self) -> None:
        """The peer has sent a FIN."""
        if self._input_closed:
            return
        self._input_closed = True
        self.eof_truncated = True
        if self._owner is not None:
            owner, self._owner, self._output_closed = self._owner, None, True
            owner.handshake_failed(self, ConnectionLost("connection closed by the peer"))
        elif self.protocol is not None:
            self._notify_eof()

    def _notify_eof(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.readConnectionLost()
        else:
            self.unregisterProducer()
            self.loseConnection()

    def writeConnectionLost(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.protocol):
            self.protocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        owner, self._owner = self._owner, None
        protocol, self.protocol = self.protocol, None
        error = self._error
        self._input_closed = self._output_closed = True
        # The memory of a connection is in the engine.
        self.engine = None
        del self._read, self._encrypt
        if owner is not None:
            owner.handshake_failed(self, ConnectionLost("connection closed by the peer"))
        elif protocol is not None:
            protocol.connectionLost(reason if error is None else Failure(error))

    # Output of the engine

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self._send(data)

    def _flush_control(self) -> None:
        """Send answers to control messages of the peer, unless it does not read them."""
        if self._outgoing.pending == 0:
            return
        if self.is_flushed():
            self._flush()
        elif self._outgoing.pending > MAX_CONTROL_BACKLOG:
            self._error = TlsError("too many TLS control messages")
            self.abortConnection()

    def _fail(self, error: ssl.SSLError) -> None:
        """Send the alert, and close: `connectionLost` of the protocol gets the error."""
        if self._error is None and self.protocol is not None:
            self._send_alert(error)
            self._close_failed()

    def _send_alert(self, error: ssl.SSLError) -> None:
        """Send the alert of the engine, the last output; all further input is ignored."""
        # Not `error` itself: its traceback would be a reference cycle.
        self._error = TlsError(f"TLS error: {describe_ssl_error(error)}")
        self._input_closed = self._output_closed = True
        self._flush()

    def _close_failed(self) -> None:
        """Close after the alert, or abort if the peer may never read what precedes it."""
        if self.is_flushed():
            self.lower.unregisterProducer()
            self.lower.loseConnection()
        else:
            self.lower.abortConnection()

    # StreamTransport: called by the application protocol

    def write(self, data: bytes) -> None:
        if self._output_closed or not data:
            return
        try:
            if len(data) <= WRITE_SIZE:
                count = self._encrypt(data)
                self._send(self._outgoing.read())
                if count == len(data):
                    return
                data = data[count:]
            view = memoryview(data)
            while view:
                count = self._encrypt(view[:WRITE_SIZE])
                self._send(self._outgoing.read())
                view = view[count:]
        except ssl.SSLError as error:
            self._fail(error)

    def write_more(self, data: bytes) -> None:
        """
        Write `data`, after which more data or, most likely, the close follows.

        The close_notify alert is then sent together with it.
        """
        if self._output_closed or len(data) > MAX_RECORD or not self.is_flushed():
            self.write(data)
            return
        try:
            self._encrypt(data)
        except ssl.SSLError as error:
            self._fail(error)

    def writeSequence(self, data: list[bytes]) -> None:
        self.write(b"".join(data))

    def stopProducing(self) -> None:
        self.loseConnection()

    def loseConnection(self) -> None:
        """Close after all output, until `unregisterProducer`; no further input is delivered."""
        if self._has_producer:
            self._close_pending = True
        else:
            self._send_close_notify()
        self._input_closed = True
        self.lower.loseConnection()

    def loseWriteConnection(self) -> None:
        if self.engine is not None:
            self._send_close_notify()
            self.lower.loseWriteConnection()

    def abortConnection(self) -> None:
        self._input_closed = self._output_closed = True
        self.lower.abortConnection()

    def _send_close_notify(self) -> None:
        engine = self.engine
        if self._output_closed or engine is None:
            return
        self._output_closed = True
        if self._owner is None:
            try:
                engine.unwrap()
            except NeedMoreInput:
                # Sent, and the alert of the peer is not here yet: input continues.
                pass
            except ssl.SSLError:
                # The peer sends, but the connection closes: the rest of its input is dropped.
                self._input_closed = True
        self._flush()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self._has_producer = True
        self.lower.registerProducer(producer, streaming)

    def unregisterProducer(self) -> None:
        self._has_producer = False
        if self._close_pending:
            self._send_close_notify()
        self.lower.unregisterProducer()
