"""TCP connections: bytes are relayed unchanged in both directions."""

from __future__ import annotations

import gc
import platform
import weakref
from typing import Any

from twisted.internet import error
from twisted.logger import LogEvent, globalLogPublisher
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from balancebeam.api import Timeouts
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminState, LimitSettings, ServerSettings
from balancebeam.downstream.proxy_protocol import ProxyProtocolFactory
from balancebeam.protocols.proxy_protocol import ProxyInfo, encode_proxy_header
from tests.helpers.memory import BUFFER_SIZE, MemoryBalancer, Peer


class TcpTestCase(SynchronousTestCase):
    """Balancers in TCP mode, which must leave nothing behind."""

    def balancer(self, servers: int = 1, **settings: Any) -> MemoryBalancer:
        """A balancer that is stopped, and checked, at the end of the test."""
        balancer = MemoryBalancer(servers, mode="tcp", **settings)
        self.addCleanup(balancer.stop)
        return balancer

    def connect(self, **settings: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        """A balancer, a client, and the server it is connected to."""
        balancer = self.balancer(**settings)
        client = balancer.client()
        return balancer, client, balancer.accept()

    def assert_no_connections(self, balancer: MemoryBalancer) -> None:
        """No connection is counted for the only server."""
        self.assertEqual([server.in_flight for server in balancer.servers], [0])


class RelayTests(TcpTestCase):
    """Relayed bytes."""

    def test_both_directions(self) -> None:
        """Any bytes pass in both directions; sockets have TCP_NODELAY and keepalive."""
        balancer, client, server = self.connect()
        client.send(b"\x00\xff GET")
        server.send(b"anything\r\n\r\n")
        self.assertEqual(server.received(), b"\x00\xff GET")
        self.assertEqual(client.received(), b"anything\r\n\r\n")
        self.assertEqual(balancer.servers[0].in_flight, 1)
        for peer in (client, server):
            self.assertTrue(peer.transport.no_delay)
            self.assertTrue(peer.transport.keep_alive)

    def test_server_sends_first(self) -> None:
        """A server may send before the client."""
        _, client, server = self.connect()
        server.send(b"220 ready\r\n")
        self.assertEqual(client.received(), b"220 ready\r\n")

    def test_bytes_before_a_server_is_connected(self) -> None:
        """Bytes sent while servers are tried reach the one that accepts, in order."""
        balancer = self.balancer(servers=3)
        client = balancer.client()
        client.send(b"one ", b"two ")
        balancer.connectors[0].refuse()
        client.send(b"three")
        balancer.connectors[1].refuse(error.TimeoutError())
        self.assertEqual(balancer.accept().received(), b"one two three")

    def test_many_bytes_before_a_server_is_connected(self) -> None:
        """While no server is connected, only a bounded number of bytes is read."""
        balancer = self.balancer()
        client = balancer.client()
        sent = 0
        while client.transport.reading:
            client.send(b"x" * 10_000)
            sent += 10_000
        self.assertLess(sent, 100_000)
        server = balancer.accept()
        self.assertTrue(client.transport.reading)
        self.assertEqual(len(server.received()), sent)

    def test_backpressure(self) -> None:
        """A side that does not read pauses reading from the other one."""
        _, client, server = self.connect()
        for fast, slow in ((client, server), (server, client)):
            slow.transport.stalled = True
            fast.send(b"x" * (BUFFER_SIZE + 1))
            self.assertFalse(fast.transport.reading)
            slow.received()
            self.assertTrue(fast.transport.reading)
            slow.transport.stalled = False

    def test_proxy_protocol_on_both_sides(self) -> None:
        """The client's address of a received PROXY header is sent to the server."""
        balancer = self.balancer(servers=0)
        server = ServerSettings(TcpAddress("10.0.0.1", 80), proxy_protocol=1)
        balancer.service.server_set.add(server)
        factory = ProxyProtocolFactory(balancer.service.default_frontend.factory)
        peer = Peer(factory.buildProtocol(None))
        balancer.peers.append(peer)
        origin = ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 80)
        peer.send(encode_proxy_header(2, origin) + b"hello")
        header = b"PROXY TCP4 203.0.113.7 192.0.2.80 4711 80\r\n"
        self.assertEqual(balancer.accept().received(), header + b"hello")


class DisconnectTests(TcpTestCase):
    """Half-close, close and reset."""

    def test_half_close_by_the_client(self) -> None:
        """The client's EOF is passed on, and the server may still send."""
        balancer, client, server = self.connect()
        client.send(b"request")
        client.half_close()
        self.assertTrue(server.transport.write_closed)
        server.send(b"response")
        self.assertEqual(client.received(), b"response")
        self.assertFalse(client.transport.closing)
        server.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed and server.transport.closed)
        self.assertFalse(client.transport.aborted or server.transport.aborted)
        self.assert_no_connections(balancer)

    def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        """Closed connections are freed by reference counting alone."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")
        balancer, client, server = self.connect()
        references = [weakref.ref(target) for target in (client.protocol.exchange, server.protocol)]
        client.send(b"request")
        server.send(b"response")
        server.half_close()
        client.half_close()
        balancer.finish_closing()
        balancer.connectors.clear()
        server.transport.protocol = None
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual([reference() for reference in references], [None, None])

    def test_keepalive_of_lasting_connections(self) -> None:
        """An upstream connection that lasts until a sweep has TCP keepalive."""
        balancer, _, server = self.connect()
        server.transport.keep_alive = False
        balancer.clock.pump([0.5] * 4)
        self.assertTrue(server.transport.keep_alive)

    def test_half_close_by_the_server(self) -> None:
        """The server's EOF is passed on, and the client may still send."""
        balancer, client, server = self.connect()
        server.half_close()
        self.assertTrue(client.transport.write_closed)
        client.send(b"more")
        self.assertEqual(server.received(), b"more")
        client.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed and server.transport.closed)
        self.assert_no_connections(balancer)

    def test_half_close_before_a_server_is_connected(self) -> None:
        """EOF that was received before the server was connected is passed on then."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"request")
        client.half_close()
        server = balancer.accept()
        self.assertEqual(server.received(), b"request")
        self.assertTrue(server.transport.write_closed)
        server.send(b"response")
        server.half_close()
        self.assertEqual(client.received(), b"response")
        balancer.finish_closing()
        self.assert_no_connections(balancer)

    def test_resets_are_passed_on(self) -> None:
        """A reset of one side resets the other side."""
        for first in ("client", "server"):
            balancer, client, server = self.connect()
            (client if first == "client" else server).reset()
            second = server if first == "client" else client
            self.assertTrue(second.transport.aborted)
            self.assert_no_connections(balancer)

    def test_reset_after_half_close(self) -> None:
        """A server's reset after its EOF does not discard its last bytes."""
        balancer, client, server = self.connect()
        server.send(b"response")
        server.half_close()
        server.reset()
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)
        self.assertEqual(client.received(), b"response")
        self.assert_no_connections(balancer)

    def test_client_disconnects_before_a_server_is_connected(self) -> None:
        """A server that accepts after the client has disconnected is closed."""
        balancer = self.balancer()
        client = balancer.client()
        client.reset()
        self.assert_no_connections(balancer)
        server = balancer.accept()
        self.assertTrue(server.transport.closing)

    def test_all_servers_refuse(self) -> None:
        """If no server accepts, the client is closed without a byte."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        for connector in list(balancer.connectors):
            connector.refuse()
        balancer.connectors[-1].refuse()
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_no_retry_after_the_connection(self) -> None:
        """A connected session is not moved to another server when its server resets."""
        balancer, client, server = self.connect(servers=2)
        client.send(b"x")
        server.reset()
        self.assertTrue(client.transport.closing)
        self.assertEqual(len(balancer.connectors), 1)

    def test_no_server_available(self) -> None:
        """With every server in maintenance, clients are closed."""
        balancer = self.balancer()
        balancer.service.resource.health.set_admin_state(
            balancer.servers[0], AdminState.MAINTENANCE
        )
        client = balancer.client()
        self.assertTrue(client.transport.closing)

    def test_tunnel_timeout(self) -> None:
        """A session without bytes in either direction is reset after the tunnel timeout."""
        balancer, client, server = self.connect(timeouts=Timeouts(tunnel=5))
        for _ in range(4):
            balancer.advance(3)
            server.send(b"still here")
        self.assertFalse(client.transport.closing)
        balancer.advance(8)
        self.assertTrue(client.transport.aborted and server.transport.aborted)
        self.assert_no_connections(balancer)

    def test_stalled_close(self) -> None:
        """A closing connection whose peer does not read is reset, on both sides."""
        balancer = self.balancer(timeouts=Timeouts(idle=5, upstream=5))
        client = balancer.client()
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"y" * 60_000)
        server.half_close()
        server.reset()
        self.assertFalse(client.transport.aborted)
        balancer.advance(8)
        self.assertTrue(client.transport.aborted)
        second = balancer.client()
        slow = balancer.accept(stalled=True)
        second.send(b"x" * 60_000)
        second.half_close()
        slow.half_close()
        balancer.advance(8)
        self.assertTrue(slow.transport.aborted)

    def test_stop_during_a_stalled_close(self) -> None:
        """Stopping does not wait for a peer that does not read."""
        balancer, client, server = self.connect()
        client.transport.stalled = True
        server.send(b"y" * 60_000)
        server.half_close()
        server.reset()
        balancer.stop()
        self.assertTrue(client.transport.aborted)

    def test_all_servers_are_tried(self) -> None:
        """Servers are tried one after the other until one accepts."""
        balancer = self.balancer(servers=6)
        client = balancer.client()
        client.send(b"hello")
        for number in range(5):
            balancer.connectors[number].refuse()
        self.assertEqual(balancer.accept().received(), b"hello")

    def test_stop(self) -> None:
        """Stopping resets every session, connected or not."""
        for connected in (True, False):
            balancer = self.balancer()
            client = balancer.client()
            if connected:
                balancer.accept()
            balancer.stop()
            self.assertTrue(client.transport.aborted)


class TcpPipelineTests(TcpTestCase):
    """The request pipeline, applied to TCP sessions."""

    def test_ejection_and_trial(self) -> None:
        """A server that refuses is ejected, and used again after its cooldown."""
        balancer = self.balancer(servers=2)
        balancer.client()
        balancer.connectors[0].refuse()
        balancer.accept()
        for _ in range(3):
            balancer.client()
            balancer.accept()
        self.assertEqual([server.in_flight for server in balancer.servers], [0, 4])
        balancer.advance(11)
        for _ in range(2):
            balancer.client()
            balancer.accept()
        self.assertEqual(balancer.servers[0].status, "up")
        self.assertEqual([server.in_flight for server in balancer.servers], [1, 5])

    def test_rate_limit(self) -> None:
        """A rate limit counts the connections of a client."""
        balancer = self.balancer(limits=(LimitSettings(2, 60.0),))
        clients = [balancer.client() for _ in range(3)]
        other_client = balancer.client("192.0.2.9")
        self.assertEqual(
            [client.transport.closing for client in (*clients, other_client)],
            [False, False, True, False],
        )
        self.assertEqual(len(balancer.connectors), 3)

    def test_concurrency_limit(self) -> None:
        """A concurrency limit is released when a session ends."""
        balancer = self.balancer(limits=(LimitSettings(1, algorithm="concurrent"),))
        first = balancer.client()
        balancer.accept()
        self.assertTrue(balancer.client().transport.closing)
        first.reset()
        self.assertFalse(balancer.client().transport.closing)

    def test_max_in_flight(self) -> None:
        """A session waits in the queue while the server is saturated."""
        balancer = self.balancer(servers=0)
        balancer.service.server_set.add(ServerSettings(TcpAddress("10.0.0.1", 1), max_in_flight=1))
        first = balancer.client()
        second = balancer.client()
        second.send(b"waiting")
        self.assertEqual(len(balancer.service.resource.queue), 1)
        first.reset()
        self.assertEqual(len(balancer.service.resource.queue), 0)

    def test_least_connections(self) -> None:
        """`least-connections` selects the server with fewer sessions."""
        balancer = self.balancer(servers=2, algorithm="least-connections")
        first = balancer.client()
        balancer.accept()
        for _ in range(3):
            balancer.client()
            balancer.accept()
        first.reset()
        balancer.client()
        self.assertEqual(str(balancer.connectors[-1].address), "10.0.0.1:80")


class TcpLogTests(TcpTestCase):
    """The log event of a finished session."""

    def test_log_event(self) -> None:
        """The event has client, server, close reason, bytes and duration."""
        events: list[LogEvent] = []

        def observe(event: LogEvent) -> None:
            """Collect the events of sessions."""
            if "bytes_sent" in event:
                events.append(event)

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        balancer, client, server = self.connect(log_connections=True)
        client.send(b"12345")
        server.send(b"123")
        balancer.clock.advance(2)
        client.half_close()
        server.half_close()
        balancer.finish_closing()
        failed = balancer.client()
        balancer.connectors[-1].refuse()
        self.assertTrue(failed.transport.closing)
        first, second = events
        self.assertEqual(
            {
                k: first[k]
                for k in (
                    "client",
                    "server",
                    "close_reason",
                    "bytes_received",
                    "bytes_sent",
                    "duration",
                )
            },
            {
                "client": "192.0.2.1",
                "server": "10.0.0.1:80",
                "close_reason": "client closed",
                "bytes_received": 5,
                "bytes_sent": 3,
                "duration": 2.0,
            },
        )
        self.assertEqual(second["server"], "no server")
        self.assertIn("could not be reached", second["close_reason"])
