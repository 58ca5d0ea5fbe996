"""Requests in flight: every one is counted once, and given back however it ends."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error

from balancebeam.api import Timeouts
from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminState, QueueSettings, RetrySettings, ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


def limited(count: int, most: int) -> tuple[ServerSettings, ...]:
    """So many servers that take at most `most` requests at once."""
    return tuple(
        ServerSettings(TcpAddress(f"10.0.0.{n}", 80), max_in_flight=most)
        for n in range(1, count + 1)
    )


class RequestCompletionTests(BalancerTestCase):
    """Each way in which a request can end."""

    def asked(self, request: bytes = GET, **options: Any) -> tuple[MemoryBalancer, Peer, Peer]:
        """A request that one server has been sent."""
        balancer = self.balancer(**options)
        client = balancer.client()
        client.send(request)
        server = balancer.accept()
        self.assertEqual(balancer.servers[0].in_flight, 1)
        return balancer, client, server

    def assert_free(self, balancer: MemoryBalancer) -> None:
        self.assertEqual([server.in_flight for server in balancer.servers], [0])

    def test_answered(self) -> None:
        for answer in (OK, CLOSING, OK[:-1] + b"o"):
            balancer, _, server = self.asked()
            server.send(answer)
            self.assert_free(balancer)

    def test_answered_in_pieces(self) -> None:
        balancer, _, server = self.asked()
        server.send(OK[:30], OK[30:-2])
        self.assertEqual(balancer.servers[0].in_flight, 1)
        server.send(OK[-2:])
        self.assert_free(balancer)

    def test_answered_up_to_the_end_of_the_connection(self) -> None:
        balancer, _, server = self.asked()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        self.assertEqual(balancer.servers[0].in_flight, 1)
        server.half_close()
        self.assert_free(balancer)

    def test_answered_before_all_of_the_body_came(self) -> None:
        balancer, _, server = self.asked(POST[:-2])
        server.send(OK)
        self.assert_free(balancer)

    def test_absent_cut_and_broken_answers(self) -> None:
        for answer in (b"", b"HTTP/1.1 2", BEGUN, b"nonsense\r\n\r\n"):
            for end in (Peer.half_close, Peer.reset):
                balancer, _, server = self.asked(POST)
                if answer:
                    server.send(answer)
                if not server.transport.closing:
                    end(server)
                self.assert_free(balancer)

    def test_the_client_leaves(self) -> None:
        for answer in (b"", b"HTTP/1.1 2", BEGUN):
            balancer, client, server = self.asked()
            if answer:
                server.send(answer)
            client.reset()
            self.assert_free(balancer)

    def test_the_client_leaves_before_a_server_accepts(self) -> None:
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        client.reset()
        self.assert_free(balancer)
        balancer.accept()
        self.assert_free(balancer)

    def test_the_client_breaks_off_its_body(self) -> None:
        balancer, client, _ = self.asked(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.send(b"nonsense\r\n")
        self.assert_free(balancer)

    def test_nobody_can_be_connected_to(self) -> None:
        for why in (error.ConnectionRefusedError(), error.TimeoutError()):
            balancer = self.balancer()
            balancer.client().send(GET)
            self.assertEqual(balancer.servers[0].in_flight, 1)
            balancer.connectors[0].refuse(why)
            self.assert_free(balancer)

    def test_too_slow(self) -> None:
        for answer in (b"", b"HTTP/1.1 2", BEGUN):
            balancer, _, server = self.asked(timeouts=Timeouts(upstream=3))
            if answer:
                server.send(answer)
            balancer.advance(5)
            self.assert_free(balancer)

    def test_a_stale_connection(self) -> None:
        balancer, client, server = self.asked()
        server.send(OK)
        client.send(GET)
        server.half_close()
        self.assertEqual(balancer.servers[0].in_flight, 1)
        balancer.accept().send(OK)
        self.assert_free(balancer)

    def test_tunnels(self) -> None:
        for end in ("client", "server", "both"):
            balancer, client, server = self.asked(UPGRADE)
            server.send(SWITCHED)
            self.assertEqual(balancer.servers[0].in_flight, 1)
            if end == "both":
                client.half_close()
                server.half_close()
            else:
                (client if end == "client" else server).reset()
            balancer.finish_closing()
            self.assert_free(balancer)

    def test_the_balancer_stops(self) -> None:
        for answer in (b"", BEGUN):
            balancer, _, server = self.asked()
            if answer:
                server.send(answer)
            balancer.stop()


class MaxInFlightTests(BalancerTestCase):
    """`max_in_flight`, and those who wait."""

    def full(self, servers: int = 1, **options: Any) -> tuple[MemoryBalancer, list[Peer]]:
        """A balancer whose servers all have one request, which is all they may have."""
        options.setdefault("timeouts", Timeouts(upstream=60))
        balancer = self.balancer(servers=limited(servers, 1), **options)
        peers = []
        for _ in range(servers):
            balancer.client().send(GET)
            peers.append(balancer.accept())
        return balancer, peers

    def balancer(self, servers: Any = 1, **options: Any) -> MemoryBalancer:
        if isinstance(servers, int):
            return super().balancer(servers, **options)
        balancer = super().balancer(0, **options)
        for server in servers:
            balancer.service.server_set.add(server)
        return balancer

    def waiting(self, balancer: MemoryBalancer) -> int:
        return len(balancer.service.resource.queue)

    def test_another_server_takes_it(self) -> None:
        balancer = self.balancer(limited(3, 1))
        for _ in range(3):
            balancer.client().send(GET)
        self.assertEqual([s.in_flight for s in balancer.servers], [1, 1, 1])
        self.assertEqual(self.waiting(balancer), 0)

    def test_first_come_first_served(self) -> None:
        balancer, (server,) = self.full()
        clients = [balancer.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(GET.replace(b"/ ", b"/%d " % number))
        self.assertEqual(self.waiting(balancer), 3)
        for number, client in enumerate(clients):
            server.received()
            server.send(OK)
            self.assertTrue(server.received().startswith(b"GET /%d " % number))
            self.assertEqual(balancer.servers[0].in_flight, 1)
            self.assertEqual(client.received(), b"")
        server.send(OK)
        self.assertIn(b"200 OK", clients[-1].received())

    def test_a_bound_on_how_many_wait(self) -> None:
        balancer, (server,) = self.full(queue=QueueSettings(limit=2))
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        self.assertEqual(self.waiting(balancer), 2)
        self.assert_error(clients[2].received(), 503)
        for _ in range(3):
            server.send(OK)

    def test_a_bound_on_how_long(self) -> None:
        balancer, (server,) = self.full(queue=QueueSettings(timeout=3))
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        balancer.advance(2)
        late.send(GET)
        balancer.advance(2)
        self.assert_error(early.received(), 503)
        self.assertEqual(late.received(), b"")
        server.send(OK, OK)
        self.assertIn(b"200 OK", late.received())

    def test_a_client_that_leaves_waits_no_more(self) -> None:
        balancer, (server,) = self.full()
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        late.send(POST)
        early.reset()
        self.assertEqual(self.waiting(balancer), 1)
        server.received()
        server.send(OK)
        self.assertTrue(server.received().endswith(b"abc"))
        server.send(OK)
        self.assertIn(b"200 OK", late.received())

    def test_a_body_that_comes_in_meanwhile(self) -> None:
        balancer, (server,) = self.full()
        client = balancer.client()
        client.send(POST[:-2])
        client.send(POST[-2:])
        server.received()
        server.send(OK)
        self.assertTrue(server.received().endswith(b"\r\n\r\nabc"))
        server.send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_the_server_fails_while_others_wait(self) -> None:
        balancer, (server,) = self.full()
        client = balancer.client()
        client.send(GET)
        server.reset()
        # It is in cooldown, but the only one there is.
        balancer.advance(1.5)
        self.assertEqual(self.waiting(balancer), 0)
        for connector in balancer.connectors[1:]:
            self._accept(balancer, connector)
        self.assertIn(b"200 OK", client.received())

    def _accept(self, balancer: MemoryBalancer, connector: Any) -> None:
        if connector.state == "connecting":
            balancer.accept(balancer.connectors.index(connector)).send(OK)

    def test_a_server_that_comes_back_serves_who_waits(self) -> None:
        balancer, peers = self.full(2)
        health = balancer.service.resource.health
        health.set_admin_state(balancer.servers[1], AdminState.DRAIN)
        peers[1].send(OK)
        client = balancer.client()
        client.send(GET)
        self.assertEqual(self.waiting(balancer), 1)
        health.set_admin_state(balancer.servers[1], AdminState.READY)
        balancer.advance(1.5)
        self.assertEqual(self.waiting(balancer), 0)
        balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_a_retry_waits_too_but_not_for_where_it_failed(self) -> None:
        balancer = self.balancer(limited(2, 1))
        first, second = balancer.client(), balancer.client()
        first.send(GET)
        other = balancer.accept()
        second.send(GET)
        balancer.connectors[1].refuse()
        self.assertEqual(self.waiting(balancer), 1)
        other.send(OK)
        other.send(OK)
        self.assertIn(b"200 OK", second.received())

    def test_who_waited_is_failed_over_too(self) -> None:
        balancer, peers = self.full(2)
        client = balancer.client()
        client.send(GET)
        self.assertEqual(self.waiting(balancer), 1)
        peers[0].send(CLOSING)
        peers[1].send(OK)
        balancer.connectors[-1].refuse()
        peers[1].send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_a_server_that_was_full_is_there_for_a_retry(self) -> None:
        balancer = self.balancer(limited(2, 1))
        balancer.client().send(GET)
        first = balancer.accept()
        # The turn of the second, then of the first, which is full.
        others = [balancer.client(), balancer.client()]
        others[0].send(GET)
        balancer.accept().send(CLOSING)
        others[1].send(GET)
        balancer.connectors[-1].refuse()
        self.assertEqual(self.waiting(balancer), 1)
        first.send(OK)
        first.send(OK)
        self.assertIn(b"200 OK", others[1].received())

    def test_it_is_better_to_wait_than_to_ask_a_server_that_failed(self) -> None:
        balancer = self.balancer(limited(2, 5))
        balancer.client().send(GET)
        balancer.connectors[0].refuse()
        for _ in range(10):
            balancer.client().send(GET)
        self.assertEqual([server.in_flight for server in balancer.servers], [0, 5])
        self.assertEqual(self.waiting(balancer), 6)

    def test_newcomers_do_not_overtake(self) -> None:
        balancer, (server,) = self.full()
        early, late = balancer.client(), balancer.client()
        early.send(GET)
        server.received()
        server.send(OK)
        late.send(GET)
        self.assertEqual(balancer.servers[0].in_flight, 1)
        self.assertEqual(late.received(), b"")
        server.send(OK, OK)
        self.assertIn(b"200 OK", early.received())
        self.assertIn(b"200 OK", late.received())

    def test_one_who_waits_for_another_server_holds_up_nobody(self) -> None:
        balancer = self.balancer(limited(2, 1))
        first, second, third = (balancer.client() for _ in range(3))
        first.send(GET)
        peer = balancer.accept()
        # The second is refused by the second server, and waits for the first.
        second.send(GET)
        balancer.connectors[1].refuse()
        self.assertEqual(self.waiting(balancer), 1)
        third.send(GET)
        balancer.advance(1.5)
        self.assertEqual(self.waiting(balancer), 2)
        # When the second is on trial, the third may have it at once.
        balancer.advance(3)
        peer.send(OK)
        peer.send(OK)
        self.assertIn(b"200 OK", second.received())
        peer.send(OK)
        self.assertIn(b"200 OK", third.received())

    def test_all_who_wait_and_the_end_of_the_pool(self) -> None:
        balancer, (server,) = self.full(queue=QueueSettings(limit=2000))
        for _ in range(1500):
            balancer.client().send(GET)
        self.assertEqual(self.waiting(balancer), 1500)
        balancer.service.resource.connections.stopService()
        self.assertTrue(server.transport.closing)
        self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_backups_take_what_is_too_much(self) -> None:
        balancer = self.balancer(
            (*limited(1, 1), ServerSettings(TcpAddress("10.0.0.9", 80), backup=True))
        )
        for _ in range(2):
            balancer.client().send(GET)
        self.assertEqual(str(balancer.connectors[1].address), "10.0.0.9:80")

    def test_the_balancer_stops(self) -> None:
        balancer, _ = self.full()
        balancer.client().send(GET)
        balancer.stop()


class RetryLimitTests(BalancerTestCase):
    """How often a request is tried."""

    def test_as_many_servers_as_are_allowed(self) -> None:
        for attempts in (1, 2, 5):
            balancer = self.balancer(servers=6, retries=RetrySettings(attempts))
            client = balancer.client()
            client.send(GET)
            while balancer.connectors[-1].state == "connecting":
                balancer.connectors[-1].refuse()
            self.assertEqual(len({str(c.address) for c in balancer.connectors}), attempts)
            self.assertEqual(len(balancer.connectors), attempts)
            self.assert_error(client.received(), 502)

    def test_each_server_once(self) -> None:
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

    def test_a_budget_for_all_requests(self) -> None:
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
        # Of the 15 that were refused, the ten that are always allowed were tried again.
        self.assertEqual(statuses.count(b"502"), 5)
        self.assertEqual(statuses.count(b"200"), 25)


class ZeroWeightTests(BalancerTestCase):
    """A weight of 0 while requests are in flight."""

    def test_any_algorithm(self) -> None:
        for name in ALGORITHMS:
            balancer = self.balancer(servers=2, algorithm=name)
            clients = [balancer.client(f"192.0.2.{number}") for number in range(8)]
            for client in clients:
                client.send(GET)
            peers = [balancer.accept(number) for number in range(8)]
            balancer.service.resource.health.set_weight(balancer.servers[0], 0)
            for peer in peers:
                peer.send(OK)
            for client in clients:
                self.assertIn(b"200 OK", client.received(), name)
                client.send(GET)
            self.assertEqual(balancer.servers[0].in_flight, 0)


class InFlightPropertyTests(BalancerTestCase):
    """Whatever happens in whatever order, the counts are right."""

    @settings(max_examples=80, deadline=None)
    @given(
        st.integers(0, 2**32),
        st.sampled_from(sorted(ALGORITHMS)),
        st.sampled_from((None, 1, 2)),
        st.sampled_from((0.0, 5.0)),
    )
    def test_random_events(
        self, seed: int, algorithm: str, most: int | None, slow_start: float
    ) -> None:
        chance = random.Random(seed)
        balancer = MemoryBalancer(
            0,
            algorithm=algorithm,
            slow_start=slow_start,
            timeouts=Timeouts(upstream=4, idle=8),
            queue=QueueSettings(limit=3, timeout=2),
        )
        for number in range(1, 4):
            balancer.service.server_set.add(
                ServerSettings(
                    TcpAddress(f"10.0.0.{number}", 80), number, number == 3, max_in_flight=most
                )
            )
        clients: list[Peer] = []
        for _ in range(120):
            self._happen(chance, balancer, clients)
            balancer.finish_closing()
            self._check(balancer, most)
        balancer.stop()

    def _happen(self, chance: random.Random, balancer: MemoryBalancer, clients: list[Peer]) -> None:
        """One thing that may happen."""
        event = chance.choice("cccrrraaaasssssevvttow")
        alive = [peer for peer in balancer.peers if not peer.transport.closing]
        alive = [peer for peer in alive if not peer.transport.closed and peer.transport.reading]
        servers = [p for p in alive if p not in clients and p.protocol.exchange is not None]
        connecting = [n for n, c in enumerate(balancer.connectors) if c.state == "connecting"]
        here = [peer for peer in alive if peer in clients]
        if event == "c":
            clients.append(balancer.client(f"192.0.2.{chance.randrange(9)}"))
        elif event == "r" and here:
            chance.choice(here).send(chance.choice((GET, POST, POST[:-1], UPGRADE)))
        elif event == "a" and connecting:
            balancer.accept(chance.choice(connecting))
        elif event == "s" and servers:
            chance.choice(servers).send(chance.choice((OK, CLOSING, BEGUN, b"?\r\n\r\n", SWITCHED)))
        elif event == "e" and connecting:
            balancer.connectors[chance.choice(connecting)].refuse()
        elif event == "v" and alive:
            chance.choice(alive).reset()
        elif event == "t":
            balancer.advance(chance.choice((0.3, 1, 5, 30)))
        elif event == "o":
            balancer.service.resource.health.set_admin_state(
                chance.choice(balancer.servers), chance.choice(list(AdminState))
            )
        elif event == "w":
            health = balancer.service.resource.health
            health.set_weight(chance.choice(balancer.servers), chance.choice((0, 1, 2, 100)))

    def _check(self, balancer: MemoryBalancer, most: int | None) -> None:
        dispatcher = balancer.service.resource
        exchanges = [
            channel.exchange
            for channel in balancer.service.default_frontend.factory.channels
            if channel.exchange is not None
        ]
        held = [exchange.server for exchange in exchanges if exchange.server is not None]
        for server in balancer.servers:
            self.assertEqual(server.in_flight, held.count(server), server)
            if most is not None:
                self.assertLessEqual(server.in_flight, most)
            self.assertTrue(server.in_flight >= 0)
            self.assertLessEqual(len(server.ejection.trial_requests), server.in_flight)
        for exchange in dispatcher.queue:
            self.assertIn(exchange, exchanges)
            self.assertIsNone(exchange.server)
