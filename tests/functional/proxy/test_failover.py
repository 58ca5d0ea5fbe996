"""Failover: requests whose server fails before or after they were sent."""

from __future__ import annotations

import errno

from twisted.internet import error

from balancebeam.api import Timeouts
from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import RetrySettings, ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, Peer, head_and_body

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
PUT = POST.replace(b"POST", b"PUT")


class ConnectFailureTests(BalancerTestCase):
    """Failures before a byte of the request was sent."""

    def test_one_server_refuses(self) -> None:
        """A request of any method is sent to another server if the connection is refused."""
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

    def test_all_servers_refuse(self) -> None:
        """502, and the client's connection stays open, if all servers refuse."""
        balancer = self.balancer(servers=3)
        client = balancer.client()
        client.send(GET)
        for number in range(3):
            balancer.connectors[number].refuse()
        self.assertEqual(len(balancer.connectors), 3)
        self.assert_error(client.received(), 502)
        self.assertFalse(client.transport.closing)

    def test_three_servers_are_tried(self) -> None:
        """At most three servers are tried by default."""
        balancer = self.balancer(servers=5)
        client = balancer.client()
        client.send(GET)
        for number in range(3):
            balancer.connectors[number].refuse()
        self.assertEqual(len(balancer.connectors), 3)
        self.assert_error(client.received(), 502)

    def test_all_servers_time_out(self) -> None:
        """504 if the operating system's connect timeout expires everywhere."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse(error.TimeoutError())
        balancer.connectors[1].refuse(error.TimeoutError())
        self.assert_error(client.received(), 504)

    def test_out_of_descriptors(self) -> None:
        """Without free descriptors the request waits, and no server is ejected."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse(error.getConnectError((errno.EMFILE, "too many")))
        self.assertEqual(client.received(), b"")
        balancer.advance(0.2)
        first, second = balancer.connectors
        self.assertEqual(first.address, second.address)
        server = balancer.accept()
        server.send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertFalse(any(server.ejected for server in balancer.servers))

    def test_out_of_descriptors_with_an_idle_connection(self) -> None:
        """A request that waits for a descriptor is sent on a connection that becomes idle."""
        balancer = self.balancer()
        first, second = balancer.client(), balancer.client()
        first.send(GET)
        server = balancer.accept()
        second.send(GET)
        balancer.connectors[1].refuse(error.getConnectError((errno.EMFILE, "too many")))
        server.send(OK)
        self.assertTrue(first.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        server.received()
        balancer.advance(0.2)
        self.assertTrue(server.received().startswith(b"GET / HTTP/1.1\r\n"))
        server.send(OK)
        self.assertTrue(second.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(len(balancer.connectors), 2)

    def test_out_of_descriptors_for_long(self) -> None:
        """503 if no descriptor is free within the connect timeout; no server is ejected."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        for _ in range(100):
            if balancer.connectors[-1].state == "connecting":
                balancer.connectors[-1].refuse(error.getConnectError((errno.ENFILE, "too many")))
            balancer.advance(0.1)
        self.assert_error(client.received(), 503)
        self.assertFalse(any(server.ejected for server in balancer.servers))
        self.assertEqual([server.failed_requests for server in balancer.servers], [0, 0])

    def test_out_of_descriptors_at_shutdown(self) -> None:
        """An attempt that waits for descriptors is cancelled when the balancer stops."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse(error.getConnectError((errno.EMFILE, "too many")))
        balancer.stop()

    def test_connect_timeout(self) -> None:
        """The connect timeout moves the request to another server, and then gives 504."""
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

    def test_reset_after_accept(self) -> None:
        """A connection that is reset before the response is replaced by another server's."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.reset()
        balancer.accept().send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))


class RetryConditionTests(BalancerTestCase):
    """`on` of the retry settings selects what is retried."""

    def test_timeouts_can_be_retried(self) -> None:
        """With "timeout" an idempotent request is sent to another server after a timeout."""
        for on, attempts in ((("connect", "cut"), 1), (("timeout",), 2)):
            balancer = self.balancer(
                servers=2, retries=RetrySettings(on=on), timeouts=Timeouts(upstream=3)
            )
            client = balancer.client()
            client.send(GET)
            balancer.accept()
            balancer.advance(5)
            self.assertEqual(len(balancer.connectors), attempts)
            if attempts == 1:
                self.assert_error(client.received(), 504)
            else:
                balancer.accept().send(OK)
                self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_post_is_not_retried_after_a_timeout(self) -> None:
        """A request that is not idempotent is not sent twice, whatever `on` contains."""
        balancer = self.balancer(
            servers=2, retries=RetrySettings(on=("timeout",)), timeouts=Timeouts(upstream=3)
        )
        client = balancer.client()
        client.send(POST)
        balancer.accept()
        balancer.advance(5)
        self.assertEqual(len(balancer.connectors), 1)
        self.assert_error(client.received(), 504)

    def test_nothing_is_retried_without_conditions(self) -> None:
        """With an empty list the first failure of a server is the response."""
        balancer = self.balancer(servers=2, retries=RetrySettings(on=()))
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        self.assert_error(client.received(), 502)
        client.send(GET)
        balancer.accept().half_close()
        self.assert_error(client.received(), 502)
        self.assertEqual(len(balancer.connectors), 2)


class CooldownTests(BalancerTestCase):
    """A server that refuses connections is ejected for its cooldown."""

    def test_ejected_then_tried_again(self) -> None:
        """An ejected server gets no request before its cooldown has expired, and then one."""
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

    def test_cooldown_doubles(self) -> None:
        """The cooldown doubles with each ejection, up to 8 times its length."""
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

    def test_fail_open(self) -> None:
        """If all servers are ejected, they are used anyway."""
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        client.received()
        client.send(GET)
        balancer.accept().send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_concurrent_failures_are_one_ejection(self) -> None:
        """Failures of requests in flight at the same time do not extend the cooldown."""
        balancer = self.balancer(servers=1)
        for _ in range(5):
            balancer.client().send(GET)
        for connector in list(balancer.connectors):
            connector.refuse()
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)


class BackupServerTests(BalancerTestCase):
    """Backup servers."""

    def test_backup_is_used_last(self) -> None:
        """A backup is used only when every primary has failed; weight 0 gets no request."""
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
    """Failures after the request was sent."""

    def test_connection_closed_before_the_response(self) -> None:
        """A GET is retried if the server closes or resets before the response."""
        for end in (Peer.half_close, Peer.reset):
            balancer = self.balancer(servers=2)
            client = balancer.client()
            client.send(GET)
            end(balancer.accept())
            balancer.accept().send(OK)
            self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_post_is_not_sent_twice(self) -> None:
        """A POST that may have reached the server is not retried, and gets 502."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(POST)
        balancer.accept().half_close()
        self.assert_error(client.received(), 502)
        self.assertEqual(len(balancer.connectors), 1)

    def test_put_is_retried_with_its_body(self) -> None:
        """A PUT is retried with the buffered body, byte for byte."""
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

    def test_chunked_put_is_retried_with_its_trailers(self) -> None:
        """A retry sends the content, the last chunk and the trailers of a chunked body again."""
        head = b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        for content, pieces in ((b"3\r\nabc\r\n", (b"1\r\na\r\n", b"2\r\nbc\r\n")), (b"", ())):
            with self.subTest(content=content):
                balancer = self.balancer(servers=2)
                client = balancer.client()
                client.send(head)
                first = balancer.accept()
                client.send(*pieces, b"0\r\nX-Sum: 3\r\n\r\n")
                self.assertTrue(first.received().endswith(b"\r\n0\r\nX-Sum: 3\r\n\r\n"))
                first.half_close()
                second = balancer.accept()
                body = head_and_body(second.received())[1]
                self.assertEqual(body, content + b"0\r\nX-Sum: 3\r\n\r\n")
                second.send(OK)
                self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))

    def test_chunked_put_is_retried_while_its_body_arrives(self) -> None:
        """A retry within a chunked body sends no last chunk before the client does."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        balancer.accept().half_close()
        server = balancer.accept()
        self.assertEqual(head_and_body(server.received())[1], b"3\r\nabc\r\n")
        client.send(b"0\r\nX-Sum: 3\r\n\r\n")
        self.assertEqual(server.received(), b"0\r\nX-Sum: 3\r\n\r\n")
        server.send(OK)

    def test_put_with_a_large_body_is_not_retried(self) -> None:
        """A PUT whose body exceeds the replay buffer is not retried."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        server = balancer.accept()
        client.send(*[b"x" * 10000] * 10)
        server.half_close()
        self.assert_error(client.received(), 502)

    def test_put_is_retried_while_its_body_arrives(self) -> None:
        """A PUT is retried while its body is incomplete; the rest follows."""
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(PUT[:-1])
        balancer.accept().half_close()
        client.send(PUT[-1:])
        server = balancer.accept()
        self.assertTrue(server.received().endswith(b"\r\n\r\nabc"))
        server.send(OK)

    def test_stale_idle_connection(self) -> None:
        """A GET on an idle connection that the server just closed is sent to it again."""
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        client.received()
        client.send(GET)
        # The server closed just before the request reached it.
        server.half_close()
        new_connection = balancer.accept()
        self.assertTrue(new_connection.received().startswith(b"GET / "))
        new_connection.send(OK)
        self.assertTrue(client.received().startswith(b"HTTP/1.1 200 OK\r\n"))
        self.assertEqual(balancer.servers[0].ejection.consecutive_failures, 0)

    def test_post_on_a_stale_idle_connection(self) -> None:
        """A POST on an idle connection that the server just closed gets 502."""
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        client.received()
        client.send(POST)
        server.half_close()
        self.assert_error(client.received(), 502)

    def test_malformed_responses(self) -> None:
        """A malformed response gives 502, and the connection is aborted."""
        for response in (
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
            server.send(response)
            self.assert_error(client.received(), 502)
            self.assertTrue(server.transport.aborted)

    def test_malformed_chunk_truncates_the_response(self) -> None:
        """A malformed chunk truncates a response that has been started."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", b"x\r\n")
        self.assertTrue(client.transport.closing)
        self.assertTrue(client.received().endswith(b"1\r\na\r\n"))

    def test_malformed_chunk_before_the_response_is_started(self) -> None:
        """A malformed chunk gives 502 if nothing was sent to the client."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\nx\r\n")
        self.assert_error(client.received(), 502)
        self.assertTrue(server.transport.aborted)

    def test_small_chunked_response_is_one_write(self) -> None:
        """A small chunked response is sent to the client in one write."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        writes: list[bytes] = []
        self.patch(client.transport, "write", writes.append)
        server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
        self.assertEqual(len(writes), 1)

    def test_bytes_after_the_response(self) -> None:
        """Bytes after a response are never taken for another, and abort the connection."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        self.assertTrue(client.received().endswith(b"hello"))
        self.assertTrue(server.transport.aborted)
        next_client = balancer.client()
        next_client.send(GET)
        self.assertEqual(next_client.received(), b"")
        balancer.accept().send(OK)

    def test_bytes_on_an_idle_connection(self) -> None:
        """Bytes on an idle connection abort it; the next request uses a new one."""
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


class RetryLimitTests(BalancerTestCase):
    """How often a request is retried."""

    def test_number_of_attempts(self) -> None:
        """As many servers are tried as `attempts` allows."""
        for attempts in (1, 2, 5):
            balancer = self.balancer(servers=6, retries=RetrySettings(attempts))
            client = balancer.client()
            client.send(GET)
            while balancer.connectors[-1].state == "connecting":
                balancer.connectors[-1].refuse()
            self.assertEqual(len({str(c.address) for c in balancer.connectors}), attempts)
            self.assertEqual(len(balancer.connectors), attempts)
            self.assert_error(client.received(), 502)

    def test_each_server_is_tried_once(self) -> None:
        """With every algorithm, no server is tried twice for a request."""
        for name in ALGORITHMS:
            balancer = self.balancer(servers=3, algorithm=name, retries=RetrySettings(9))
            for _ in range(3):
                before = len(balancer.connectors)
                client = balancer.client()
                client.send(GET)
                while balancer.connectors[-1].state == "connecting":
                    balancer.connectors[-1].refuse()
                tried = [str(c.address) for c in balancer.connectors[before:]]
                self.assertEqual(len(tried), 3, name)
                self.assertEqual(len(set(tried)), 3, name)

    def test_retry_budget(self) -> None:
        """The retry budget of all requests limits the retries."""
        balancer = self.balancer(servers=2)
        statuses = []
        clients = [balancer.client() for _ in range(30)]
        for client in clients:
            client.send(GET)
        for connector in list(balancer.connectors):
            if str(connector.address) == "10.0.0.1:80":
                connector.refuse()
        for connector in list(balancer.connectors):
            if connector.state == "connecting":
                balancer.accept(balancer.connectors.index(connector)).send(OK)
        statuses = [client.received()[9:12] for client in clients]
        # Of the 15 refused requests, the ten that the budget always allows were retried.
        self.assertEqual(statuses.count(b"502"), 5)
        self.assertEqual(statuses.count(b"200"), 25)
