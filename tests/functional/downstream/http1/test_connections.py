"""HTTP/1.1 connections: persistence, pipelining, backpressure and disconnects."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import (
    BUFFER_SIZE,
    GET,
    OK,
    Peer,
    head_and_body,
)


class PersistentConnectionTests(BalancerTestCase):
    """Persistent connections on both sides, pipelining, and HTTP/1.0."""

    def test_one_connection_serves_many_requests(self) -> None:
        """Requests of a client, one after the other, use one upstream connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        for _ in range(5):
            self.assertTrue(server.received().startswith(b"GET / HTTP/1.1\r\n"))
            server.send(OK)
            self.assertTrue(client.received().endswith(b"hello"))
            client.send(GET)
        server.send(OK)
        self.assertEqual(len(balancer.connectors), 1)

    def test_most_recently_used_connection_is_reused(self) -> None:
        """Of several idle upstream connections the most recently used one is taken."""
        balancer = self.balancer()
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        servers = [balancer.accept(number) for number in range(3)]
        for server in servers:
            server.received()
            server.send(OK)
        clients[0].send(GET)
        self.assertEqual([len(s.received()) > 0 for s in servers], [False, False, True])
        servers[2].send(OK)

    def test_pipelined_requests_are_answered_in_order(self) -> None:
        """Pipelined requests are forwarded one by one and answered in order."""
        balancer = self.balancer()
        client = balancer.client()
        request = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
        client.send(b"".join(request % n for n in range(5)))
        server = balancer.accept()
        for number in range(5):
            self.assertTrue(server.received().startswith(b"GET /%d " % number))
            server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
            self.assertTrue(client.received().endswith(b"\r\n\r\n%d" % number))

    def test_pipelined_errors_do_not_recurse(self) -> None:
        """Thousands of pipelined requests that fail at once do not exhaust the stack."""
        balancer = self.balancer(servers=0)
        client = balancer.client()
        client.send(GET * 3000)
        self.assertEqual(client.received().count(b"HTTP/1.1 503 "), 3000)

    def test_pipelined_request_after_a_body(self) -> None:
        """A request that follows a request body is forwarded after the first response."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" + GET)
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"\r\n\r\nabc"))
        server.send(OK)
        self.assertTrue(server.received().startswith(b"GET / "))
        server.send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)

    def test_connection_close(self) -> None:
        """A request with `Connection: close` is answered with it, and an orderly close."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        balancer.accept().send(OK)
        self.assertIn(b"\r\nConnection: close\r\n", client.received())
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_connection_that_the_server_closes_is_not_reused(self) -> None:
        """After a response with `Connection: close` the next request opens a new connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertNotIn(b"close", client.received())
        client.send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        balancer.accept().send(OK)

    def test_idle_connection_closed_by_the_server_is_replaced(self) -> None:
        """After EOF on an idle upstream connection the next request opens a new one."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        server.half_close()
        balancer.finish_closing()
        client.send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        balancer.accept().send(OK)

    def test_http_1_0_client(self) -> None:
        """An HTTP/1.0 client receives an unframed body that ends with the connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\n\r\n")
        server = balancer.accept()
        forwarded = server.received()
        self.assertIn(b"\r\nHost: 127.0.0.1:1100\r\n", b"\r\n" + forwarded)
        self.assertTrue(forwarded.startswith(b"GET / HTTP/1.1\r\n"))
        self.assertIn(b"\r\nVia: 1.0 balancebeam\r\n", forwarded)
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        lines, body = head_and_body(client.received())
        self.assertEqual(body, b"abc")
        self.assertNotIn(b"Transfer-Encoding: chunked", lines)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_http_1_0_keep_alive(self) -> None:
        """An HTTP/1.0 client with `Connection: keep-alive` keeps its connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        balancer.accept().send(OK)
        self.assertIn(b"\r\nConnection: keep-alive\r\n", client.received())
        self.assertFalse(client.transport.closing)

    def test_http_1_0_server(self) -> None:
        """A close-delimited body of an HTTP/1.0 server is sent to the client in chunks."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nabc")
        server.send(b"def")
        server.half_close()
        lines, body = head_and_body(client.received())
        self.assertEqual(lines[0], b"HTTP/1.1 200 OK")
        self.assertEqual(body, b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")
        self.assertFalse(client.transport.closing)
        self.assertTrue(server.transport.closing)


class BackpressureTests(BalancerTestCase):
    """A slow peer slows down the other side, with bounded buffers."""

    def test_client_that_does_not_read(self) -> None:
        """While the client does not read, reading from the server is paused."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.transport.stalled = True
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
        sent = 0
        while server.transport.reading:
            server.send(b"x" * 10000)
            sent += 10000
        self.assertLess(sent, 2 * BUFFER_SIZE)
        client.transport.stalled = False
        client.received()
        self.assertTrue(server.transport.reading)
        server.send(b"x" * (1000000 - sent))
        self.assertEqual(len(client.received()), 1000000 - sent)
        client.send(GET)
        server.send(OK)

    def test_server_that_does_not_read(self) -> None:
        """While the server does not read, reading from the client is paused."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        server = balancer.accept()
        server.transport.stalled = True
        sent = 0
        while client.transport.reading:
            client.send(b"x" * 10000)
            sent += 10000
        self.assertLess(sent, 2 * BUFFER_SIZE)
        server.transport.stalled = False
        server.received()
        self.assertTrue(client.transport.reading)
        client.send(b"x" * (1000000 - sent))
        server.send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_body_while_connecting(self) -> None:
        """While no server is connected, only a bounded part of the body is read."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n")
        sent = 0
        while client.transport.reading:
            client.send(b"x" * 10000)
            sent += 10000
        self.assertLess(sent, 2 * BUFFER_SIZE)
        server = balancer.accept()
        self.assertTrue(client.transport.reading)
        client.send(b"x" * (200000 - sent))
        self.assertEqual(head_and_body(server.received())[1], b"x" * 200000)
        server.send(OK)

    def test_pipelining_client_that_does_not_read(self) -> None:
        """No pipelined request is forwarded while the client does not read its response."""
        balancer = self.balancer()
        client = balancer.client()
        client.transport.stalled = True
        client.send(GET)
        server = balancer.accept()
        large_response = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100000
        server.send(large_response)
        server.received()
        for _ in range(10):
            client.send(GET)
        self.assertEqual(server.received(), b"")
        client.transport.stalled = False
        client.received()
        self.assertTrue(server.received().startswith(b"GET / "))
        for _ in range(10):
            server.send(OK)
        self.assertEqual(client.received().count(b"hello"), 10)

    def test_pipelined_requests_are_buffered_up_to_a_limit(self) -> None:
        """Reading is paused when too many pipelined requests wait."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        sent = 0
        while client.transport.reading:
            client.send(GET * 100)
            sent += 100
        self.assertLess(sent * len(GET), 2 * BUFFER_SIZE)
        for _ in range(sent + 1):
            server.send(OK)
        self.assertTrue(client.transport.reading)
        self.assertEqual(client.received().count(b"hello"), sent + 1)


class ClientDisconnectTests(BalancerTestCase):
    """Clients that close, half-close or reset."""

    def test_reset_aborts_the_request(self) -> None:
        """A client's reset aborts the upstream connection of its request."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.reset()
        self.assertTrue(server.transport.aborted)

    def test_reset_while_connecting(self) -> None:
        """A connection that was opened for a client that has reset serves the next request."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        client.reset()
        server = balancer.accept()
        self.assertEqual(server.received(), b"")
        next_client = balancer.client()
        next_client.send(GET)
        self.assertEqual(len(balancer.connectors), 1)
        server.send(OK)

    def test_disconnect_within_the_body(self) -> None:
        """EOF or a reset within a request body closes the upstream connection."""
        for end in (Peer.half_close, Peer.reset):
            balancer = self.balancer()
            client = balancer.client()
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            server = balancer.accept()
            end(client)
            balancer.finish_closing()
            self.assertTrue(server.transport.closed)

    def test_half_close_after_the_requests(self) -> None:
        """After the client's EOF, all its requests are still answered."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET + GET)
        client.half_close()
        server = balancer.accept()
        server.send(OK)
        server.send(OK)
        self.assertEqual(client.received().count(b"hello"), 2)
        self.assertTrue(client.transport.closing)
        self.assertFalse(client.transport.aborted)

    def test_half_close_within_a_pipelined_body(self) -> None:
        """A pipelined request whose body is cut by the client's EOF ends the connection at once."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET + b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nabc")
        client.half_close()
        server = balancer.accept()
        server.received()
        server.send(OK)
        self.assertTrue(client.transport.aborted)
        self.assertEqual(server.received(), b"")

    def test_half_close_without_a_response(self) -> None:
        """After the client's EOF, a request without a response in time is aborted."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        client.half_close()
        balancer.advance(3)
        self.assertTrue(client.transport.aborted)
        self.assertTrue(server.transport.aborted)

    def test_half_close_between_requests(self) -> None:
        """EOF between requests closes the connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        client.half_close()
        self.assertTrue(client.transport.closing)
