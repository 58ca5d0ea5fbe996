"""What requests tell of servers, and what follows from it."""

from __future__ import annotations

from typing import Any

from balancebeam.api import Timeouts
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminState, OutlierDetectionSettings, ServerSettings
from balancebeam.upstream.server import Server
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"


def status_of(answer: bytes) -> int:
    """The status of a response."""
    return int(answer[9:12])


class FailureDetectionTests(BalancerTestCase):
    """What counts as a failure of the server, and what does not."""

    def one(self, request: bytes = POST, **settings: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        """A balancer over one server, a client, and the server, which was asked."""
        balancer = self.balancer(**settings)
        client = balancer.client()
        client.send(request)
        return balancer, client, balancer.accept()

    def assert_ejected(self, balancer: MemoryBalancer, ejected: bool = True) -> None:
        server = balancer.servers[0]
        self.assertEqual(server.ejected, ejected, server.status_reason)
        self.assertEqual(server.status, "down" if ejected else "up")

    def test_an_absent_answer(self) -> None:
        for end in (Peer.half_close, Peer.reset):
            balancer, _, server = self.one()
            end(server)
            self.assert_ejected(balancer)

    def test_nonsense(self) -> None:
        balancer, _, server = self.one()
        server.send(b"hello\r\n\r\n")
        self.assert_ejected(balancer)

    def test_silence(self) -> None:
        balancer, client, _ = self.one(timeouts=Timeouts(upstream=3))
        balancer.advance(5)
        self.assertEqual(status_of(client.received()), 504)
        self.assert_ejected(balancer)

    def test_a_cut_answer(self) -> None:
        balancer, client, server = self.one()
        server.send(BEGUN)
        self.assert_ejected(balancer, False)
        server.reset()
        self.assertTrue(client.transport.closing)
        self.assert_ejected(balancer)

    def test_silence_in_the_middle_of_an_answer(self) -> None:
        balancer, _, server = self.one(timeouts=Timeouts(upstream=3))
        server.send(BEGUN)
        balancer.advance(5)
        self.assert_ejected(balancer)

    def test_not_a_client_that_takes_nothing(self) -> None:
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

    def test_not_a_client_that_leaves(self) -> None:
        balancer, client, server = self.one()
        client.reset()
        self.assertTrue(server.transport.closing)
        self.assert_ejected(balancer, False)

    def test_not_the_end_of_the_balancer(self) -> None:
        balancer, _, server = self.one()
        balancer.service.resource.connections.stopService()
        self.assertTrue(server.transport.closing)
        self.assert_ejected(balancer, False)

    def test_not_a_stale_connection(self) -> None:
        balancer, client, server = self.one(GET)
        server.send(OK)
        client.send(GET)
        server.half_close()
        self.assert_ejected(balancer, False)
        balancer.accept().send(OK)

    def test_failures_in_a_row_when_more_are_asked_for(self) -> None:
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

    def test_a_cut_answer_after_its_head_is_a_failure_all_the_same(self) -> None:
        balancer = self.balancer(passive=OutlierDetectionSettings(failures=2))
        for expected in (1, 2):
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(BEGUN)
            server.reset()
            self.assertEqual(balancer.servers[0].ejection.consecutive_failures, expected)
        self.assert_ejected(balancer)

    def test_cut_answers_double_the_cooldown_too(self) -> None:
        balancer = self.balancer()
        lengths = []
        for _ in range(4):
            client = balancer.client()
            client.send(GET)
            server = balancer.accept()
            server.send(BEGUN)
            server.reset()
            lengths.append(balancer.servers[0].ejection.cooldown)
            balancer.advance(lengths[-1] + 2)
        self.assertEqual(lengths, [10, 20, 40, 80])


class HalfOpenTests(BalancerTestCase):
    """After a cooldown one request shows whether the server is well again."""

    def two(self, **settings: Any) -> tuple[MemoryBalancer, Peer]:
        """A balancer whose first server has just failed, and the second, connected."""
        balancer = self.balancer(servers=2, **settings)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        second = balancer.accept()
        second.send(OK)
        client.reset()
        return balancer, second

    def addresses(self, balancer: MemoryBalancer, since: int) -> list[str]:
        return [str(connector.address) for connector in balancer.connectors[since:]]

    def test_one_request_at_a_time(self) -> None:
        balancer, second = self.two()
        balancer.advance(11)
        self.assertTrue(balancer.servers[0].ejection.half_open)
        clients = [balancer.client() for _ in range(6)]
        for client in clients:
            client.send(GET)
        asked = self.addresses(balancer, 2)
        self.assertEqual(asked.count("10.0.0.1:80"), 1, asked)
        self.assertEqual(balancer.servers[0].in_flight, 1)
        self.assertEqual(balancer.servers[1].in_flight, 5)
        # It answers, and gets its share again.
        number = 2 + asked.index("10.0.0.1:80")
        first = balancer.accept(number)
        first.send(BEGUN)
        self.assertEqual(balancer.servers[0].status, "up")
        # It is forgiven when it has also come to an end.
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)
        first.send(b"world")
        self.assertEqual(balancer.servers[0].ejection.cooldown, 0)
        for _ in range(6):
            balancer.client().send(GET)
        self.assertEqual([server.in_flight for server in balancer.servers], [3, 8])
        second.reset()

    def test_a_failure_doubles_the_cooldown(self) -> None:
        balancer, _ = self.two()
        balancer.advance(11)
        for expected in (20, 40, 80, 80):
            asked = len(balancer.connectors)
            clients = [balancer.client() for _ in range(2)]
            for client in clients:
                client.send(GET)
            number = asked + self.addresses(balancer, asked).index("10.0.0.1:80")
            balancer.connectors[number].refuse()
            self.assertEqual(balancer.servers[0].ejection.cooldown, expected)
            for client in clients:
                client.reset()
            balancer.advance(expected + 1)

    def test_a_client_that_leaves_shows_nothing(self) -> None:
        balancer, _ = self.two()
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

    def test_what_was_asked_before_shows_nothing(self) -> None:
        balancer = self.balancer(servers=1)
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        old = balancer.accept()
        late.send(GET)
        balancer.connectors[-1].refuse()
        self.assertTrue(balancer.servers[0].ejected)
        old.send(OK)
        self.assertTrue(balancer.servers[0].ejected)
        # But a request that was made since, because there is no other server, does.
        late.send(GET)
        old.send(OK)
        self.assertFalse(balancer.servers[0].ejected)

    def test_a_client_that_takes_for_ever_does_not_keep_it_out(self) -> None:
        balancer, _ = self.two(timeouts=Timeouts(upstream=60, idle=100))
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

    def test_a_stale_connection_does_not_spoil_the_test(self) -> None:
        balancer = self.balancer(servers=1)
        first, second = balancer.client(), balancer.client()
        first.send(GET)
        kept = balancer.accept()
        second.send(GET)
        balancer.connectors[-1].refuse()
        kept.send(OK)
        self.assertTrue(balancer.servers[0].ejected)
        balancer.advance(11)
        # The test is sent on a connection that the server has closed.
        second.send(GET)
        kept.half_close()
        self.assertEqual(len(balancer.servers[0].ejection.trial_requests), 1)
        balancer.accept().send(OK)
        self.assertEqual(balancer.servers[0].status, "up")
        self.assertEqual(balancer.servers[0].ejection.cooldown, 0)

    def test_an_old_stream_shows_nothing_when_it_ends(self) -> None:
        balancer = self.balancer(servers=1)
        old, new = balancer.client(), balancer.client()
        old.send(GET)
        stream = balancer.accept()
        stream.send(BEGUN)
        new.send(GET)
        balancer.connectors[-1].refuse()
        balancer.advance(11)
        self.assertTrue(balancer.servers[0].ejection.half_open)
        old.reset()
        self.assertTrue(balancer.servers[0].ejection.half_open)
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)

    def test_what_was_asked_before_does_not_take_it_out_again(self) -> None:
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

    def test_connections_that_nobody_waits_for_any_more(self) -> None:
        balancer = self.balancer(servers=1)
        client = balancer.client()
        client.send(GET)
        client.reset()
        balancer.connectors[0].refuse()
        self.assertTrue(balancer.servers[0].ejected)

    def test_a_long_answer_ends_the_trial_when_it_begins(self) -> None:
        balancer, _ = self.two()
        balancer.advance(11)
        client = balancer.client()
        client.send(GET)
        other = balancer.client()
        other.send(GET)
        number = next(
            n
            for n, connector in enumerate(balancer.connectors)
            if n > 1 and str(connector.address) == "10.0.0.1:80"
        )
        balancer.accept(number).send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.assertEqual(balancer.servers[0].status, "up")


class ErrorRateTests(BalancerTestCase):
    """5xx answers count only if that is configured."""

    BAD = OK.replace(b"200 OK", b"500 Oh")

    def ask(self, balancer: MemoryBalancer, bad: str) -> None:
        """One request after the other; the servers whose last digit is in `bad` answer 500."""
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
                peer.send(self.BAD if digit in bad else OK)
        client.reset()

    def ejected(self, balancer: MemoryBalancer) -> str:
        return "".join(s.name.partition(":")[0][-1] for s in balancer.servers if s.ejected)

    def test_not_by_default(self) -> None:
        balancer = self.balancer(servers=2)
        for _ in range(100):
            self.ask(balancer, "12")
        self.assertEqual(self.ejected(balancer), "")

    def test_when_they_are_too_many(self) -> None:
        balancer = self.balancer(servers=4, passive=OutlierDetectionSettings(error_ratio=0.5))
        for _ in range(4 * 19):
            self.ask(balancer, "2")
        self.assertEqual(self.ejected(balancer), "")
        for _ in range(4):
            self.ask(balancer, "2")
        self.assertEqual(self.ejected(balancer), "2")
        self.assertIn("100% of its responses were errors", balancer.servers[1].status_reason)

    def test_no_more_than_a_share_of_all(self) -> None:
        balancer = self.balancer(servers=4, passive=OutlierDetectionSettings(error_ratio=0.5))
        for _ in range(400):
            self.ask(balancer, "1234")
        self.assertEqual(len(self.ejected(balancer)), 2)

    def test_an_error_of_a_server_that_is_out_does_not_bring_it_back(self) -> None:
        checks = OutlierDetectionSettings(failures=3, error_ratio=0.5, min_requests=4)
        balancer = self.balancer(servers=2, passive=checks)
        for _ in range(8):
            self.ask(balancer, "1")
        self.assertEqual(self.ejected(balancer), "1")
        # The other one refuses, and the one that is out is the last resort.
        for peer in list(balancer.peers):
            if not peer.transport.closed and hasattr(peer.protocol, "server"):
                peer.reset()
        client = balancer.client()
        client.send(GET)
        balancer.connectors[-1].refuse()
        balancer.accept().send(self.BAD)
        server = balancer.servers[0]
        self.assertEqual((server.ejected, server.available), (True, False))
        balancer.advance(60)
        self.assertTrue(server.available)

    def test_it_comes_back_when_its_answers_are_good(self) -> None:
        checks = OutlierDetectionSettings(error_ratio=0.5, cooldown=5)
        balancer = self.balancer(servers=2, passive=checks)
        for _ in range(60):
            self.ask(balancer, "1")
        self.assertEqual(self.ejected(balancer), "1")
        balancer.advance(6)
        # On trial it fails again, and is ejected for twice as long.
        for _ in range(4):
            self.ask(balancer, "1")
        self.assertEqual(self.ejected(balancer), "1")
        self.assertEqual(balancer.servers[0].ejection.cooldown, 10)
        balancer.advance(11)
        for _ in range(4):
            self.ask(balancer, "")
        self.assertEqual(self.ejected(balancer), "")


class AdminStateTests(BalancerTestCase):
    """What the operator wants is another thing than how the server is."""

    def asked(self, balancer: MemoryBalancer, requests: int) -> list[str]:
        """Which servers so many clients, one after the other, are connected to."""
        before = len(balancer.connectors)
        for _ in range(requests):
            client = balancer.client()
            client.send(GET)
            client.reset()
        found = [str(c.address) for c in balancer.connectors[before:]]
        for connector in balancer.connectors[before:]:
            if connector.state == "connecting":
                connector.refuse()
        return found

    def set(self, server: Server, balancer: MemoryBalancer, state: AdminState) -> None:
        balancer.service.resource.health.set_admin_state(server, state)

    def test_drained_and_maintained_servers_get_nothing_new(self) -> None:
        for state, word in ((AdminState.DRAIN, "draining"), (AdminState.MAINTENANCE,) * 2):
            balancer = self.balancer(servers=2)
            client = balancer.client()
            client.send(GET)
            first = balancer.accept()
            server = balancer.servers[0]
            self.set(server, balancer, state)
            self.assertEqual(server.status, getattr(word, "value", word))
            self.assertEqual(set(self.asked(balancer, 4)), {"10.0.0.2:80"})
            # What is in flight is not disturbed, and the connection not kept.
            first.send(OK)
            self.assertIn(b"200 OK", client.received())
            self.assertTrue(first.transport.closing)
            self.set(server, balancer, AdminState.READY)
            self.assertEqual(server.status, "up")
            self.assertIn("10.0.0.1:80", self.asked(balancer, 2))

    def test_idle_connections_are_closed(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        server = balancer.accept()
        server.send(OK)
        self.set(balancer.servers[0], balancer, AdminState.DRAIN)
        self.assertTrue(server.transport.closing)

    def test_a_pool_may_be_emptied(self) -> None:
        balancer = self.balancer()
        self.set(balancer.servers[0], balancer, AdminState.DRAIN)
        client = balancer.client()
        client.send(GET)
        self.assert_error(client.received(), 503)
        self.assertEqual(balancer.connectors, [])

    def test_a_drained_server_is_not_failed_over_to(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        self.set(balancer.servers[1], balancer, AdminState.DRAIN)
        balancer.connectors[0].refuse()
        self.assert_error(client.received(), 502)
        self.assertEqual(len(balancer.connectors), 1)

    def test_a_removed_server_is_not_asked_again(self) -> None:
        balancer = self.balancer(servers=2)
        client = balancer.client()
        client.send(GET)
        balancer.service.server_set.remove(balancer.servers[1])
        balancer.connectors[0].refuse()
        self.assert_error(client.received(), 502)

    def test_ready_after_maintenance_is_a_new_start(self) -> None:
        balancer = self.balancer()
        self.asked(balancer, 1)
        server = balancer.servers[0]
        client = balancer.client()
        client.send(GET)
        balancer.connectors[-1].refuse()
        self.assertTrue(server.ejected)
        self.set(server, balancer, AdminState.MAINTENANCE)
        self.set(server, balancer, AdminState.READY)
        self.assertFalse(server.ejected)
        self.assertEqual(server.ejection.cooldown, 0)

    def test_weights_at_run_time(self) -> None:
        balancer = self.balancer(servers=2)
        balancer.service.resource.health.set_weight(balancer.servers[0], 0)
        self.assertEqual(set(self.asked(balancer, 4)), {"10.0.0.2:80"})
        balancer.service.resource.health.set_weight(balancer.servers[0], 3)
        self.assertEqual(balancer.servers[0].effective_weight, 3)


class SlowStartTests(BalancerTestCase):
    """With slow start a server that comes back gets its share little by little."""

    def test_after_a_cooldown(self) -> None:
        servers = tuple(ServerSettings(TcpAddress(f"10.0.0.{n}", 80), 10) for n in (1, 2))
        balancer = self.balancer(servers=0, slow_start=10.0)
        for settings in servers:
            balancer.service.server_set.add(settings)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        balancer.accept().send(OK)
        balancer.advance(11)
        server = balancer.servers[0]
        for _ in range(2):
            other = balancer.client()
            other.send(GET)
            if balancer.connectors[-1].state == "connecting":
                balancer.accept().send(OK)
            other.reset()
        self.assertEqual(server.effective_weight, 1.0)
        before = 0.0
        for second in range(1, 13):
            balancer.advance(1)
            # A sweep may be due a little earlier or later.
            self.assertLess(abs(server.effective_weight - min(second, 10)), 1.5)
            self.assertGreaterEqual(server.effective_weight, before)
            before = server.effective_weight
        self.assertEqual(server.effective_weight, 10.0)
