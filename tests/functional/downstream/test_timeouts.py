"""Whoever is too slow, on either side."""

from __future__ import annotations

from balancebeam.api import Timeouts
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import BUFFER_SIZE, GET, OK


class DownstreamTimeoutTests(BalancerTestCase):
    """Time limits for clients."""

    def test_slow_head(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        for octet in b"GET / HTTP":
            client.send(bytes([octet]))
            balancer.advance(0.9)
        self.assertEqual(client.received(), b"")
        balancer.advance(3)
        self.assert_error(client.received(), 408)
        self.assertTrue(client.transport.write_closed)
        balancer.advance(4)
        self.assertTrue(client.transport.closing)

    def test_connection_that_says_nothing(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        balancer.advance(9)
        self.assertFalse(client.transport.closing)
        balancer.advance(3)
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_idle_client(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        balancer.advance(58)
        self.assertFalse(client.transport.closing)
        balancer.advance(4)
        self.assertTrue(client.transport.closing)
        self.assertEqual(client.received(), b"")

    def test_second_head_that_is_slow(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.received()
        balancer.advance(30)
        client.send(b"GET")
        balancer.advance(12)
        self.assert_error(client.received(), 408)

    def test_body_that_stops(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
        server = balancer.accept()
        balancer.advance(62)
        self.assert_error(client.received(), 408)
        self.assertTrue(server.transport.aborted)

    def test_body_that_goes_on(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
        server = balancer.accept()
        for octet in b"abcdefghi":
            balancer.advance(40)
            client.send(bytes([octet]))
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_reader_that_stops(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 2 * BUFFER_SIZE)
        self.assertFalse(server.transport.reading)
        balancer.advance(62)
        self.assertTrue(client.transport.aborted)
        balancer.finish_closing()
        self.assertTrue(server.transport.closed)

    def test_client_that_does_not_take_the_end(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        balancer.accept().send(OK)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)
        balancer.advance(62)
        self.assertTrue(client.transport.aborted)


class UpstreamTimeoutTests(BalancerTestCase):
    """Time limits for servers."""

    def test_silent_server(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        balancer.advance(58)
        self.assertEqual(client.received(), b"")
        balancer.advance(4)
        self.assert_error(client.received(), 504)
        self.assertTrue(server.transport.aborted)
        self.assertEqual(len(balancer.connectors), 1)

    def test_limits_of_less_than_a_second(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=0.5))
        client = balancer.client()
        client.send(GET)
        balancer.accept()
        balancer.advance(0.9)
        self.assert_error(client.received(), 504)

    def test_server_that_stops_within_its_body(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        balancer.advance(62)
        self.assertTrue(client.received().endswith(b"abc"))
        self.assertTrue(client.transport.closing)

    def test_server_that_goes_on(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for octet in b"abcd":
            balancer.advance(50)
            server.send(bytes([octet]))
        self.assertTrue(client.received().endswith(b"abcd"))

    def test_server_that_waits_for_the_client(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=60))
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n")
        server = balancer.accept()
        balancer.advance(30)
        client.send(b"x")
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_server_that_does_not_take_the_body(self) -> None:
        balancer = self.balancer(timeouts=Timeouts(upstream=5, idle=60))
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        client.send(b"x" * 2 * BUFFER_SIZE)
        balancer.advance(7)
        self.assert_error(client.received(), 504)

    def test_idle_connection_is_closed_in_time(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        balancer.advance(62)
        self.assertTrue(server.transport.closing)
        self.assertEqual(balancer.servers[0].idle_connections, {})

    def test_connections_that_last_are_watched_by_the_kernel(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.transport.keep_alive = False
        balancer.advance(2)
        self.assertTrue(server.transport.keep_alive)

    def test_clock_that_is_set(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        balancer.clock.advance(86400)
        self.assertEqual(client.received(), b"")
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))
