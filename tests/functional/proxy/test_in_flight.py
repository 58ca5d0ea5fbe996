"""Requests in flight: each is counted once, and released however it ends."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import error

from balancebeam.api import Timeouts
from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import AdminState, QueueSettings, ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
STARTED = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"
UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")


class RequestCompletionTests(BalancerTestCase):
    """Every way in which a request ends releases its server."""

    def sent_request(
        self, request: bytes = GET, **options: Any
    ) -> tuple[MemoryBalancer, Peer, Peer]:
        """A request that was sent to the only server, which has not responded."""
        balancer = self.balancer(**options)
        client = balancer.client()
        client.send(request)
        server = balancer.accept()
        self.assertEqual(balancer.servers[0].in_flight, 1)
        return balancer, client, server

    def assert_released(self, balancer: MemoryBalancer) -> None:
        """The server has no request in flight."""
        self.assertEqual([server.in_flight for server in balancer.servers], [0])

    def test_complete_response(self) -> None:
        """A complete response releases the server, also if the connection is closed."""
        for response in (OK, CLOSING, OK[:-1] + b"o"):
            balancer, _, server = self.sent_request()
            server.send(response)
            self.assert_released(balancer)

    def test_response_in_pieces(self) -> None:
        """A response releases the server when its last byte has arrived."""
        balancer, _, server = self.sent_request()
        server.send(OK[:30], OK[30:-2])
        self.assertEqual(balancer.servers[0].in_flight, 1)
        server.send(OK[-2:])
        self.assert_released(balancer)

    def test_close_delimited_response(self) -> None:
        """A close-delimited response releases the server at the end of the connection."""
        balancer, _, server = self.sent_request()
        server.send(b"HTTP/1.1 200 OK\r\n\r\nhello")
        self.assertEqual(balancer.servers[0].in_flight, 1)
        server.half_close()
        self.assert_released(balancer)

    def test_response_before_the_request_is_complete(self) -> None:
        """A response that arrives before the end of the request's body releases the server."""
        balancer, _, server = self.sent_request(POST[:-2])
        server.send(OK)
        self.assert_released(balancer)

    def test_missing_truncated_and_malformed_responses(self) -> None:
        """A missing, truncated or malformed response releases the server."""
        for response in (b"", b"HTTP/1.1 2", STARTED, b"nonsense\r\n\r\n"):
            for end in (Peer.half_close, Peer.reset):
                balancer, _, server = self.sent_request(POST)
                if response:
                    server.send(response)
                if not server.transport.closing:
                    end(server)
                self.assert_released(balancer)

    def test_client_disconnects(self) -> None:
        """A client that disconnects before or within the response releases the server."""
        for response in (b"", b"HTTP/1.1 2", STARTED):
            balancer, client, server = self.sent_request()
            if response:
                server.send(response)
            client.reset()
            self.assert_released(balancer)

    def test_client_disconnects_while_connecting(self) -> None:
        """A client that disconnects before the server accepts releases it once."""
        balancer = self.balancer()
        client = balancer.client()
        client.send(GET)
        client.reset()
        self.assert_released(balancer)
        balancer.accept()
        self.assert_released(balancer)

    def test_malformed_request_body(self) -> None:
        """A malformed request body releases the server."""
        balancer, client, _ = self.sent_request(
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.send(b"nonsense\r\n")
        self.assert_released(balancer)

    def test_connect_failures(self) -> None:
        """A refused connection and a connect timeout release the server."""
        for reason in (error.ConnectionRefusedError(), error.TimeoutError()):
            balancer = self.balancer()
            balancer.client().send(GET)
            self.assertEqual(balancer.servers[0].in_flight, 1)
            balancer.connectors[0].refuse(reason)
            self.assert_released(balancer)

    def test_response_timeout(self) -> None:
        """The response timeout releases the server."""
        for response in (b"", b"HTTP/1.1 2", STARTED):
            balancer, _, server = self.sent_request(timeouts=Timeouts(upstream=3))
            if response:
                server.send(response)
            balancer.advance(5)
            self.assert_released(balancer)

    def test_stale_connection(self) -> None:
        """A request that is sent again on a new connection stays counted once."""
        balancer, client, server = self.sent_request()
        server.send(OK)
        client.send(GET)
        server.half_close()
        self.assertEqual(balancer.servers[0].in_flight, 1)
        balancer.accept().send(OK)
        self.assert_released(balancer)

    def test_tunnels(self) -> None:
        """A tunnel is in flight until either side has reset or both have closed it."""
        for end in ("client", "server", "both"):
            balancer, client, server = self.sent_request(UPGRADE)
            server.send(SWITCHED)
            self.assertEqual(balancer.servers[0].in_flight, 1)
            if end == "both":
                client.half_close()
                server.half_close()
            else:
                (client if end == "client" else server).reset()
            balancer.finish_closing()
            self.assert_released(balancer)

    def test_balancer_stops(self) -> None:
        """The balancer stops cleanly before and within a response."""
        for response in (b"", STARTED):
            balancer, _, server = self.sent_request()
            if response:
                server.send(response)
            balancer.stop()


class ZeroWeightTests(BalancerTestCase):
    """The weight is set to 0 while requests are in flight."""

    def test_every_algorithm(self) -> None:
        """With every algorithm, a server of weight 0 finishes its requests and gets no more."""
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
    """The counts are right after any events in any order."""

    @settings(max_examples=80, deadline=None)
    @given(
        st.integers(0, 2**32),
        st.sampled_from(sorted(ALGORITHMS)),
        st.sampled_from((None, 1, 2)),
        st.sampled_from((0.0, 5.0)),
    )
    def test_random_events(
        self, seed: int, algorithm: str, max_in_flight: int | None, slow_start: float
    ) -> None:
        """After any sequence of events, in-flight counts, limits and the queue are consistent."""
        rng = random.Random(seed)
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
                    TcpAddress(f"10.0.0.{number}", 80),
                    number,
                    number == 3,
                    max_in_flight=max_in_flight,
                )
            )
        clients: list[Peer] = []
        for _ in range(120):
            self._perform_event(rng, balancer, clients)
            balancer.finish_closing()
            self._check_consistency(balancer, max_in_flight)
        balancer.stop()

    def _perform_event(
        self, rng: random.Random, balancer: MemoryBalancer, clients: list[Peer]
    ) -> None:
        """Perform one random event."""
        event = rng.choice("cccrrraaaasssssevvttow")
        alive = [peer for peer in balancer.peers if not peer.transport.closing]
        alive = [peer for peer in alive if not peer.transport.closed and peer.transport.reading]
        servers = [p for p in alive if p not in clients and p.protocol.exchange is not None]
        connecting = [n for n, c in enumerate(balancer.connectors) if c.state == "connecting"]
        alive_clients = [peer for peer in alive if peer in clients]
        if event == "c":
            clients.append(balancer.client(f"192.0.2.{rng.randrange(9)}"))
        elif event == "r" and alive_clients:
            rng.choice(alive_clients).send(rng.choice((GET, POST, POST[:-1], UPGRADE)))
        elif event == "a" and connecting:
            balancer.accept(rng.choice(connecting))
        elif event == "s" and servers:
            rng.choice(servers).send(rng.choice((OK, CLOSING, STARTED, b"?\r\n\r\n", SWITCHED)))
        elif event == "e" and connecting:
            balancer.connectors[rng.choice(connecting)].refuse()
        elif event == "v" and alive:
            rng.choice(alive).reset()
        elif event == "t":
            balancer.advance(rng.choice((0.3, 1, 5, 30)))
        elif event == "o":
            balancer.service.resource.health.set_admin_state(
                rng.choice(balancer.servers), rng.choice(list(AdminState))
            )
        elif event == "w":
            health = balancer.service.resource.health
            health.set_weight(rng.choice(balancer.servers), rng.choice((0, 1, 2, 100)))

    def _check_consistency(self, balancer: MemoryBalancer, max_in_flight: int | None) -> None:
        """Compare the counts of the servers with the exchanges of the clients."""
        dispatcher = balancer.service.resource
        exchanges = [
            exchange
            for channel in balancer.service.default_frontend.factory.channels
            for exchange in channel.exchanges
        ]
        busy_servers = [exchange.server for exchange in exchanges if exchange.server is not None]
        for server in balancer.servers:
            self.assertEqual(server.in_flight, busy_servers.count(server), server)
            if max_in_flight is not None:
                self.assertLessEqual(server.in_flight, max_in_flight)
            self.assertTrue(server.in_flight >= 0)
            self.assertLessEqual(len(server.ejection.trial_requests), server.in_flight)
        for exchange in dispatcher.queue:
            self.assertIn(exchange, exchanges)
            self.assertIsNone(exchange.server)
