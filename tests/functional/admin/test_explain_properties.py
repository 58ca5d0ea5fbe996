"""
Explanations agree with what happens next, and have no side effects.

Two balancers get the same requests and events. Each request is explained by one of them
before it is sent to both: it has to be treated as explained, and the same by both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AdminState,
    FrontendSettings,
    FrontendTimeouts,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    QueueSettings,
    RouteSettings,
    ServerSettings,
    Settings,
)
from balancebeam.ratelimit.limit import ALGORITHMS as LIMIT_ALGORITHMS
from balancebeam.server.pool import PoolService
from tests.helpers.admin import MemoryAdmin
from tests.helpers.memory import OK, MemoryConnector, Peer

RANDOM_ALGORITHMS = ("random", "power-of-two")
CLOSING = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")

CLIENTS = ("192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1")
TARGETS = ("/", "/api/x", "/v1?a=b")
HOSTS = ("example.org", "api.example.org:80")

LIMITS = st.lists(
    st.builds(
        LimitSettings,
        requests=st.integers(1, 12),
        window=st.sampled_from((2.0, 7.0)),
        algorithm=st.sampled_from(LIMIT_ALGORITHMS),
        burst=st.sampled_from((None, 2)),
        key=st.sampled_from((("client",), ("host",), ("client", "path:/api"), ("header:x-a",))),
        dry_run=st.booleans(),
        status=st.sampled_from((429, 430)),
    ),
    max_size=2,
).map(tuple)


def servers(network: int) -> st.SearchStrategy[tuple[ServerSettings, ...]]:
    """Up to four servers at addresses of one network."""
    return st.lists(
        st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from((None, None, 1, 2))),
        max_size=4,
    ).map(
        lambda rows: tuple(
            ServerSettings(
                TcpAddress(f"10.0.{network}.{number}", 80),
                weight=weight,
                backup=backup and number > 1,
                max_in_flight=max_in_flight,
            )
            for number, (weight, backup, max_in_flight) in enumerate(rows, 1)
        )
    )


def pools(name: str, network: int) -> st.SearchStrategy[PoolSettings]:
    """Pools of any algorithm, with a short queue and short cooldowns."""
    return st.builds(
        PoolSettings,
        name=st.just(name),
        # Timeouts expire in the order of a set, which differs between two balancers.
        timeouts=st.just(PoolTimeouts(1000.0, 1000.0)),
        servers=servers(network),
        algorithm=st.sampled_from(sorted(ALGORITHMS)),
        passive=st.just(OutlierDetectionSettings(cooldown=3.0)),
        queue=st.builds(QueueSettings, limit=st.integers(0, 2)),
        slow_start=st.sampled_from((0.0, 4.0)),
        limits=LIMITS,
    )


@st.composite
def configurations(draw: st.DrawFn) -> Settings:
    """A frontend with up to two routes, and two pools."""
    routes = draw(
        st.lists(
            st.builds(
                RouteSettings,
                pool=st.sampled_from(("app", "api")),
                host=st.sampled_from((None, "api.example.org")),
                path=st.sampled_from(("/api", "/v1")),
                limits=LIMITS,
            ),
            max_size=2,
            unique_by=lambda route: (route.host, route.path),
        )
    )
    frontend = FrontendSettings(
        "web",
        bind=(),
        pool="app",
        timeouts=FrontendTimeouts(1000.0, 1000.0),
        routes=tuple(routes),
        limits=draw(LIMITS),
        deny=draw(st.sampled_from(((), (), ("198.51.100.0/24",)))),
    )
    return Settings((frontend,), (draw(pools("app", 1)), draw(pools("api", 2))))


@frozen
class Event:
    """
    One step of both balancers.

    Attributes:
        kind: "request", "respond", "refuse", "advance", "weight", "state" or "remove".
        number: Selects the client, the connection or the server.
        value: Selects the target, the time, the weight or the state.
    """

    kind: str
    number: int
    value: int


_KINDS = ("request",) * 6 + ("respond", "respond", "refuse", "advance", "weight", "state", "remove")
EVENTS = st.lists(
    st.builds(Event, st.sampled_from(_KINDS), st.integers(0, 11), st.integers(0, 11)),
    min_size=1,
    max_size=25,
)


class World:
    """A balancer with its admin API, to which events happen."""

    def __init__(self, configuration: Settings) -> None:
        self.admin = MemoryAdmin(configuration)
        self.balancer = self.admin.balancer

    def explain(self, event: Event) -> Any:
        """Explain the request of `event`."""
        client, host, target = request_parts(event)
        query = f"target={target}&host={host}&client={client}".replace("?", "%3F")
        return self.admin.request("GET", f"/explain?{query}").data

    def request(self, event: Event) -> tuple[str, Any]:
        """Send the request of `event`; return the outcome: "status", "server" or "queued"."""
        client, host, target = request_parts(event)
        peer: Peer = self.balancer.client(client)
        peer.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        received = peer.received()
        if received:
            return "status", int(received.split(b" ")[1])
        exchange = peer.protocol.exchange
        pool = exchange.dispatcher.pool_name
        if exchange.server is None:
            return "queued", pool
        return "server", (pool, exchange.server.name)

    def happen(self, event: Event) -> None:
        """Let an event other than a request happen."""
        pending = [c for c in self.balancer.connectors if c.state == "connecting"]
        if event.kind in ("respond", "refuse") and pending:
            self._finish(pending[event.number % len(pending)], event.kind == "respond")
        elif event.kind == "advance":
            self.balancer.advance((0.1, 0.7, 2.0, 6.0)[event.value % 4])
        elif event.kind in ("weight", "state", "remove"):
            self._change_server(event)

    def _finish(self, connector: MemoryConnector, respond: bool) -> None:
        if respond:
            peer = self.balancer.accept(self.balancer.connectors.index(connector))
            peer.send(CLOSING)
            self.balancer.finish_closing()
        else:
            connector.refuse()

    def _change_server(self, event: Event) -> None:
        every: list[tuple[PoolService, Any]] = [
            (pool, server)
            for pool in self.balancer.service.pools.values()
            for server in pool.server_set.servers
        ]
        if not every:
            return
        pool, server = every[event.number % len(every)]
        if event.kind == "weight":
            pool.health.set_weight(server, event.value % 5)
        elif event.kind == "state":
            states = (AdminState.READY, *AdminState)
            pool.health.set_admin_state(server, states[event.value % len(states)])
        elif event.value < 3:
            pool.server_set.remove(server)

    def head_of_queue_is_retry(self, pool: str) -> bool:
        """Whether a request may overtake the queue, because its head excludes servers."""
        queue = self.balancer.service.pools[pool].dispatcher.queue
        return any(exchange.attempted_servers for exchange in list(queue)[:1])

    def stop(self) -> None:
        """Disconnect all clients and stop the balancer."""
        for peer in self.balancer.peers:
            peer.reset()
        self.admin.stop()


def request_parts(event: Event) -> tuple[str, str, str]:
    """The client, the host and the target of a request."""
    number, value = event.number, event.value
    return CLIENTS[number % 4], HOSTS[value % 2], TARGETS[value % 3]


class ExplanationProperties(SynchronousTestCase):
    """What `/explain` says is what happens to the next request."""

    @settings(max_examples=150, deadline=None)
    @given(configurations(), EVENTS, st.sets(st.integers(0, 24)))
    def test_explanations_agree_with_requests(
        self, configuration: Settings, events: Sequence[Event], unexplained: set[int]
    ) -> None:
        """Requests are treated as explained, and as by a balancer that explains nothing."""
        world, silent = World(configuration), World(configuration)
        try:
            for number, event in enumerate(events):
                if number not in unexplained:
                    explanation = world.explain(Event("request", event.number, event.value))
                    again = world.explain(Event("request", event.number, event.value))
                    self.assertEqual(explanation, again)
                if event.kind != "request":
                    world.happen(event)
                    silent.happen(event)
                    continue
                overtaking = number not in unexplained and world.head_of_queue_is_retry(
                    explanation["pool"]
                )
                outcome = world.request(event)
                if number not in unexplained and not overtaking:
                    self.check(configuration, explanation, outcome)
                self.assertEqual(outcome, silent.request(event))
        finally:
            world.stop()
            silent.stop()

    def check(self, configuration: Settings, explanation: Any, outcome: tuple[str, Any]) -> None:
        """Compare an explanation with the outcome of the request."""
        kind, value = outcome
        refusing = [limit for limit in explanation["limits"] if limit["refuses"]]
        self.assertEqual(explanation["answer"], value if kind == "status" else None)
        if explanation["answer"] != 403:
            self.assertEqual(bool(refusing), explanation["answer"] in (429, 430))
        for limit in explanation["limits"]:
            self.assertEqual(limit["retry_after"] > 0, limit["remaining"] == 0, limit)
        reasons = [candidate["reason"] for candidate in explanation["candidates"]]
        if kind == "queued":
            self.assertEqual(value, explanation["pool"])
            # All servers may have been drained since the queue formed.
            candidates = [reason for reason in reasons if not reason.startswith("not a candidate")]
            for reason in candidates[:1]:
                self.assertTrue(reason.startswith("request queued"), reasons)
        elif kind == "server":
            pool, server = value
            self.assertEqual(pool, explanation["pool"])
            names = [
                candidate["server"]
                for candidate in explanation["candidates"]
                if not candidate["reason"].startswith("not a candidate")
            ]
            algorithms = {settings.name: settings.algorithm for settings in configuration.pools}
            if algorithms[pool] in RANDOM_ALGORITHMS:
                self.assertIn(server, names)
            else:
                self.assertEqual(server, names[0], reasons)
