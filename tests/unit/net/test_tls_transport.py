"""TLS transports over in-memory transports."""

from __future__ import annotations

import gc
import os
import platform
import shutil
import ssl
import sys
import tempfile
import weakref
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SkipTest, SynchronousTestCase
from zope.interface import implementer

from balancebeam.net.tls_transport import (
    MAX_CONTROL_BACKLOG,
    MAX_RECORD,
    WRITE_SIZE,
    TlsTransport,
)
from balancebeam.tls.errors import TlsError, describe_ssl_error
from tests.helpers.memory import MemoryTransport
from tests.helpers.tls_peer import (
    ALERT,
    APPLICATION_DATA,
    CLOSE_NOTIFY,
    FATAL_INTERNAL_ERROR,
    HANDSHAKE,
    WARNING_USER_CANCELED,
    Forger,
    TlsPeer,
    client_context,
    client_hello,
    forger,
    logging_context,
    server_context,
)

TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3

# Bytes that a record adds to its plaintext, at most (TLS 1.2 and 1.3 with AES-GCM).
RECORD_OVERHEAD = 32


class PlainApplication(Protocol):
    """An application protocol that records its calls."""

    transport: Any

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.eofs = 0
        self.write_eofs = 0
        self.lost: list[Any] = []
        self.paused = 0
        self.resumed = 0
        self.respond: Any = None

    @property
    def data(self) -> bytes:
        """Everything received so far."""
        return b"".join(self.pieces)

    def dataReceived(self, data: bytes) -> None:
        self.pieces.append(data)
        if self.respond is not None:
            self.respond(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.lost.append(reason.value)

    def pauseProducing(self) -> None:
        self.paused += 1

    def resumeProducing(self) -> None:
        self.resumed += 1

    def stopProducing(self) -> None:
        """Do nothing."""


@implementer(IHalfCloseableProtocol)
class Application(PlainApplication):
    """The same with half-closes."""

    def readConnectionLost(self) -> None:
        self.eofs += 1

    def writeConnectionLost(self) -> None:
        self.write_eofs += 1


class Owner:
    """Attaches an application protocol to a transport after its handshake."""

    def __init__(self, application: Any) -> None:
        self.application = application
        self.completed = 0
        self.errors: list[Exception] = []

    def handshake_completed(self, transport: TlsTransport) -> None:
        self.completed += 1
        transport.attach(self.application)

    def handshake_failed(self, transport: TlsTransport, error: Exception) -> None:
        self.errors.append(error)
        transport.lower.loseConnection()


class TlsCase(SynchronousTestCase):
    """A TLS server over an in-memory transport, and its client."""

    def connect(
        self,
        application: Any = None,
        context: ssl.SSLContext | None = None,
        client: ssl.SSLContext | None = None,
        sizes: Sequence[int] = (),
    ) -> TlsPeer:
        """Start a handshake, without completing it."""
        self.app = application or Application()
        self.owner = Owner(self.app)
        self.lower = MemoryTransport(None)
        self.tls = TlsTransport(
            self.lower, context or server_context(), self.owner, server_side=True
        )
        self.lower.protocol = self.tls
        return TlsPeer(
            self.lower, client or client_context(), server_hostname="example.org", sizes=sizes
        )

    def established(self, application: Any = None, **options: Any) -> TlsPeer:
        """Return a client whose handshake is complete."""
        return self.connect(application, **options).handshake()

    def forging(self, tls12: bool = False, application: Any = None) -> tuple[TlsPeer, Forger]:
        """Return a client with a completed handshake, and its forger."""
        if sys.implementation.name == "pypy":
            raise SkipTest("PyPy writes no key log")
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        context, keylog = logging_context(folder, tls12)
        client = self.established(application, client=context)
        client.received()
        return client, forger(client, keylog)


class HandshakeTests(TlsCase):
    """The handshake."""

    def test_byte_by_byte(self) -> None:
        """A handshake and data in single bytes give the same as in whole flights."""
        for version in (TLS12, TLS13):
            client = self.connect(context=server_context(version), sizes=(1,))
            client.handshake().send(b"hello")
            self.assertEqual((self.owner.completed, self.app.data), (1, b"hello"))
            self.tls.write(b"welcome")
            self.assertEqual(client.received(), b"welcome")

    def test_request_with_last_flight(self) -> None:
        """A request that arrives with the last flight of the client is delivered once."""
        client = self.connect()
        client.engine_error = None  # type: ignore[attr-defined]
        with self.assertRaises(ssl.SSLWantReadError):
            client.engine.do_handshake()
        client.deliver(client.outgoing.read())
        client.collect()
        client.engine.do_handshake()
        client.engine.write(b"request")
        client.deliver(client.outgoing.read())
        self.assertEqual(self.app.pieces, [b"request"])
        self.tls.write(b"response")
        self.assertEqual(client.received(), b"response")

    def test_last_flight_of_tls12_is_not_delayed(self) -> None:
        """A client with False Start (RFC 7918) receives Finished before any response."""
        client = self.connect(context=server_context(TLS12))
        with self.assertRaises(ssl.SSLWantReadError):
            client.engine.do_handshake()
        client.deliver(client.outgoing.read())
        client.collect()
        with self.assertRaises(ssl.SSLWantReadError):
            client.engine.do_handshake()
        # The beginning of a record follows at once.
        client.deliver(client.outgoing.read() + b"\x17\x03\x03")
        self.assertEqual(self.owner.completed, 1)
        client.collect()
        client.engine.do_handshake()

    def test_failure_is_reported_once_with_alert(self) -> None:
        """Bytes that are not TLS end the handshake with an alert, and nothing else is reported."""
        client = self.connect()
        client.deliver(b"\x16\x03\x01\x00\x04\x63\x00\x00\x00")
        client.deliver(client_hello())
        self.assertEqual(len(self.owner.errors), 1)
        self.assertEqual(self.lower.read()[:1], b"\x15")
        client.finish_closing()
        self.assertEqual((len(self.owner.errors), self.app.lost), (1, []))

    def test_peer_disconnects_at_each_stage(self) -> None:
        """A FIN or a reset during the handshake is reported once, as a lost connection."""
        for stage in ("nothing", "half a hello", "hello"):
            for how in ("fin", "reset"):
                client = self.connect()
                if stage == "half a hello":
                    client.deliver(client_hello()[:100])
                elif stage == "hello":
                    client.deliver(client_hello())
                if how == "fin":
                    client.fin()
                client.finish_closing(ConnectionLost())
                self.assertEqual([type(e) for e in self.owner.errors], [ConnectionLost])
                self.assertEqual(self.app.lost, [])
                self.assertIs(self.tls.engine, None)

    def test_close_and_abort_during_handshake(self) -> None:
        """Both are possible at any time; the owner is notified once."""
        for method in ("loseConnection", "abortConnection"):
            client = self.connect()
            client.deliver(client_hello())
            getattr(self.tls, method)()
            self.assertTrue(self.lower.closing)
            self.tls.dataReceived(b"late")
            client.finish_closing()
            self.assertEqual(len(self.owner.errors), 1)


class DataTests(TlsCase):
    """Application data."""

    def test_writes_of_every_size(self) -> None:
        """Writes arrive intact, and the engine holds no more than one write at a time."""
        client = self.established()
        largest = 0
        send = self.tls._send

        def record(data: bytes) -> None:
            nonlocal largest
            largest = max(largest, len(data))
            send(data)

        self.tls._send = record
        for size in (0, 1, MAX_RECORD, MAX_RECORD + 1, WRITE_SIZE, WRITE_SIZE + 1, 2**20):
            data = os.urandom(size)
            self.tls.write(data)
            self.assertEqual(client.received(), data)
            self.tls.writeSequence([data, b"end"])
            self.assertEqual(client.received(), data + b"end")
        self.assertLessEqual(largest, WRITE_SIZE + 2 * RECORD_OVERHEAD)
        self.assertEqual(self.tls._outgoing.pending, 0)

    def test_many_records_at_once(self) -> None:
        """All records of one segment are delivered together."""
        client = self.established()
        client.deliver(b"".join(client.encrypt(b"%d," % number) for number in range(100)))
        expected = b"".join(b"%d," % number for number in range(100))
        self.assertEqual(self.app.pieces, [expected])
        self.assertEqual(self.tls._incoming.pending, 0)

    @settings(max_examples=40, deadline=None)
    @given(
        sizes=st.lists(st.integers(1, 40_000), min_size=1, max_size=6),
        up=st.lists(st.integers(0, 40_000), max_size=4),
        down=st.lists(st.integers(0, 40_000), max_size=4),
        tls12=st.booleans(),
    )
    def test_fragmentation(
        self, sizes: list[int], up: list[int], down: list[int], tls12: bool
    ) -> None:
        """Fragments of any size give the same plaintext in both directions."""
        context = server_context(TLS12 if tls12 else TLS13)
        client = self.established(context=context, sizes=sizes)
        sent = [os.urandom(size) for size in up]
        client.deliver(b"".join(client.encrypt(data) for data in sent))
        self.assertEqual(self.app.data, b"".join(sent))
        sent = [os.urandom(size) for size in down]
        for data in sent:
            self.tls.write(data)
        self.assertEqual(client.received(), b"".join(sent))

    def test_backpressure(self) -> None:
        """The transport below pauses and resumes the producer."""
        client = self.established()
        client.received()
        self.tls.registerProducer(self.app, True)
        self.lower.stalled = True
        self.assertTrue(self.tls.nothing_buffered)
        self.tls.write(bytes(2**17))
        self.assertFalse(self.tls.nothing_buffered)
        self.assertGreater(self.tls.unacked_bytes(), 2**17)
        self.assertTrue(self.app.paused)
        self.assertEqual(len(client.received()), 2**17)
        self.assertEqual(self.app.resumed, 1)

    def test_pause_between_records(self) -> None:
        """A protocol that pauses receives what was read before, and nothing stays behind."""
        client = self.established()
        self.app.respond = lambda data: self.tls.pauseProducing()
        client.deliver(client.encrypt(b"one") + client.encrypt(b"two"))
        self.assertEqual(self.app.data, b"onetwo")
        self.assertFalse(self.lower.reading)
        self.tls.resumeProducing()
        self.assertTrue(self.lower.reading)

    def test_delegated_calls(self) -> None:
        """Addresses and socket options belong to the transport below."""
        self.established()
        self.assertEqual(self.tls.getPeer().host, "127.0.0.1")
        self.assertEqual(self.tls.getHost().port, 1100)
        self.tls.setTcpNoDelay(True)
        self.tls.setTcpKeepAlive(True)
        self.assertTrue(self.lower.no_delay and self.lower.keep_alive)
        self.assertIn("TlsTransport on", repr(self.tls))
        self.tls.stopProducing()
        self.assertTrue(self.lower.closing)


class CloseTests(TlsCase):
    """Half-closes, closes and aborts."""

    def test_peer_half_closes_first(self) -> None:
        """After the close_notify of the peer, output continues; then this side closes."""
        for version in (TLS12, TLS13):
            client = self.established(context=server_context(version))
            client.deliver(client.encrypt(b"last") + client.close_notify())
            self.assertEqual((self.app.data, self.app.eofs), (b"last", 1))
            self.assertFalse(self.tls.eof_truncated)
            self.tls.write(b"more")
            self.tls.loseWriteConnection()
            self.assertEqual((client.received(), client.eof), (b"more", True))
            self.tls.loseConnection()
            client.finish_closing()
            self.assertEqual([type(reason) for reason in self.app.lost], [ConnectionDone])

    def test_this_side_half_closes_first(self) -> None:
        """After our close_notify, input continues; the close_notify of the peer is an EOF."""
        for version in (TLS12, TLS13):
            for together in (False, True):
                client = self.established(context=server_context(version))
                self.tls.write(b"response")
                self.tls.loseWriteConnection()
                self.assertTrue(self.lower.write_closed)
                self.assertEqual(self.app.write_eofs, 1)
                self.assertEqual((client.received(), client.eof), (b"response", True))
                data = client.encrypt(b"still received")
                if not together:
                    client.deliver(data)
                    self.assertEqual(self.app.data, b"still received")
                    data = b""
                client.deliver(data + client.close_notify())
                self.assertEqual((self.app.data, self.app.eofs), (b"still received", 1))
                self.assertFalse(self.lower.closing)
                client.fin()
                self.assertEqual((self.app.eofs, self.tls.eof_truncated), (1, False))
                self.tls.loseConnection()
                client.finish_closing()
                self.assertEqual([type(reason) for reason in self.app.lost], [ConnectionDone])

    def test_half_close_between_two_parts_of_a_record(self) -> None:
        """A record that is received in part at the half-close is completed after it."""
        client = self.established()
        record = client.encrypt(b"upload")
        client.deliver(record[:12])
        self.tls.loseWriteConnection()
        client.deliver(record[12:])
        self.assertEqual(self.app.data, b"upload")

    def test_fin_without_close_notify(self) -> None:
        """A FIN alone is an EOF that may be truncated (RFC 8446, 6.1)."""
        client = self.established()
        record = client.encrypt(b"upload")
        client.deliver(record[:12])
        client.fin()
        self.assertEqual((self.app.eofs, self.tls.eof_truncated), (1, True))
        self.tls.write(b"response")
        self.assertEqual(client.received(), b"response")
        client.fin()
        self.assertEqual(self.app.eofs, 1)

    def test_protocol_without_half_close(self) -> None:
        """EOF closes the connection of a protocol without half-close, despite a producer."""
        for truncated in (False, True):
            client = self.established(PlainApplication())
            self.tls.registerProducer(self.app, True)
            if truncated:
                client.fin()
            else:
                client.deliver(client.close_notify())
            self.assertTrue(self.lower.closing)
            client.received()
            self.assertTrue(client.eof)
            client.finish_closing()
            self.assertEqual(len(self.app.lost), 1)

    def test_data_after_close_notify(self) -> None:
        """What the peer sends after close_notify is ignored (RFC 8446, 6.1)."""
        client, forged = self.forging()
        closing = forged.record(ALERT, CLOSE_NOTIFY)
        client.deliver(closing + forged.record(APPLICATION_DATA, b"late"))
        client.deliver(forged.record(APPLICATION_DATA, b"later"))
        client.deliver(b"not TLS" * 100)
        self.assertEqual((self.app.data, self.app.eofs), (b"", 1))
        self.tls.write(b"response")
        self.assertEqual(client.received(), b"response")

    def test_close_flushes_buffered_output(self) -> None:
        """`loseConnection` sends what was written before it, and close_notify."""
        client = self.established()
        self.lower.stalled = True
        self.tls.write(b"x" * 100_000)
        self.tls.loseConnection()
        self.tls.write(b"too late")
        self.assertEqual((client.received(), client.eof), (b"x" * 100_000, True))

    def test_last_bytes_are_sent_with_close_notify(self) -> None:
        """`write_more` leaves its bytes for the close or half-close, or the next write."""
        for method in ("loseConnection", "loseWriteConnection"):
            client = self.established()
            client.received()
            self.tls.write_more(b"last")
            self.assertEqual(self.lower.read(), b"")
            getattr(self.tls, method)()
            self.assertEqual((client.received(), client.eof), (b"last", True))
            self.tls.write_more(b"too late")
            self.assertEqual(client.received(), b"")
        client = self.established()
        self.tls.write_more(b"one")
        self.tls.write(b"two")
        self.assertEqual(client.received(), b"onetwo")

    def test_last_bytes_that_are_sent_at_once(self) -> None:
        """`write_more` keeps neither more than a record nor bytes that the peer waits for."""
        client = self.established()
        client.received()
        data = os.urandom(2**18)
        self.tls.write_more(data)
        self.assertEqual((client.received(), self.tls._outgoing.pending), (data, 0))
        self.lower.stalled = True
        self.tls.write(b"one")
        self.tls.write_more(b"two")
        self.assertEqual(self.tls._outgoing.pending, 0)
        self.tls.loseConnection()
        self.assertEqual((client.received(), client.eof), (b"onetwo", True))

    def test_close_waits_for_the_producer(self) -> None:
        """A registered producer can write until it is unregistered, as in Twisted."""
        client = self.established()
        self.lower.loseConnection = lambda *arguments: None  # type: ignore[method-assign]
        self.tls.registerProducer(self.app, True)
        self.tls.loseConnection()
        self.tls.write(b"the rest")
        self.assertEqual((client.received(), client.eof), (b"the rest", False))
        self.tls.unregisterProducer()
        self.tls.write(b"too late")
        self.assertEqual((client.received(), client.eof), (b"", True))

    def test_nothing_is_delivered_after_close(self) -> None:
        """After `loseConnection` no data and no EOF is delivered, as reading has stopped."""
        client = self.established()
        self.tls.loseConnection()
        self.tls.dataReceived(client.encrypt(b"late"))
        self.tls.readConnectionLost()
        self.assertEqual((self.app.data, self.app.eofs), (b"", 0))
        client.finish_closing()
        self.assertEqual(len(self.app.lost), 1)

    def test_close_in_connection_made(self) -> None:
        """A protocol that closes when it is connected receives no data."""
        for method in ("loseConnection", "abortConnection"):
            app = Application()

            def connect(app: Application = app, method: str = method) -> None:
                getattr(app.transport, method)()

            app.connectionMade = connect  # type: ignore[method-assign]
            client = self.connect(app)
            with self.assertRaises(ssl.SSLWantReadError):
                client.engine.do_handshake()
            client.deliver(client.outgoing.read())
            client.collect()
            client.engine.do_handshake()
            client.engine.write(b"request")
            client.deliver(client.outgoing.read())
            self.assertEqual(app.data, b"")
            client.finish_closing()
            self.assertEqual(len(app.lost), 1)

    def test_calls_after_the_end(self) -> None:
        """Every method may be called in and after `connectionLost`, and does nothing."""
        for how in (ConnectionDone(), ConnectionLost(), ConnectionAborted()):
            client = self.established()
            calls = (
                lambda: self.tls.write(b"late"),
                lambda: self.tls.writeSequence([b"late"]),
                self.tls.loseWriteConnection,
                self.tls.loseConnection,
                self.tls.abortConnection,
                self.tls.unregisterProducer,
                self.tls.pauseProducing,
                self.tls.resumeProducing,
                lambda: self.tls.dataReceived(b"late"),
                self.tls.readConnectionLost,
                self.tls.writeConnectionLost,
            )

            def call_all(reason: Any, calls: Any = calls) -> None:
                for call in calls:
                    call()

            self.app.connectionLost = call_all  # type: ignore[method-assign]
            client.finish_closing(how)
            for call in calls:
                call()
            self.assertEqual(client.received(), b"")

    def test_abort_at_any_time(self) -> None:
        """An abort in `dataReceived`, or while the producer is paused, drops all that follows."""
        client = self.established()
        self.app.respond = lambda data: self.tls.abortConnection()
        client.deliver(client.encrypt(b"one") + client.encrypt(b"two"))
        self.assertEqual((self.app.data, self.lower.aborted), (b"onetwo", True))
        self.tls.write(b"late")
        self.assertEqual(client.received(), b"")
        client.finish_closing()
        self.assertEqual([type(reason) for reason in self.app.lost], [ConnectionAborted])
        client = self.established()
        self.tls.registerProducer(self.app, True)
        self.app.pauseProducing = self.tls.abortConnection  # type: ignore[method-assign]
        self.lower.stalled = True
        self.tls.write(bytes(2**18))
        self.assertTrue(self.lower.aborted)


class HostileInputTests(TlsCase):
    """Input that ends a connection, or costs no more than it should."""

    def assert_failed(self, client: TlsPeer, reason: str, alert: bool = True) -> None:
        """Assert that an alert was sent, and that the application is notified of the reason."""
        self.assertTrue(self.lower.closing)
        sent = self.lower.read()
        self.assertEqual(bool(sent), alert)
        client.finish_closing()
        self.assertEqual([type(lost) for lost in self.app.lost], [TlsError])
        self.assertIn(reason, str(self.app.lost[0]))

    def test_bad_record(self) -> None:
        """A record that cannot be decrypted ends the connection with an alert."""
        for before in (b"", b"good"):
            client = self.established()
            data = client.encrypt(before) if before else b""
            record = bytearray(client.encrypt(b"bad"))
            record[-1] ^= 1
            client.deliver(data + bytes(record))
            self.assertEqual(self.app.data, before)
            self.assert_failed(client, "record")

    def test_oversized_record(self) -> None:
        """A record of more than 2^14 + 256 bytes is rejected by its header."""
        client = self.established()
        client.deliver(b"\x17\x03\x03" + (2**14 + 257).to_bytes(2, "big"))
        self.assert_failed(client, "")
        client, forged = self.forging()
        client.deliver(forged.record(APPLICATION_DATA, bytes(2**14 + 1)))
        self.assert_failed(client, "")
        self.assertEqual(self.app.data, b"")

    def test_empty_records(self) -> None:
        """Empty records are no EOF; a flood of them ends the connection."""
        client, forged = self.forging()
        client.deliver(forged.record(APPLICATION_DATA, b""))
        self.assertEqual((self.app.pieces, self.app.eofs), ([], 0))
        client.deliver(forged.record(APPLICATION_DATA, b"") + forged.record(APPLICATION_DATA, b"x"))
        self.assertEqual((self.app.data, self.app.eofs), (b"x", 0))
        for _ in range(1000):
            if self.lower.closing:
                break
            client.deliver(forged.record(APPLICATION_DATA, b""))
        self.assert_failed(client, "")

    def test_alerts(self) -> None:
        """A fatal alert ends the connection; a flood of warnings does too."""
        client, forged = self.forging()
        client.deliver(forged.record(ALERT, FATAL_INTERNAL_ERROR))
        self.assert_failed(client, "internal error", alert=False)
        for tls12 in (False, True):
            client, forged = self.forging(tls12)
            make = forged.record12 if tls12 else forged.record
            for _ in range(100):
                client.deliver(make(ALERT, WARNING_USER_CANCELED))
            self.assert_failed(client, "")

    def test_unexpected_messages(self) -> None:
        """Records that are not allowed after the handshake end the connection."""
        for kind, content in (
            (20, b"\x01"),
            (HANDSHAKE, b"\x02\0\0\0"),
            (24, b"\x01\0\0"),
            (99, b"x"),
        ):
            client, forged = self.forging()
            client.deliver(forged.record(kind, content))
            self.assert_failed(client, "")
        for plain in (b"\x15\x03\x03\x00\x02\x02\x28", client_hello(), b"GET / HTTP/1.1\r\n\r\n"):
            client = self.established()
            client.deliver(plain)
            self.assert_failed(client, "")

    def test_key_updates(self) -> None:
        """KeyUpdates are answered once per write, so a flood of them costs no memory."""
        client, forged = self.forging()
        self.lower.stalled = True
        for _ in range(1000):
            if self.lower.closing:
                break
            client.deliver(forged.key_update() + forged.record(APPLICATION_DATA, b"x"))
            backlog = self.tls._outgoing.pending + self.lower.unacked_bytes()
            self.assertLess(backlog, 2 * MAX_CONTROL_BACKLOG + 200)
        self.lower.stalled = False
        if not self.lower.closing:
            self.tls.write(b"response")
            self.assertEqual(client.received(), b"response")

    def test_renegotiation_is_refused(self) -> None:
        """A client that renegotiates in TLS 1.2 receives an alert, and data continues."""
        client, forged = self.forging(tls12=True)
        client.deliver(forged.record12(HANDSHAKE, client_hello()[5:]))
        self.assertFalse(self.lower.closing)
        # Warning alert no_renegotiation, encrypted: header, nonce, two bytes, tag.
        alert = self.lower.read()
        self.assertEqual((alert[:1], len(alert)), (b"\x15", 5 + 8 + 2 + 16))
        client.deliver(forged.record12(APPLICATION_DATA, b"request"))
        self.assertEqual(self.app.data, b"request")

    def test_renegotiation_flood(self) -> None:
        """A peer that does not read the refusals is disconnected, with or without data between."""
        hello = client_hello()[5:]
        for between in (b"", b"x"):
            for joined in (False, True):
                client, forged = self.forging(tls12=True)
                self.lower.stalled = True
                self.tls.write(b"response")
                for _ in range(1000):
                    if self.lower.closing:
                        break
                    data = [forged.record12(HANDSHAKE, hello)]
                    if between:
                        data.append(forged.record12(APPLICATION_DATA, between))
                    for piece in [b"".join(data)] if joined else data:
                        client.deliver(piece)
                    self.assertLess(self.tls._outgoing.pending, MAX_CONTROL_BACKLOG + 200)
                self.assertTrue(self.lower.aborted, (between, joined))
                self.assertLess(self.lower.unacked_bytes(), 1000)
                client.finish_closing()
                self.assertIn("too many TLS control messages", str(self.app.lost[0]))

    def test_error_while_output_is_buffered(self) -> None:
        """The connection is aborted, because the peer may never read the alert."""
        client = self.established()
        self.tls.registerProducer(self.app, True)
        self.lower.stalled = True
        self.tls.write(b"response")
        client.deliver(b"not TLS" * 100)
        self.assertTrue(self.lower.aborted)
        self.assert_failed(client, "")

    def test_alert_that_is_not_sent_at_once(self) -> None:
        """The connection is aborted if the kernel does not accept the alert itself."""
        client = self.established()
        self.lower.stalled = True
        client.deliver(b"not TLS" * 100)
        self.assertTrue(self.lower.aborted)

    def test_response_to_data_before_a_bad_record(self) -> None:
        """A write in `dataReceived` that fails does not hide the reason of the error."""
        client = self.established()
        self.app.respond = self.tls.write
        client.deliver(client.encrypt(b"good") + b"\x17\x03\x03\xff\xff")
        self.assert_failed(client, "")
        self.assertNotIn("EOF", str(self.app.lost[0]))

    @settings(max_examples=100, deadline=None)
    @given(data=st.data())
    def test_mutated_stream(self, data: st.DataObject) -> None:
        """A changed byte anywhere in a stream raises nothing; data is intact, or cut."""
        client = self.established()
        records = bytearray(client.encrypt(b"one") + client.encrypt(b"two") + client.close_notify())
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(records) - 1))
            records[place] = data.draw(st.integers(0, 255))
        client.sizes = data.draw(st.lists(st.integers(1, 50), max_size=3))
        client.deliver(bytes(records))
        self.assertTrue(b"onetwo".startswith(self.app.data))
        self.lower.closing = False
        client.fin()
        client.finish_closing(ConnectionDone())
        self.assertEqual(len(self.app.lost), 1)


class ClientSideTests(TlsCase):
    """The client side of a connection."""

    def connect_to_server(self, hostname: str = "example.org") -> TlsPeer:
        """Start a handshake with a server."""
        self.app = Application()
        self.app.connectionMade = lambda: self.app.transport.write(b"request")  # type: ignore[method-assign]
        self.owner = Owner(self.app)
        self.lower = MemoryTransport(None)
        self.tls = TlsTransport(
            self.lower,
            client_context(),
            self.owner,
            server_side=False,
            server_hostname=hostname,
        )
        self.lower.protocol = self.tls
        self.tls.start()
        return TlsPeer(self.lower, server_context(), server_side=True)

    def test_request_is_sent_with_the_last_flight(self) -> None:
        """The first request is in one segment with the end of the handshake."""
        server = self.connect_to_server()
        segments: list[bytes] = []
        send = self.tls._send

        def record(data: bytes) -> None:
            segments.append(data)
            send(data)

        self.tls._send = record
        server.handshake()
        self.assertEqual((self.owner.completed, len(segments)), (1, 1))
        self.assertEqual(server.received(), b"request")
        server.send(b"response")
        self.assertEqual(self.app.data, b"response")

    def test_wrong_name(self) -> None:
        """A certificate for another name ends the handshake; the alert is sent."""
        server = self.connect_to_server("other.org")
        with self.assertRaises(ssl.SSLError):
            server.handshake()
        [error] = self.owner.errors
        self.assertIsInstance(error, ssl.SSLCertVerificationError)
        self.assertIn("certificate verify failed", describe_ssl_error(error))
        self.assertIn("other.org", describe_ssl_error(error))

    def test_descriptions(self) -> None:
        """Reasons of errors are words, without numbers and source files."""
        error = ssl.SSLError(1, "[SSL: X] x (_ssl.c:1)")
        error.reason = "NO_SHARED_CIPHER"
        self.assertEqual(describe_ssl_error(error), "no shared cipher")
        self.assertEqual(
            describe_ssl_error(ConnectionLost("closed")), str(ConnectionLost("closed"))
        )


class MemoryTests(TlsCase):
    """No reference cycles: the garbage collector is slower than the rest of a connection."""

    def test_no_reference_cycle(self) -> None:
        """A closed connection is freed by reference counts, however it was closed."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")

        def clean(client: TlsPeer) -> None:
            client.send(b"request")
            self.tls.write(b"response")
            client.received()
            client.deliver(client.close_notify())
            self.tls.loseConnection()
            client.finish_closing()

        def aborted(client: TlsPeer) -> None:
            self.tls.abortConnection()
            client.finish_closing()

        def bad_record(client: TlsPeer) -> None:
            client.deliver(b"\x17\x03\x03\xff\xff")
            client.finish_closing()

        def bad_second_record(client: TlsPeer) -> None:
            client.deliver(client.encrypt(b"good") + b"\x17\x03\x03\xff\xff")
            client.finish_closing()

        def incomplete_second_record(client: TlsPeer) -> None:
            client.deliver(client.encrypt(b"good") + b"\x17")
            client.finish_closing(ConnectionLost())

        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for close in (clean, aborted, bad_record, bad_second_record, incomplete_second_record):
            client = self.established()
            reference = weakref.ref(self.app)
            close(client)
            self.app.lost.clear()
            del client
            del self.app, self.owner, self.tls, self.lower
            self.assertIsNone(reference(), close.__name__)
            self.assertEqual(gc.collect(), 0, close.__name__)

    def test_no_reference_cycle_after_a_failed_handshake(self) -> None:
        """The same for a handshake that fails."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        client = self.connect()
        client.deliver(b"\x16\x03\x01\x00\x04\x63\x00\x00\x00")
        self.assertEqual(len(self.owner.errors), 1)
        client.finish_closing()
        self.owner.errors.clear()
        del client, self.app, self.owner, self.tls, self.lower
        self.assertEqual(gc.collect(), 0)
