"""A property of reloads: every request is answered once, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from attrs import evolve
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    FrontendSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    QueueSettings,
    RetrySettings,
    RouteSettings,
    ServerSettings,
    Settings,
)
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

WEB = FrontendSettings("web", bind=(), pool="app")


def server(number: int, **fields: Any) -> ServerSettings:
    """The settings of the server 10.0.0.NUMBER."""
    return ServerSettings(TcpAddress(f"10.0.0.{number}", 80), **fields)


class ReloadPropertyTests(SynchronousTestCase):
    """Random sequences of requests, responses, failures and reloads."""

    LIMIT = LimitSettings(12, 1000.0, "fixed-window", name="per-client")

    @given(st.data())
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_every_request_is_answered_once(self, data: st.DataObject) -> None:
        """Every client gets one response, and nothing in flight is left over."""
        ReloadSimulation(data.draw, self.LIMIT).run(self)


# Random settings of a pool.
POOL = st.builds(
    evolve,
    st.just(PoolSettings("app")),
    servers=st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True).flatmap(
        lambda numbers: st.tuples(
            *(
                st.builds(
                    server,
                    st.just(number),
                    weight=st.integers(0, 2),
                    backup=st.booleans(),
                    max_in_flight=st.sampled_from([None, 1, 2]),
                    proxy_protocol=st.sampled_from([None, None, 1]),
                )
                for number in numbers
            )
        )
    ),
    algorithm=st.sampled_from(sorted(ALGORITHMS)),
    timeouts=st.sampled_from([PoolTimeouts(), PoolTimeouts(1.0, 2.0)]),
    passive=st.sampled_from(
        [
            OutlierDetectionSettings(),
            OutlierDetectionSettings(cooldown=0),
            OutlierDetectionSettings(2, 5.0, 0.5, 5.0, 1),
        ]
    ),
    retries=st.sampled_from([RetrySettings(), RetrySettings(1, 0.0)]),
    queue=st.sampled_from([QueueSettings(), QueueSettings(1, 1.0)]),
    slow_start=st.sampled_from([0.0, 5.0]),
    limits=st.sampled_from([(), (LimitSettings(3, algorithm="concurrent"),)]),
)
# Random names of the default pool.
NAMES = st.sampled_from(["app", "other"])


class ReloadSimulation:
    """
    Clients that send one request each, servers that respond or fail, and reloads.

    Attributes:
        clients: every client, and whether it has closed its connection.
        responses: the bytes that each client has received, by its index.
    """

    def __init__(self, draw: Callable[[Any], Any], limit: LimitSettings) -> None:
        self.draw = draw
        self.limit = limit
        self.balancer = MemoryBalancer.from_settings(self.settings())
        self.clients: list[tuple[Peer, bool]] = []
        self.responses: dict[int, bytes] = {}

    def settings(self) -> Settings:
        """Random settings with the frontend "web"."""
        pool, route = self.draw(POOL), self.draw(st.booleans())
        name = self.draw(NAMES)
        # Always the same frontend, so that its limit has to stay.
        web = evolve(WEB, pool=name, limits=(self.limit,))
        pools = [evolve(pool, name=name)]
        if route:
            web = evolve(web, routes=(RouteSettings("routed", path="/"),))
            pools.append(evolve(self.draw(POOL), name="routed"))
        frontends = [web]
        if self.draw(st.booleans()):
            frontends.append(evolve(WEB, name="more", pool="more", mode="tcp"))
            pools.append(evolve(self.draw(POOL), name="more"))
        return Settings(tuple(frontends), tuple(pools))

    def run(self, case: SynchronousTestCase) -> None:
        """Run random steps, then let everything finish and check the result."""
        steps: Sequence[Callable[[], None]] = (
            self.send_request,
            self.send_request,
            self.reload,
            self.reload,
            self.respond,
            self.respond,
            self.fail,
            self.wait,
            self.disconnect_client,
        )
        for step in self.draw(st.lists(st.sampled_from(steps), max_size=40)):
            step()
            self.balancer.finish_closing()
            self.collect()
        # Longer than the longest timeout, that of the queue, and a sweep that is late by a second.
        for _ in range(14):
            for _ in range(20):
                self.respond()
            self.wait()
        self.collect()
        waiting = [number for number, (_, closed) in enumerate(self.clients) if not closed]
        for number in waiting:
            response = self.responses.get(number, b"")
            case.assertEqual(response.count(b"HTTP/1.1 "), 1, response)
            case.assertIn(response[9:12], (b"200", b"429", b"502", b"503", b"504"))
        (frontend_limit,) = self.balancer.service.limiter.scopes["frontend web"]
        case.assertEqual(frontend_limit.rejected, max(0, len(self.clients) - self.limit.requests))
        service = self.balancer.service
        case.assertEqual(list(service.retired), [])
        for pool in service.pools.values():
            for server_state in pool.server_set.servers:
                case.assertEqual(server_state.in_flight, 0)
        for scope in service.limiter.scopes.values():
            for limit in scope:
                if limit.concurrent:
                    case.assertEqual(len(limit.limiter), 0)
        self.balancer.stop()

    def send_request(self) -> None:
        """Send a request as a new client."""
        client = self.balancer.client()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.clients.append((client, False))

    def reload(self) -> None:
        """Apply random settings."""
        self.balancer.service.apply(self.settings())

    def server_connections(self) -> list[Peer]:
        """Open connections of servers that have received a request."""
        clients = [peer for peer, _ in self.clients]
        return [
            peer
            for peer in self.balancer.peers
            if not any(peer is client for client in clients)
            and not peer.transport.closing
            and not peer.transport.closed
            and b"GET /" in peer.transport._written
        ]

    def connecting(self) -> list[Any]:
        """Connect attempts in progress."""
        return [
            connector for connector in self.balancer.connectors if connector.state == "connecting"
        ]

    def respond(self) -> None:
        """Accept one connect attempt and send one response."""
        for connector in self.connecting()[:1]:
            self.balancer._add_peer(connector.accept())
        for peer in self.server_connections()[:1]:
            peer.received()
            peer.send(OK)
        self.balancer.finish_closing()

    def fail(self) -> None:
        """Refuse one connect attempt and reset one connection."""
        for connector in self.connecting()[:1]:
            connector.refuse()
        for peer in self.server_connections()[-1:]:
            peer.reset()

    def disconnect_client(self) -> None:
        """Reset the connection of the first client without a response."""
        for number, (client, closed) in enumerate(self.clients):
            if not closed and number not in self.responses and not client.transport.closed:
                self.clients[number] = (client, True)
                client.reset()
                return

    def wait(self) -> None:
        """Advance the clock."""
        self.balancer.advance(0.5)
        self.balancer.finish_closing()

    def collect(self) -> None:
        """Collect what clients have received."""
        for number, (client, _) in enumerate(self.clients):
            response = client.transport.read()
            if response:
                self.responses[number] = self.responses.get(number, b"") + response
