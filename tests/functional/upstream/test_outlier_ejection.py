"""Outlier ejection by the outcome of requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from balancebeam.api import Timeouts
from balancebeam.core.settings import OutlierDetectionSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
PARTIAL_RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"


def status_of(response: bytes) -> int:
    """The status of a response."""
    return int(response[9:12])


class FailureDetectionTests(BalancerTestCase):
    """Some outcomes of a request are failures of the server, others are not."""

    def start_request(
        self, request: bytes = POST, **settings: Any
    ) -> tuple[MemoryBalancer, Peer, Peer]:
        """A balancer with one server, a client, and the server, which has got the request."""
        balancer = self.balancer(**settings)
        client = balancer.client()
        client.send(request)
        return balancer, client, balancer.accept()

    def assert_ejected(self, balancer: MemoryBalancer, ejected: bool = True) -> None:
        """Check whether the only server is ejected."""
        server = balancer.servers[0]
        self.assertEqual(server.ejected, ejected, server.status_reason)
        self.assertEqual(server.status, "down" if ejected else "up")

    def test_reset_without_response(self) -> None:
        """A connection reset before any byte of a response is a connection failure."""
        balancer, _, server = self.start_request()
        server.reset()
        self.assert_ejected(balancer)
        self.assertIn("reset the connection", balancer.servers[0].status_reason)

    def test_response_timeout(self) -> None:
        """An expired response timeout is a failure."""
        balancer, client, _ = self.start_request(timeouts=Timeouts(upstream=3))
        balancer.advance(5)
        self.assertEqual(status_of(client.received()), 504)
        self.assert_ejected(balancer)

    def test_stalled_client_is_no_failure(self) -> None:
        """A client that stops reading is not the fault of the server."""
        balancer = self.balancer(timeouts=Timeouts(idle=3))
        client = balancer.client()
        client.transport.stalled = True
        client.send(GET)
        server = balancer.accept()
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x" * 100_000)
        balancer.advance(10)
        self.assertTrue(client.transport.closing)
        self.assertTrue(server.transport.closing)
        self.assert_ejected(balancer, False)

    def test_client_disconnect_is_no_failure(self) -> None:
        """A client that disconnects is not the fault of the server."""
        balancer, client, server = self.start_request()
        client.reset()
        self.assertTrue(server.transport.closing)
        self.assert_ejected(balancer, False)

    def test_shutdown_is_no_failure(self) -> None:
        """Requests failed by the end of the balancer do not count."""
        balancer, _, server = self.start_request()
        balancer.service.resource.connections.stopService()
        self.assertTrue(server.transport.closing)
        self.assert_ejected(balancer, False)

    def test_stale_connection_is_no_failure(self) -> None:
        """A request on a stale idle connection is retried, and does not count."""
        balancer, client, server = self.start_request(GET)
        server.send(OK)
        client.send(GET)
        server.half_close()
        self.assert_ejected(balancer, False)
        balancer.accept().send(OK)

    def test_threshold_of_consecutive_failures(self) -> None:
        """With a threshold of 3, the third consecutive failure ejects."""
        balancer = self.balancer(passive=OutlierDetectionSettings(failures=3))
        client = balancer.client()
        for outcome in "--+---":
            client.send(GET)
            if outcome == "-":
                balancer.connectors[-1].refuse()
            else:
                balancer.accept().send(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            if outcome == "+":
                self.assertEqual(balancer.servers[0].ejection.consecutive_failures, 0)
        self.assertEqual(balancer.servers[0].ejection.consecutive_failures, 3)
        self.assert_ejected(balancer)


class BadAnswerTests(BalancerTestCase):
    """Malformed and truncated responses eject only after `bad_answers` in a row."""

    def request(
        self,
        balancer: MemoryBalancer,
        response: bytes,
        end: Callable[[Peer], None] | None = Peer.half_close,
    ) -> bytes:
        """One request to a new connection, which the server answers so and ends so."""
        client = balancer.client()
        client.send(POST)
        server = balancer.accept()
        if response:
            server.send(response)
        if end is not None:
            end(server)
        received = client.received()
        client.reset()
        return received

    def assert_ejected_by_the_fifth(
        self, response: bytes, end: Callable[[Peer], None] | None = Peer.half_close
    ) -> MemoryBalancer:
        """Check that four such responses do not eject the only server, and a fifth does."""
        balancer = self.balancer(timeouts=Timeouts(upstream=3))
        server = balancer.servers[0]
        for expected in (1, 2, 3, 4):
            self.request(balancer, response, end)
            self.assertEqual(server.ejection.consecutive_bad_answers, expected)
            self.assertTrue(server.available, server.status_reason)
        self.request(balancer, response, end)
        self.assertEqual((server.ejected, server.ejection.cooldown), (True, 10))
        self.assertEqual(server.ejection.consecutive_failures, 0)
        return balancer

    def test_connection_closed_before_a_response(self) -> None:
        """A connection closed before a response is a bad answer."""
        balancer = self.assert_ejected_by_the_fifth(b"")
        self.assertIn("closed the connection", balancer.servers[0].status_reason)

    def test_malformed_response(self) -> None:
        """A response that is not HTTP is a bad answer."""
        self.assert_ejected_by_the_fifth(b"hello\r\n\r\n", None)

    def test_truncated_response(self) -> None:
        """A connection closed or reset within a response is a bad answer."""
        informational = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        for response in (PARTIAL_RESPONSE, b"HTTP/1.1 200", informational):
            for end in (Peer.half_close, Peer.reset):
                self.assert_ejected_by_the_fifth(response, end)

    def test_invalid_chunk(self) -> None:
        """A malformed body is a bad answer."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.assert_ejected_by_the_fifth(chunked + b"x\r\n", None)

    def test_timeout_within_a_response(self) -> None:
        """A response timeout after the first byte of a response is a bad answer."""
        for response in (PARTIAL_RESPONSE, b"HTTP/1.1 200"):
            balancer = self.balancer(timeouts=Timeouts(upstream=3))
            client = balancer.client()
            client.send(POST)
            balancer.accept().send(response)
            balancer.advance(5)
            self.assertEqual(balancer.servers[0].ejection.consecutive_bad_answers, 1)
            if response is not PARTIAL_RESPONSE:
                self.assertEqual(status_of(client.received()), 504)

    def test_good_response_resets_the_count(self) -> None:
        """Only bad answers without a good one between them count, and a 500 is a good one."""
        good = OK.replace(b"200 OK", b"500 Internal Server Error")
        balancer = self.balancer()
        for _ in range(3):
            for _ in range(4):
                self.request(balancer, PARTIAL_RESPONSE)
            self.request(balancer, good)
            self.assertEqual(balancer.servers[0].ejection.consecutive_bad_answers, 0)
        self.assertTrue(balancer.servers[0].available)

    def test_observation_ends_after_a_good_response(self) -> None:
        """The callbacks of a tracked server end some time after its last bad answer."""
        balancer = self.balancer()
        self.request(balancer, PARTIAL_RESPONSE)
        balancer.advance(200)
        self.assertTrue(balancer.servers[0].tracked)
        self.request(balancer, OK)
        balancer.advance(62)
        self.assertFalse(balancer.servers[0].tracked)

    def test_configured_limit(self) -> None:
        """`bad_answers` sets the limit."""
        balancer = self.balancer(passive=OutlierDetectionSettings(bad_answers=1))
        self.request(balancer, PARTIAL_RESPONSE)
        self.assertTrue(balancer.servers[0].ejected)

    def test_pool_survives_a_broken_resource(self) -> None:
        """Requests for a broken resource among good ones never eject a server."""
        balancer = self.balancer(servers=3)
        for number in range(60):
            self.request(balancer, PARTIAL_RESPONSE if number % 4 else OK)
            self.assertFalse([server for server in balancer.servers if server.ejected])

    def test_cooldown_doubles(self) -> None:
        """Bad answers of trial requests double the cooldown, also if the head was good."""
        balancer = self.assert_ejected_by_the_fifth(PARTIAL_RESPONSE)
        lengths = []
        for _ in range(4):
            balancer.advance(balancer.servers[0].ejection.cooldown + 2)
            self.request(balancer, PARTIAL_RESPONSE)
            lengths.append(balancer.servers[0].ejection.cooldown)
        self.assertEqual(lengths, [20, 40, 80, 80])

    def test_bad_answer_to_a_trial_request(self) -> None:
        """A server ejected for a connection failure needs a good answer to return."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(POST)
        balancer.connectors[-1].refuse()
        server = balancer.servers[0]
        balancer.advance(12)
        self.assertTrue(server.ejection.half_open)
        self.request(balancer, b"hello\r\n\r\n", None)
        self.assertEqual((server.ejected, server.ejection.cooldown), (True, 20))
        balancer.advance(22)
        self.request(balancer, OK)
        self.assertTrue(server.available)


class HalfOpenTests(BalancerTestCase):
    """After a cooldown, one trial request decides whether the server returns."""

    def eject_first(self, **settings: Any) -> tuple[MemoryBalancer, Peer]:
        """A balancer whose first server has just failed, and its second server, connected."""
        balancer = self.balancer(servers=2, **settings)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        second = balancer.accept()
        second.send(OK)
        client.reset()
        return balancer, second

    def addresses(self, balancer: MemoryBalancer, since: int) -> list[str]:
        """The addresses of the connection attempts from number `since` on."""
        return [str(connector.address) for connector in balancer.connectors[since:]]

    def test_one_trial_request(self) -> None:
        """A half-open server gets one request; its response readmits the server."""
        balancer, second = self.eject_first()
        balancer.advance(11)
        self.assertTrue(balancer.servers[0].ejection.half_open)
        clients = [balancer.client() for _ in range(6)]
        for client in clients:
            client.send(GET)
        addresses = self.addresses(balancer, 2)
        self.assertEqual(addresses.count("10.0.0.1:80"), 1, addresses)
        self.assertEqual(balancer.servers[0].in_flight, 1)
        self.assertEqual(balancer.servers[1].in_flight, 5)
        # A response readmits it.
        number = 2 + addresses.index("10.0.0.1:80")
        first = balancer.accept(number)
        first.send(PARTIAL_RESPONSE)
        self.assertEqual(balancer.servers[0].status, "up")
        # Only a complete response resets the cooldown.
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)
        first.send(b"world")
        self.assertEqual(balancer.servers[0].ejection.cooldown, 0)
        for _ in range(6):
            balancer.client().send(GET)
        self.assertEqual([server.in_flight for server in balancer.servers], [3, 8])
        second.reset()

    def test_failed_trial_doubles_the_cooldown(self) -> None:
        """A failed trial request ejects the server for twice as long, up to 80 s."""
        balancer, _ = self.eject_first()
        balancer.advance(11)
        for expected in (20, 40, 80, 80):
            count = len(balancer.connectors)
            clients = [balancer.client() for _ in range(2)]
            for client in clients:
                client.send(GET)
            number = count + self.addresses(balancer, count).index("10.0.0.1:80")
            balancer.connectors[number].refuse()
            self.assertEqual(balancer.servers[0].ejection.cooldown, expected)
            for client in clients:
                client.reset()
            balancer.advance(expected + 1)

    def test_aborted_trial_is_inconclusive(self) -> None:
        """If the client of a trial request disconnects, another one is tried."""
        balancer, _ = self.eject_first()
        balancer.advance(11)
        server = balancer.servers[0]
        for _ in range(3):
            clients = [balancer.client() for _ in range(2)]
            for client in clients:
                client.send(GET)
            self.assertTrue(server.ejected)
            self.assertFalse(server.ejection.half_open)
            for client in clients:
                client.reset()
            self.assertTrue(server.ejection.half_open)
            self.assertFalse(server.ejected)

    def test_response_to_an_earlier_request_is_no_trial(self) -> None:
        """Only requests sent after the ejection can readmit a server."""
        balancer = self.balancer(servers=1)
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        old = balancer.accept()
        late.send(GET)
        balancer.connectors[-1].refuse()
        self.assertTrue(balancer.servers[0].ejected)
        old.send(OK)
        self.assertTrue(balancer.servers[0].ejected)
        # A request sent after the ejection, as there is no other server, does count.
        late.send(GET)
        old.send(OK)
        self.assertFalse(balancer.servers[0].ejected)

    def test_trial_with_an_endless_upload_expires(self) -> None:
        """A slow client cannot keep a server ejected."""
        balancer, _ = self.eject_first(timeouts=Timeouts(upstream=60, idle=100))
        balancer.advance(11)
        slow = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n"
        clients = [balancer.client() for _ in range(2)]
        for client in clients:
            client.send(slow)
        self.assertTrue(balancer.servers[0].ejected)
        for _ in range(4):
            for client in clients:
                client.send(b"x")
            balancer.advance(20)
        self.assertTrue(balancer.servers[0].ejection.half_open)

    def test_trial_on_a_stale_connection(self) -> None:
        """A trial request is retried on a new connection if its connection was stale."""
        balancer = self.balancer(servers=1)
        first, second = balancer.client(), balancer.client()
        first.send(GET)
        idle = balancer.accept()
        second.send(GET)
        balancer.connectors[-1].refuse()
        idle.send(OK)
        self.assertTrue(balancer.servers[0].ejected)
        balancer.advance(11)
        # The trial request is sent on a connection that the server has closed.
        second.send(GET)
        idle.half_close()
        self.assertEqual(len(balancer.servers[0].ejection.trial_requests), 1)
        balancer.accept().send(OK)
        self.assertEqual(balancer.servers[0].status, "up")
        self.assertEqual(balancer.servers[0].ejection.cooldown, 0)

    def test_end_of_an_earlier_response_is_inconclusive(self) -> None:
        """The end of a response that started before the ejection changes nothing."""
        balancer = self.balancer(servers=1)
        old, new = balancer.client(), balancer.client()
        old.send(GET)
        stream = balancer.accept()
        stream.send(PARTIAL_RESPONSE)
        new.send(GET)
        balancer.connectors[-1].refuse()
        balancer.advance(11)
        self.assertTrue(balancer.servers[0].ejection.half_open)
        old.reset()
        self.assertTrue(balancer.servers[0].ejection.half_open)
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)

    def test_failure_of_an_earlier_request_does_not_eject_again(self) -> None:
        """A request sent before the ejection does not count when it fails later."""
        balancer = self.balancer(servers=1, timeouts=Timeouts(upstream=30))
        old, new = balancer.client(), balancer.client()
        old.send(POST)
        balancer.accept()
        new.send(GET)
        balancer.connectors[-1].refuse()
        balancer.advance(11)
        new.send(GET)
        balancer.accept().send(OK)
        self.assertEqual(balancer.servers[0].status, "up")
        balancer.advance(21)
        self.assertEqual(status_of(old.received()), 504)
        self.assertEqual(balancer.servers[0].status, "up")

    def test_failed_connect_after_client_disconnect_counts(self) -> None:
        """A failed connection attempt counts although its client has disconnected."""
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        client.reset()
        balancer.connectors[0].refuse()
        self.assertTrue(balancer.servers[0].ejected)

    def test_start_of_a_response_readmits_the_server(self) -> None:
        """A trial request ends with the head of its response, however long the body is."""
        balancer, _ = self.eject_first()
        balancer.advance(11)
        client = balancer.client()
        client.send(GET)
        second_client = balancer.client()
        second_client.send(GET)
        number = next(
            n
            for n, connector in enumerate(balancer.connectors)
            if n > 1 and str(connector.address) == "10.0.0.1:80"
        )
        balancer.accept(number).send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(balancer.servers[0].status, "up")


class ErrorRateTests(BalancerTestCase):
    """5xx responses eject a server only if an error ratio is configured."""

    ERROR = OK.replace(b"200 OK", b"500 Oh")

    def run_request(self, balancer: MemoryBalancer, failing: str) -> None:
        """One request; servers whose last digit is in `failing` respond with 500."""
        client = balancer.client()
        client.send(GET)
        connector = balancer.connectors[-1]
        if connector.state == "connecting":
            peer = balancer.accept()
            peer.protocol.name = str(connector.address)
        for peer in balancer.peers:
            exchange = getattr(peer.protocol, "exchange", None)
            if exchange is not None and hasattr(peer.protocol, "server"):
                digit = peer.protocol.server.name.partition(":")[0][-1]
                peer.send(self.ERROR if digit in failing else OK)
        client.reset()

    def ejected(self, balancer: MemoryBalancer) -> str:
        """The last digits of the ejected servers."""
        return "".join(s.name.partition(":")[0][-1] for s in balancer.servers if s.ejected)

    def test_disabled_by_default(self) -> None:
        """By default 5xx responses eject no server."""
        balancer = self.balancer(servers=2)
        for _ in range(100):
            self.run_request(balancer, "12")
        self.assertEqual(self.ejected(balancer), "")

    def test_error_ratio_exceeded(self) -> None:
        """A server is ejected from `min_requests` responses on, if too many are errors."""
        balancer = self.balancer(servers=4, passive=OutlierDetectionSettings(error_ratio=0.5))
        for _ in range(4 * 19):
            self.run_request(balancer, "2")
        self.assertEqual(self.ejected(balancer), "")
        for _ in range(4):
            self.run_request(balancer, "2")
        self.assertEqual(self.ejected(balancer), "2")
        self.assertIn("100% of its responses were errors", balancer.servers[1].status_reason)

    def test_share_of_ejected_servers_is_limited(self) -> None:
        """At most half of the servers are ejected for their error rates."""
        balancer = self.balancer(servers=4, passive=OutlierDetectionSettings(error_ratio=0.5))
        for _ in range(400):
            self.run_request(balancer, "1234")
        self.assertEqual(len(self.ejected(balancer)), 2)

    def test_error_response_does_not_readmit(self) -> None:
        """An error response of an ejected outlier does not end its ejection."""
        checks = OutlierDetectionSettings(failures=3, error_ratio=0.5, min_requests=4)
        balancer = self.balancer(servers=2, passive=checks)
        for _ in range(8):
            self.run_request(balancer, "1")
        self.assertEqual(self.ejected(balancer), "1")
        # The other server refuses, so that the ejected one is used.
        for peer in list(balancer.peers):
            if not peer.transport.closed and hasattr(peer.protocol, "server"):
                peer.reset()
        client = balancer.client()
        client.send(GET)
        balancer.connectors[-1].refuse()
        balancer.accept().send(self.ERROR)
        server = balancer.servers[0]
        self.assertEqual((server.ejected, server.available), (True, False))
        balancer.advance(60)
        self.assertTrue(server.available)

    def test_successful_response_readmits(self) -> None:
        """A trial request with an error ejects again; a successful one readmits."""
        checks = OutlierDetectionSettings(error_ratio=0.5, cooldown=5)
        balancer = self.balancer(servers=2, passive=checks)
        for _ in range(60):
            self.run_request(balancer, "1")
        self.assertEqual(self.ejected(balancer), "1")
        balancer.advance(6)
        # The trial request fails, and the server is ejected for twice as long.
        for _ in range(4):
            self.run_request(balancer, "1")
        self.assertEqual(self.ejected(balancer), "1")
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)
        balancer.advance(11)
        for _ in range(4):
            self.run_request(balancer, "")
        self.assertEqual(self.ejected(balancer), "")
