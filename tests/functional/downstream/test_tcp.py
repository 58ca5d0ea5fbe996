"""The TCP door, as transcripts: bytes pass as they are."""

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
    """A balancer for TCP, and a look at what is left at the end."""

    def balancer(self, servers: int = 1, **settings: Any) -> MemoryBalancer:
        balancer = MemoryBalancer(servers, mode="tcp", **settings)
        self.addCleanup(balancer.stop)
        return balancer

    def joined(self, **settings: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        """A client and its server."""
        balancer = self.balancer(**settings)
        client = balancer.client()
        return balancer, client, balancer.accept()

    def assert_free(self, balancer: MemoryBalancer) -> None:
        self.assertEqual([server.in_flight for server in balancer.servers], [0])


class RelayTests(TcpTestCase):
    """What goes through."""

    def test_both_ways(self) -> None:
        balancer, client, server = self.joined()
        client.send(b"\x00\xff GET")
        server.send(b"anything\r\n\r\n")
        self.assertEqual(server.received(), b"\x00\xff GET")
        self.assertEqual(client.received(), b"anything\r\n\r\n")
        self.assertEqual(balancer.servers[0].in_flight, 1)
        for peer in (client, server):
            self.assertTrue(peer.transport.no_delay)
            self.assertTrue(peer.transport.keep_alive)

    def test_a_server_that_speaks_first(self) -> None:
        _, client, server = self.joined()
        server.send(b"220 ready\r\n")
        self.assertEqual(client.received(), b"220 ready\r\n")

    def test_what_was_sent_before_there_was_a_server(self) -> None:
        balancer = self.balancer(servers=3)
        client = balancer.client()
        client.send(b"one ", b"two ")
        balancer.connectors[0].refuse()
        client.send(b"three")
        balancer.connectors[1].refuse(error.TimeoutError())
        self.assertEqual(balancer.accept().received(), b"one two three")

    def test_a_client_that_sends_much_before_there_is_a_server(self) -> None:
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
        _, client, server = self.joined()
        for fast, slow in ((client, server), (server, client)):
            slow.transport.stalled = True
            fast.send(b"x" * (BUFFER_SIZE + 1))
            self.assertFalse(fast.transport.reading)
            slow.received()
            self.assertTrue(fast.transport.reading)
            slow.transport.stalled = False

    def test_the_proxy_protocol_on_both_sides(self) -> None:
        balancer = self.balancer(servers=0)
        server = ServerSettings(TcpAddress("10.0.0.1", 80), proxy_protocol=1)
        balancer.service.server_set.add(server)
        site = ProxyProtocolFactory(balancer.service.default_frontend.factory)
        peer = Peer(site.buildProtocol(None))
        balancer.peers.append(peer)
        origin = ProxyInfo("203.0.113.7", 4711, "192.0.2.80", 80)
        peer.send(encode_proxy_header(2, origin) + b"hello")
        peer.protocol = peer.transport.protocol
        header = b"PROXY TCP4 203.0.113.7 192.0.2.80 4711 80\r\n"
        self.assertEqual(balancer.accept().received(), header + b"hello")


class DisconnectTests(TcpTestCase):
    """How connections end."""

    def test_half_by_the_client(self) -> None:
        balancer, client, server = self.joined()
        client.send(b"question")
        client.half_close()
        self.assertTrue(server.transport.write_closed)
        server.send(b"answer")
        self.assertEqual(client.received(), b"answer")
        self.assertFalse(client.transport.closing)
        server.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed and server.transport.closed)
        self.assertFalse(client.transport.aborted or server.transport.aborted)
        self.assert_free(balancer)

    def test_nothing_is_left_to_the_garbage_collector(self) -> None:
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython counts references")
        balancer, client, server = self.joined()
        left = [weakref.ref(thing) for thing in (client.protocol.exchange, server.protocol)]
        client.send(b"question")
        server.send(b"answer")
        server.half_close()
        client.half_close()
        balancer.finish_closing()
        balancer.connectors.clear()
        server.protocol = server.transport.protocol = None
        gc.disable()
        self.addCleanup(gc.enable)
        self.assertEqual([thing() for thing in left], [None, None])

    def test_connections_that_last_are_watched_by_the_kernel(self) -> None:
        balancer, _, server = self.joined()
        server.transport.keep_alive = False
        balancer.clock.pump([0.5] * 4)
        self.assertTrue(server.transport.keep_alive)

    def test_half_by_the_server(self) -> None:
        balancer, client, server = self.joined()
        server.half_close()
        self.assertTrue(client.transport.write_closed)
        client.send(b"more")
        self.assertEqual(server.received(), b"more")
        client.half_close()
        balancer.finish_closing()
        self.assertTrue(client.transport.closed and server.transport.closed)
        self.assert_free(balancer)

    def test_half_before_there_is_a_server(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"question")
        client.half_close()
        server = balancer.accept()
        self.assertEqual(server.received(), b"question")
        self.assertTrue(server.transport.write_closed)
        server.send(b"answer")
        server.half_close()
        self.assertEqual(client.received(), b"answer")
        balancer.finish_closing()
        self.assert_free(balancer)

    def test_resets_are_passed_on(self) -> None:
        for who in ("client", "server"):
            balancer, client, server = self.joined()
            (client if who == "client" else server).reset()
            other = server if who == "client" else client
            self.assertTrue(other.transport.aborted)
            self.assert_free(balancer)

    def test_a_reset_after_all_was_said_destroys_nothing(self) -> None:
        balancer, client, server = self.joined()
        server.send(b"answer")
        server.half_close()
        server.reset()
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)
        self.assertEqual(client.received(), b"answer")
        self.assert_free(balancer)

    def test_the_client_leaves_before_there_is_a_server(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.reset()
        self.assert_free(balancer)
        server = balancer.accept()
        self.assertTrue(server.transport.closing)

    def test_nobody_can_be_connected_to(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        for connector in list(balancer.connectors):
            connector.refuse()
        balancer.connectors[-1].refuse()
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_it_never_moves_once_it_stands(self) -> None:
        balancer, client, server = self.joined(servers=2)
        client.send(b"x")
        server.reset()
        self.assertTrue(client.transport.closing)
        self.assertEqual(len(balancer.connectors), 1)

    def test_the_operator_empties_the_pool(self) -> None:
        balancer = self.balancer()
        balancer.service.resource.health.set_admin_state(
            balancer.servers[0], AdminState.MAINTENANCE
        )
        client = balancer.client()
        self.assertTrue(client.transport.closing)

    def test_silence_for_too_long(self) -> None:
        balancer, client, server = self.joined(timeouts=Timeouts(tunnel=5))
        for _ in range(4):
            balancer.advance(3)
            server.send(b"still here")
        self.assertFalse(client.transport.closing)
        balancer.advance(8)
        self.assertTrue(client.transport.aborted and server.transport.aborted)
        self.assert_free(balancer)

    def test_who_takes_nothing_of_the_last_is_not_waited_for_without_end(self) -> None:
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
        other = balancer.client()
        slow = balancer.accept(stalled=True)
        other.send(b"x" * 60_000)
        other.half_close()
        slow.half_close()
        balancer.advance(8)
        self.assertTrue(slow.transport.aborted)

    def test_it_stops_while_somebody_takes_nothing(self) -> None:
        balancer, client, server = self.joined()
        client.transport.stalled = True
        server.send(b"y" * 60_000)
        server.half_close()
        server.reset()
        balancer.stop()
        self.assertTrue(client.transport.aborted)

    def test_all_servers_are_tried(self) -> None:
        balancer = self.balancer(servers=6)
        client = balancer.client()
        client.send(b"hello")
        for number in range(5):
            balancer.connectors[number].refuse()
        self.assertEqual(balancer.accept().received(), b"hello")

    def test_the_balancer_stops(self) -> None:
        for connected in (True, False):
            balancer = self.balancer()
            client = balancer.client()
            if connected:
                balancer.accept()
            balancer.stop()
            self.assertTrue(client.transport.aborted)


class TcpPipelineTests(TcpTestCase):
    """What it has in common with HTTP."""

    def test_a_server_that_failed_is_avoided_and_tried_again(self) -> None:
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

    def test_limits_count_connections(self) -> None:
        balancer = self.balancer(limits=(LimitSettings(2, 60.0),))
        clients = [balancer.client() for _ in range(3)]
        other = balancer.client("192.0.2.9")
        self.assertEqual(
            [client.transport.closing for client in (*clients, other)],
            [False, False, True, False],
        )
        self.assertEqual(len(balancer.connectors), 3)

    def test_connections_at_once(self) -> None:
        balancer = self.balancer(limits=(LimitSettings(1, algorithm="concurrent"),))
        first = balancer.client()
        balancer.accept()
        self.assertTrue(balancer.client().transport.closing)
        first.reset()
        self.assertFalse(balancer.client().transport.closing)

    def test_most_in_flight(self) -> None:
        balancer = self.balancer(servers=0)
        balancer.service.server_set.add(ServerSettings(TcpAddress("10.0.0.1", 1), max_in_flight=1))
        first = balancer.client()
        second = balancer.client()
        second.send(b"waiting")
        self.assertEqual(len(balancer.service.resource.queue), 1)
        first.reset()
        self.assertEqual(len(balancer.service.resource.queue), 0)

    def test_least_connections(self) -> None:
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
    """The line in the log."""

    def test_who_why_and_how_much(self) -> None:
        events: list[LogEvent] = []

        def observe(event: LogEvent) -> None:
            if "bytes_sent" in event:
                events.append(event)

        observer: Any = observe
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        balancer, client, server = self.joined(log_connections=True)
        client.send(b"12345")
        server.send(b"123")
        balancer.clock.advance(2)
        client.half_close()
        server.half_close()
        balancer.finish_closing()
        refused = balancer.client()
        balancer.connectors[-1].refuse()
        self.assertTrue(refused.transport.closing)
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
