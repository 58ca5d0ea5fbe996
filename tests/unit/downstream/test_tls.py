"""TLS handshakes of clients, by a whole balancer in memory."""

from __future__ import annotations

import gc
import json
import os
import platform
import ssl
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import hypothesis.strategies as st
from hypothesis import given, settings
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SkipTest

from balancebeam.core.addresses import ProxyProtocolAddress, TcpAddress
from balancebeam.downstream import tls
from balancebeam.protocols.client_hello import ClientHello
from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from balancebeam.protocols.tls_records import NO_APPLICATION_PROTOCOL, AlertError
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, MemoryTransport, head_and_body
from tests.helpers.tls_peer import TlsPeer, client_context, client_hello, server_context

HEADER_TIMEOUT = 10.0

# Alerts as records.
UNEXPECTED_MESSAGE = b"\x15\x03\x03\x00\x02\x02\x0a"
RECORD_OVERFLOW = b"\x15\x03\x03\x00\x02\x02\x16"
DECODE_ERROR = b"\x15\x03\x03\x00\x02\x02\x32"
PROTOCOL_VERSION = b"\x15\x03\x03\x00\x02\x02\x46"
INTERNAL_ERROR = b"\x15\x03\x03\x00\x02\x02\x50"


class Selector:
    """Selects one context; rejects clients without a common application protocol."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.hellos: list[ClientHello] = []

    def select(self, hello: ClientHello) -> ssl.SSLContext:
        self.hellos.append(hello)
        if hello.alpn and b"http/1.1" not in hello.alpn:
            raise AlertError(NO_APPLICATION_PROTOCOL, "alpn", "no application protocol in common")
        return self.context


class FakeListener:
    """A listener that a connection limit pauses."""

    limit: Any = None
    accepting = True

    def set_accepting(self, accepting: bool) -> None:
        self.accepting = accepting


class TlsCase(BalancerTestCase):
    """A balancer with a TLS frontend."""

    def start(self, **options: Any) -> MemoryBalancer:
        """Start a balancer, and use TLS on its frontend."""
        if hasattr(self, "clients"):
            self.close_clients()
        balancer = self.balancer(**options)
        self.frontend = balancer.service.default_frontend
        self.selector = Selector(server_context())
        self.frontend._set_contexts(self.selector)
        self.factory = self.frontend.tls_factory
        self.clients: list[TlsPeer] = []
        self.addCleanup(self.close_clients)
        self.logs: list[Any] = []
        observer: Any = self.logs.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        return balancer

    def close_clients(self) -> None:
        """Disconnect all clients; nothing is left behind in the factory."""
        for client in self.clients:
            client.finish_closing(ConnectionLost())
        self.clients.clear()
        self.assertFalse(self.factory.handshakes)
        self.assertFalse(self.factory._by_age)
        self.assertFalse(self.frontend.has_connections)

    def connect(
        self,
        sizes: Sequence[int] = (),
        context: ssl.SSLContext | None = None,
        factory: Any = None,
    ) -> TlsPeer:
        """Connect a client that has sent nothing yet."""
        address = IPv4Address("TCP", "192.0.2.1", 40000)
        transport = MemoryTransport((factory or self.factory).buildProtocol(address))
        client = TlsPeer(
            transport, context or client_context(), server_hostname="example.org", sizes=sizes
        )
        self.clients.append(client)
        transport.protocol.makeConnection(transport)
        return client

    def failures(self) -> dict[str, int]:
        """Return the counters of failed handshakes."""
        return dict(self.factory.failed)

    def assert_alert(self, data: bytes, alert: bytes, reason: str = "protocol") -> None:
        """Assert that `data` is answered with this alert and EOF, whole and in single bytes."""
        for sizes in ((), (1,)):
            before = self.factory.failed[reason]
            client = self.connect(sizes)
            client.deliver(data)
            self.assertEqual(client.transport.read(), alert, data)
            self.assertTrue(client.transport.write_closed)
            client.deliver(data * 3)
            client.fin()
            self.assertTrue(client.transport.closing)
            self.assertFalse(client.transport.aborted)
            client.finish_closing()
            self.assertEqual(self.factory.failed[reason], before + 1)


class HandshakeTests(TlsCase):
    """Handshakes that are completed."""

    def test_request(self) -> None:
        """After a handshake, whole or in single bytes, requests are forwarded."""
        for number, sizes in enumerate(((), (1,), (3, 500, 2)), 1):
            balancer = self.start()
            client = self.connect(sizes).handshake()
            self.assertFalse(self.factory.handshakes)
            self.assertEqual(self.selector.hellos, [ClientHello("example.org")])
            client.send(GET)
            server = balancer.accept()
            self.assertIn(b"GET / HTTP/1.1\r\n", server.received(), number)
            server.send(OK)
            self.assertTrue(client.received().endswith(b"hello"))
            self.assertEqual(dict(self.factory.completed), {("TLSv1.3", False): 1})
            self.assertEqual(self.failures(), {})

    def test_resumption_is_counted(self) -> None:
        """A resumed session is counted as such."""
        balancer = self.start()
        context = client_context()
        client = self.connect(context=context).handshake()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        again = self.connect(context=context)
        again.engine = context.wrap_bio(
            again.incoming,
            again.outgoing,
            server_hostname="example.org",
            session=client.engine.session,
        )
        again.handshake()
        self.assertEqual(self.factory.completed["TLSv1.3", True], 1)

    def test_request_in_the_last_flight(self) -> None:
        """A request in one segment with Finished is forwarded."""
        balancer = self.start()
        client = self.connect()
        with self.assertRaises(ssl.SSLWantReadError):
            client.engine.do_handshake()
        client.deliver(client.outgoing.read())
        client.collect()
        client.engine.do_handshake()
        client.engine.write(GET + GET)
        client.deliver(client.outgoing.read())
        server = balancer.accept()
        server.received()
        server.send(OK)
        server.send(OK)
        self.assertEqual(client.received().count(b"200 OK"), 2)

    def test_proxy_protocol(self) -> None:
        """A PROXY header precedes TLS; in one segment, and in single bytes."""
        for sizes in ((), (1,)):
            balancer = self.start()
            client = self.connect(sizes, factory=self.frontend._proxy_protocol_factory)
            header = encode_proxy_header(2, ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 443))
            with self.assertRaises(ssl.SSLWantReadError):
                client.engine.do_handshake()
            client.deliver(header + client.outgoing.read())
            client.handshake().send(GET)
            self.assertIn(b"X-Forwarded-For: 203.0.113.7\r\n", balancer.accept().received())

    def test_listeners(self) -> None:
        """Plain and PROXY listeners of the frontend use TLS."""
        places = (TcpAddress("127.0.0.1", 0), ProxyProtocolAddress(TcpAddress("127.0.0.1", 0)))
        self.start()
        with patch.object(self.frontend.settings.__class__, "bind", places, create=True):
            factories = [*self.frontend.listeners().values()]
        self.assertIs(factories[0], self.factory)
        self.assertEqual(
            self.frontend._proxy_protocol_factory.build_channel, self.factory.build_channel
        )

    def test_tcp_mode(self) -> None:
        """A TCP frontend relays the plaintext, and half-closes both ways."""
        balancer = self.start(mode="tcp")
        client = self.connect().handshake()
        server = balancer.accept()
        client.send(b"ping")
        self.assertEqual(server.received(), b"ping")
        client.deliver(client.close_notify())
        self.assertTrue(server.transport.write_closed)
        server.send(b"pong")
        server.half_close()
        self.assertEqual((client.received(), client.eof), (b"pong", True))
        self.assertTrue(client.transport.closing)
        client.finish_closing()

    def test_max_connections_counts_handshakes(self) -> None:
        """Each state of a connection counts once."""
        self.start()
        listener = FakeListener()
        listeners: Any = [listener]
        self.frontend.connection_limit.configure(1, listeners)
        for finish in (True, False):
            client = self.connect()
            self.assertFalse(listener.accepting)
            if finish:
                client.handshake()
                self.assertFalse(listener.accepting)
            client.finish_closing(ConnectionLost())
            self.assertTrue(listener.accepting)


class CloseTests(TlsCase):
    """The end of connections."""

    def test_response_before_close(self) -> None:
        """The last response of a connection arrives whole, however its body is framed."""
        for request, response, end in (
            (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello"),
            (GET, b"HTTP/1.1 200 OK\r\n\r\nhello", b"hello\r\n0\r\n\r\n"),
            (
                GET,
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                b"\r\n0\r\n\r\n",
            ),
            (b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n", b"\r\n\r\n"),
            (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000, b"x"),
        ):
            for pipelined in (b"", GET):
                balancer = self.start()
                client = self.connect().handshake()
                client.send(request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
                if pipelined:
                    client.send(pipelined)
                server = balancer.accept()
                server.send(response)
                if b"Length" not in response and b"Transfer" not in response:
                    server.half_close()
                received = client.received()
                self.assertTrue(received.endswith(end), (response, received[-100:]))
                self.assertTrue(client.eof, response)


class RejectionTests(TlsCase):
    """Clients that are rejected."""

    def test_plain_http(self) -> None:
        """Plain HTTP is answered with 400 and the reason, also in single bytes."""
        for sizes in ((), (1,), (4, 1)):
            self.start()
            client = self.connect(sizes)
            client.deliver(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
            client.deliver(b"x" * 100_000)
            lines = self.assert_error(client.transport.read(), 400)
            self.assertIn(b"Connection: close", lines)
            self.assertTrue(client.transport.write_closed)
            self.assertEqual(self.failures(), {"plaintext": 1})
            client.fin()
            client.finish_closing()

    def test_reason_of_plain_http(self) -> None:
        """The body says what is wrong."""
        self.start()
        client = self.connect()
        client.deliver(GET)
        _, body = head_and_body(client.transport.read())
        self.assertIn("TLS port", str(json.loads(body)))

    def test_plain_head_request(self) -> None:
        """The response to HEAD has no body (RFC 9110, 9.3.2)."""
        self.start()
        client = self.connect()
        client.deliver(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        lines, body = head_and_body(client.transport.read())
        self.assertEqual((lines[0], body), (b"HTTP/1.1 400 Bad Request", b""))

    def test_other_protocols(self) -> None:
        """Other protocols receive an alert."""
        self.start()
        for data, alert in (
            (b"SSH-2.0-OpenSSH_9.2\r\n", UNEXPECTED_MESSAGE),
            (b"EHLO example.org\r\n", UNEXPECTED_MESSAGE),
            (b"\0" * 20, UNEXPECTED_MESSAGE),
            # SSL 2: length with high bit, ClientHello, version 3.1.
            (b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + bytes(30), PROTOCOL_VERSION),
            (b"\xff" * 20, PROTOCOL_VERSION),
            (b"\x17\x03\x03\x00\x05hello", UNEXPECTED_MESSAGE),
            (b"\x15\x03\x03\x00\x02\x01\x00", UNEXPECTED_MESSAGE),
            (b"\x16\x02\x00\x00\x05hello", PROTOCOL_VERSION),
            (b"\x16\x03\x01\x00\x00", UNEXPECTED_MESSAGE),
            (b"\x16\x03\x01\x40\x01" + bytes(20), RECORD_OVERFLOW),
            (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", UNEXPECTED_MESSAGE),
            (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", DECODE_ERROR),
            (b"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", DECODE_ERROR),
        ):
            self.assert_alert(data, alert)
        self.assertEqual(dict(self.factory.completed), {})

    def test_tcp_mode_without_tls(self) -> None:
        """In TCP mode too, plain HTTP receives a response, and other plain text an alert."""
        self.start(mode="tcp")
        client = self.connect()
        client.deliver(GET)
        self.assertTrue(client.transport.read().startswith(b"HTTP/1.1 400 Bad Request"))
        self.assert_alert(b"SSH-2.0-OpenSSH_9.2\r\n", UNEXPECTED_MESSAGE)

    def test_old_client(self) -> None:
        """A client of TLS 1.0 receives protocol_version."""
        self.start()
        hello = bytearray(client_hello())
        # legacy_version, and the extension supported_versions made unknown.
        hello[9:11] = b"\x03\x01"
        place = bytes(hello).index(b"\x00\x2b\x00")
        hello[place : place + 2] = b"\xfa\xfa"
        client = self.connect()
        client.deliver(bytes(hello))
        self.assertEqual(client.transport.read()[5:], PROTOCOL_VERSION[5:])
        self.assertEqual(self.failures(), {"version": 1})

    def test_no_common_application_protocol(self) -> None:
        """The alert of the selector is sent (RFC 7301, 3.2), in 7 bytes."""
        self.start()
        self.assert_alert(client_hello(alpn=("h2", "x")), b"\x15\x03\x03\x00\x02\x02\x78", "alpn")

    def test_client_rejects_the_certificate(self) -> None:
        """The alert of a client that does not trust the certificate ends its connection only."""
        balancer = self.start()
        other = self.connect()
        client = self.connect(context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        with self.assertRaises(ssl.SSLCertVerificationError):
            client.handshake()
        client.deliver(client.outgoing.read())
        self.assertEqual(self.failures(), {"alert": 1})
        self.assertTrue(client.transport.write_closed)
        other.handshake().send(GET)
        self.assertIn(b"GET /", balancer.accept().received())

    def test_lingering_ends(self) -> None:
        """A rejected client that stays is aborted soon, and not counted again."""
        balancer = self.start()
        client = self.connect()
        client.deliver(b"\0")
        balancer.advance(1)
        self.assertFalse(client.transport.closing)
        balancer.advance(3)
        self.assertTrue(client.transport.aborted)
        client.finish_closing()
        self.assertEqual(self.failures(), {"protocol": 1})

    def test_log_is_limited(self) -> None:
        """One line per reason and minute."""
        balancer = self.start()
        for _ in range(100):
            self.connect().deliver(b"\0")
            self.connect().deliver(GET)
        lines = [event for event in self.logs if "TLS handshake" in event.get("log_format", "")]
        self.assertEqual(len(lines), 2)
        balancer.advance(62)
        self.connect().deliver(b"\0")
        lines = [event for event in self.logs if "TLS handshake" in event.get("log_format", "")]
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[-1]["count"], 101)


class IncompleteTests(TlsCase):
    """Clients that stop in the middle."""

    # What has been received of a client: nothing, half a hello, a hello, half of its last flight.
    STAGES = range(4)

    def connect_until(self, stage: int) -> TlsPeer:
        """Connect a client that has sent its handshake up to a stage."""
        client = self.connect()
        if stage == 1:
            client.deliver(client_hello()[:100])
        elif stage > 1:
            with self.assertRaises(ssl.SSLWantReadError):
                client.engine.do_handshake()
            client.deliver(client.outgoing.read())
        if stage == 3:
            client.collect()
            client.engine.do_handshake()
            client.deliver(client.outgoing.read()[:20])
        return client

    def test_client_disconnects(self) -> None:
        """A FIN or a reset at each stage counts as one failure, but not without any input."""
        for stage in self.STAGES:
            for how in ("fin", "reset"):
                self.start()
                client = self.connect_until(stage)
                if how == "fin":
                    client.fin()
                    self.assertTrue(client.transport.closing)
                client.finish_closing(ConnectionLost())
                self.assertEqual(self.failures(), {"closed": 1} if stage else {}, (stage, how))
                texts = [event["text"] for event in self.logs if "text" in event]
                self.assertEqual(texts, ["connection closed by the peer"] if stage else [])
                self.assertFalse(self.factory.handshakes)

    def test_header_timeout(self) -> None:
        """A handshake that is not complete at the header timeout is aborted."""
        for stage in self.STAGES:
            balancer = self.start()
            client = self.connect_until(stage)
            balancer.advance(HEADER_TIMEOUT - 1)
            self.assertFalse(client.transport.closing)
            balancer.advance(3)
            self.assertTrue(client.transport.aborted)
            client.finish_closing()
            self.assertEqual(self.failures(), {"timeout": 1})

    def test_slow_bytes_do_not_extend_the_timeout(self) -> None:
        """A client that sends one byte per second is aborted as well."""
        balancer = self.start()
        client = self.connect()
        for byte in client_hello()[:20]:
            client.deliver(bytes((byte,)))
            balancer.advance(1)
        self.assertTrue(client.transport.aborted)

    def test_oldest_is_aborted(self) -> None:
        """Beyond the limit, the oldest handshake is aborted, whatever its stage."""
        with patch.object(tls, "MAX_HANDSHAKES", 4):
            balancer = self.start()
            stalled = [self.connect_until(stage) for stage in self.STAGES]
            clients = []
            for _ in range(20):
                clients.append(self.connect().handshake())
            self.assertEqual([client.transport.aborted for client in stalled], [True] + [False] * 3)
            self.connect()
            for count in range(1, 4):
                self.connect()
                self.assertEqual(
                    [client.transport.aborted for client in stalled],
                    [True] * (count + 1) + [False] * (3 - count),
                )
            self.assertEqual(self.failures(), {"overload": 4})
            self.assertEqual(len(self.factory.handshakes), 4)
            for client in clients:
                client.send(GET)
            self.assertEqual(len(balancer.connectors), 20)

    def test_memory_of_stalled_handshakes(self) -> None:
        """Before the ClientHello is complete, a handshake costs little more than its bytes."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("tracemalloc is missing")
        import tracemalloc

        self.start()
        # A record of 16 KiB that holds most of a ClientHello as long as is accepted.
        partial = b"\x16\x03\x01\x3f\x00\x01\x00\x3e\xfc" + bytes(16_000)
        for data, limit in ((b"", 6_000), (b"\x16", 6_000), (partial, 56_000)):
            gc.collect()
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(100):
                    address = IPv4Address("TCP", "192.0.2.1", 40000)
                    transport = MemoryTransport(self.factory.buildProtocol(address))
                    transport.protocol.makeConnection(transport)
                    for start in range(0, len(data), 1000):
                        transport.protocol.dataReceived(data[start : start + 1000])
                    self.assertFalse(transport.closing)
                used = (tracemalloc.get_traced_memory()[0] - before) / 100
            finally:
                tracemalloc.stop()
            self.assertLess(used, limit)
            for handshake in list(self.factory.handshakes):
                handshake.connectionLost()

    def test_hellos_in_small_records(self) -> None:
        """A ClientHello in records of one byte each is accepted."""
        self.start()
        client = self.connect()
        with self.assertRaises(ssl.SSLWantReadError):
            client.engine.do_handshake()
        message = client.outgoing.read()[5:]
        records = b"".join(b"\x16\x03\x01\x00\x01" + bytes((byte,)) for byte in message)
        client.deliver(records)
        client.handshake()
        self.assertEqual(sum(self.factory.completed.values()), 1)

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_mutated_hello(self, data: st.DataObject) -> None:
        """Any change of a ClientHello leads to a handshake, an alert or more reading."""
        if not hasattr(self, "factory"):
            self.start()
        hello = bytearray(client_hello(alpn=("http/1.1",)))
        for _ in range(data.draw(st.integers(1, 4))):
            if not hello:
                break
            place = data.draw(st.integers(0, len(hello) - 1))
            action = data.draw(st.sampled_from(("change", "insert", "remove", "cut")))
            if action == "change":
                hello[place] = data.draw(st.integers(0, 255))
            elif action == "insert":
                hello[place:place] = data.draw(st.binary(max_size=20))
            elif action == "remove":
                del hello[place : place + data.draw(st.integers(1, 20))]
            else:
                del hello[max(1, place) :]
        client = self.connect(data.draw(st.lists(st.integers(1, 400), max_size=3)))
        try:
            client.deliver(bytes(hello))
            sent = client.transport.read()
            if client.transport.write_closed:
                self.assertIn(sent[:1], (b"\x15", b"\x16"))
            else:
                self.assertIn(sent[:1], (b"", b"\x16"))
            client.deliver(os.urandom(100))
            client.fin()
            self.assertTrue(client.transport.closing)
        finally:
            client.finish_closing(ConnectionLost())
            self.clients.remove(client)
        self.assertFalse(self.factory.handshakes)


class LifecycleTests(TlsCase):
    """Drains, reloads and shutdowns during handshakes."""

    def test_drain(self) -> None:
        """Draining closes connections without input; a handshake in progress is completed."""
        balancer = self.start()
        idle, client = self.connect(), self.connect()
        with self.assertRaises(ssl.SSLWantReadError):
            client.engine.do_handshake()
        client.deliver(client.outgoing.read())
        self.frontend.drain()
        balancer.advance(3)
        self.assertTrue(idle.transport.aborted)
        idle.finish_closing()
        self.assertFalse(client.transport.closing)
        client.handshake().send(GET)
        server = balancer.accept()
        server.send(OK)
        self.assertIn(b"Connection: close", client.received())
        self.assertEqual(self.failures(), {})

    def test_shutdown(self) -> None:
        """A shutdown aborts handshakes at each stage, and counts no failure."""
        self.start()
        clients = [self.connect(), self.connect()]
        clients[1].deliver(client_hello())
        self.frontend.factory.close_all()
        for client in clients:
            self.assertTrue(client.transport.aborted)
            client.finish_closing()
        self.assertEqual(self.failures(), {})

    def test_reload_without_tls(self) -> None:
        """A reload that removes TLS rejects new ClientHellos; others complete their handshake."""
        balancer = self.start()
        started, waiting = self.connect(), self.connect()
        with self.assertRaises(ssl.SSLWantReadError):
            started.engine.do_handshake()
        started.deliver(started.outgoing.read())
        waiting.deliver(client_hello()[:50])
        self.frontend._set_contexts(None)
        waiting.deliver(client_hello()[50:])
        self.assertEqual(waiting.transport.read(), INTERNAL_ERROR)
        started.handshake().send(GET)
        self.assertIn(b"GET /", balancer.accept().received())
        self.assertNotIn(self.factory, self.frontend.listeners().values())

    def test_no_reference_cycle(self) -> None:
        """A finished connection is freed by reference counts at each way that it can take."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")
        balancer = self.start()

        def rejected(client: TlsPeer) -> None:
            client.deliver(b"\0")
            client.fin()

        def plain(client: TlsPeer) -> None:
            client.deliver(GET)
            client.fin()

        def bad_finished(client: TlsPeer) -> None:
            with self.assertRaises(ssl.SSLWantReadError):
                client.engine.do_handshake()
            client.deliver(client.outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
            client.fin()

        def stalled(client: TlsPeer) -> None:
            client.deliver(client_hello())
            client.fin()

        def request(client: TlsPeer) -> None:
            client.handshake().send(GET)
            balancer.accept().send(OK)
            client.received()
            client.deliver(client.close_notify())

        def alert(client: TlsPeer) -> None:
            client.deliver(client_hello(alpn=("h2",)))
            client.fin()

        request(self.connect())
        self.clients.pop().finish_closing()
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for run in (rejected, plain, bad_finished, stalled, alert):
            client = self.connect()
            run(client)
            client.finish_closing()
            self.clients.clear()
            self.logs.clear()
            del client
            self.assertEqual(gc.collect(), 0, run.__name__)
