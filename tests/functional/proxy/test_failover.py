"""Servers that fail, and what clients notice of it."""

from __future__ import annotations

from twisted.internet import error

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, Peer, head_and_body

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
PUT = POST.replace(b"POST", b"PUT")


class ConnectFailureTests(BalancerTestCase):
    """Before a byte of the request has left."""

    def test_refused_by_one(self) -> None:
        for request in (GET, POST):
            balancer = self.balancer(servers=2)
            client = balancer.client()
            client.send(request)
            balancer.connectors[0].refuse()
            server = balancer.accept()
            self.assertEqual(str(balancer.connectors[1].address), "10.0.0.2:80")
            self.assertEqual(head_and_body(server.received())[1], head_and_body(request)[1])
            server.send(OK)
            self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_refused_by_all(self) -> None:
        balancer = self.balancer(servers=3)
        client = balancer.client()
        client.send(GET)
        for number in range(3):
            balancer.connectors[number].refuse()
        self.assertEqual(len(balancer.connectors), 3)
        self.assert_error(client.received(), 502)
        self.assertFalse(client.transport.closing)

    def test_at_most_three_are_tried(self) -> None:
        balancer = self.balancer(servers=5)
        client = balancer.client()
        client.send(GET)
        for number in range(3):
            balancer.connectors[number].refuse()
        self.assertEqual(len(balancer.connectors), 3)
        self.assert_error(client.received(), 502)

    def test_timed_out(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse(error.TimeoutError())
        balancer.connectors[1].refuse(error.TimeoutError())
        self.assert_error(client.received(), 504)

    def test_takes_too_long_to_accept(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.advance(4.5)
        self.assertEqual(len(balancer.connectors), 1)
        balancer.advance(2)
        self.assertEqual(balancer.connectors[0].state, "disconnected")
        self.assertEqual(len(balancer.connectors), 2)
        balancer.advance(6.5)
        self.assert_error(client.received(), 504)
        self.assertIn("connect timeout of 5 s", balancer.servers[0].status_reason)

    def test_connection_resets_while_connecting(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.reset()
        balancer.accept().send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))


class CooldownTests(BalancerTestCase):
    """A server that refuses is ejected for a while."""

    def test_avoided_then_tried_again(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        server = balancer.accept()
        server.send(OK)
        for _ in range(6):
            client.send(GET)
            server.send(OK)
        self.assertEqual(len(balancer.connectors), 2)
        balancer.advance(11)
        for _ in range(2):
            client.send(GET)
            if balancer.connectors[-1].state == "connecting":
                balancer.accept().send(OK)
            else:
                server.send(OK)
        self.assertEqual(str(balancer.connectors[-1].address), "10.0.0.1:80")
        self.assertEqual(balancer.servers[0].ejection.consecutive_failures, 0)
        balancer.advance(62)
        self.assertFalse(balancer.servers[0].tracked)

    def test_it_doubles_while_the_server_keeps_failing(self) -> None:
        balancer = self.balancer(servers=1)
        client = balancer.client()
        server = balancer.servers[0]
        lengths = []
        for _ in range(6):
            client.send(GET)
            balancer.connectors[-1].refuse()
            lengths.append(server.ejection.cooldown)
            balancer.advance(server.ejection.cooldown + 1)
        self.assertEqual(lengths, [10, 20, 40, 80, 80, 80])

    def test_all_out_is_tried_all_the_same(self) -> None:
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        client.received()
        client.send(GET)
        balancer.accept().send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_several_failures_at_once_are_one_outage(self) -> None:
        balancer = self.balancer(servers=1)
        for _ in range(5):
            balancer.client().send(GET)
        for connector in list(balancer.connectors):
            connector.refuse()
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)


class BackupServerTests(BalancerTestCase):
    """Servers that are there for when the others are not."""

    def test_only_when_no_other_is_left(self) -> None:
        servers = (
            ServerSettings(TcpAddress("10.0.0.1", 80)),
            ServerSettings(TcpAddress("10.0.0.2", 80), backup=True),
            ServerSettings(TcpAddress("10.0.0.3", 80), weight=0),
        )
        balancer = self.balancer(servers=0)
        self.assertEqual(balancer.servers, [])
        for server in servers:
            balancer.service.server_set.add(server)
        client = balancer.client()
        for _ in range(3):
            client.send(GET)
            if balancer.connectors[-1].state == "connecting":
                first = balancer.accept()
            first.send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.assertEqual({str(c.address) for c in balancer.connectors}, {"10.0.0.1:80"})
        client.send(GET)
        balancer.connectors[-1].refuse()
        self.assertEqual(str(balancer.connectors[-1].address), "10.0.0.2:80")
        balancer.accept().send(OK)


class ResponseFailureTests(BalancerTestCase):
    """After the request has left."""

    def test_closed_before_an_answer(self) -> None:
        for end in (Peer.half_close, Peer.reset):
            balancer = self.balancer(servers=2)
            client = balancer.client()
            client.send(GET)
            end(balancer.accept())
            balancer.accept().send(OK)
            self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_post_is_not_sent_twice(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(POST)
        balancer.accept().half_close()
        self.assert_error(client.received(), 502)
        self.assertEqual(len(balancer.connectors), 1)

    def test_put_is_sent_again_with_its_body(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(PUT[:-1], PUT[-1:])
        first = balancer.accept()
        sent = first.received()
        first.half_close()
        second = balancer.accept()
        self.assertEqual(second.received(), sent)
        self.assertTrue(sent.endswith(b"\r\n\r\nabc"))
        second.send(OK)

    def test_put_whose_body_is_too_large_to_keep(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        server = balancer.accept()
        client.send(*[b"x" * 10000] * 10)
        server.half_close()
        self.assert_error(client.received(), 502)

    def test_put_that_is_still_coming_in(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(PUT[:-1])
        balancer.accept().half_close()
        client.send(PUT[-1:])
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"\r\n\r\nabc"))
        server.send(OK)

    def test_stale_idle_connection(self) -> None:
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        client.received()
        client.send(GET)
        # The server closed just before the request reached it.
        server.half_close()
        again = balancer.accept()
        self.assertTrue(again.received().startswith(b"GET / "))
        again.send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(balancer.servers[0].ejection.consecutive_failures, 0)

    def test_stale_idle_connection_and_a_post(self) -> None:
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        client.received()
        client.send(POST)
        server.half_close()
        self.assert_error(client.received(), 502)

    def test_nonsense_for_an_answer(self) -> None:
        for nonsense in (
            b"hello\r\n\r\n",
            b"SSH-2.0-OpenSSH_9\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70000,
        ):
            balancer = self.balancer(servers=1)
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(nonsense)
            self.assert_error(client.received(), 502)
            self.assertTrue(server.transport.aborted)

    def test_nonsense_in_a_chunked_body_cuts_it(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"x\r\n")
        self.assertTrue(client.transport.closing)
        self.assertTrue(client.received().endswith(b"1\r\na\r\n"))

    def test_nonsense_in_a_body_that_has_not_begun_for_the_client(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n")
        self.assert_error(client.received(), 502)
        self.assertTrue(server.transport.aborted)

    def test_small_chunked_response_is_one_write(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        writes: list[bytes] = []
        self.patch(client.transport, "write", writes.append)
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
        self.assertEqual(len(writes), 1)

    def test_bytes_after_the_end(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        self.assertTrue(client.received().endswith(b"hello"))
        self.assertTrue(server.transport.aborted)
        other = balancer.client()
        other.send(GET)
        self.assertEqual(other.received(), b"")
        balancer.accept().send(OK)

    def test_bytes_on_an_idle_connection(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        server.send(OK)
        self.assertTrue(server.transport.aborted)
        balancer.finish_closing()
        client.received()
        client.send(GET)
        self.assertEqual(client.received(), b"")
        balancer.accept().send(OK)
