"""Reloads: settings that change while the balancer runs, and what they leave untouched."""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.registry import ALGORITHMS
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AdminState,
    FrontendSettings,
    FrontendTimeouts,
    HealthCheckSettings,
    LimitSettings,
    OutlierDetectionSettings,
    PoolSettings,
    PoolTimeouts,
    QueueSettings,
    RetrySettings,
    RouteSettings,
    ServerSettings,
    ServerSource,
    Settings,
)
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"


def server(number: int, **fields: Any) -> ServerSettings:
    """The settings of the server 10.0.0.NUMBER."""
    return ServerSettings(TcpAddress(f"10.0.0.{number}", 80), **fields)


APP = PoolSettings("app", (server(1),))
WEB = FrontendSettings("web", bind=(), pool="app")
SETTINGS = Settings((WEB,), (APP,))


def with_pool(**fields: Any) -> Settings:
    """`SETTINGS` with a changed pool."""
    return evolve(SETTINGS, pools=(evolve(APP, **fields),))


def with_frontend(**fields: Any) -> Settings:
    """`SETTINGS` with a changed frontend."""
    return evolve(SETTINGS, frontends=(evolve(WEB, **fields),))


class ReloadTestCase(SynchronousTestCase):
    """A balancer in memory, and helpers that change its settings."""

    def setUp(self) -> None:
        self.start(SETTINGS)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop the balancer."""
        self.balancer.stop()

    def restart(self, settings: Settings) -> None:
        """Stop the balancer and start another one."""
        self.stop()
        self.start(settings)

    def start(self, settings: Settings) -> None:
        """Start a balancer."""
        self.balancer = MemoryBalancer.from_settings(settings)
        self.service = self.balancer.service

    def apply(self, settings: Settings) -> None:
        """Change the settings."""
        self.service.apply(settings)

    def pass_time(self, seconds: float = 3) -> None:
        """Advance the clock, and carry out the closes that the balancer has requested."""
        for _ in range(round(seconds)):
            self.balancer.advance(1)
            self.balancer.finish_closing()

    def send_request(self, host: str = "192.0.2.1") -> Peer:
        """A new client that has sent a request."""
        client = self.balancer.client(host)
        client.send(GET)
        return client

    def tunnel(self) -> tuple[Peer, Peer]:
        """A client and a server with a tunnel between them."""
        client = self.balancer.client()
        client.send(UPGRADE)
        server_end = self.balancer.accept()
        server_end.received()
        server_end.send(SWITCHED)
        client.received()
        return client, server_end

    def assert_relayed(self, client: Peer, server_end: Peer) -> None:
        """A tunnel relays data both ways."""
        client.send(b"ping")
        self.assertEqual(server_end.received(), b"ping")
        server_end.send(b"pong")
        self.assertEqual(client.received(), b"pong")

    def connect_addresses(self) -> list[str]:
        """The IP address of every connect attempt, in order."""
        return [str(connector.address).partition(":")[0] for connector in self.balancer.connectors]


class UnchangedSettingsTests(ReloadTestCase):
    """The same settings again, and settings that return."""

    def test_unchanged_settings_touch_nothing(self) -> None:
        """
        The same settings again keep services, servers, health, sweeps and rate limit counters.
        """
        limits = (LimitSettings(2, 60.0, "fixed-window"),)
        settings = evolve(
            with_pool(active=HealthCheckSettings(), servers=(server(1), server(2))),
            frontends=(evolve(WEB, limits=limits),),
        )
        self.restart(settings)
        pool, factory = self.service.default_pool, self.service.default_frontend.factory
        checker, servers = pool.checker, list(pool.server_set.servers)
        sweeps = list(self.service.ticker._sweeps)
        client = self.send_request()
        servers[1].healthy = False
        pool.server_set.notify(servers[1])
        generation = pool.server_set.generation
        for _ in range(100):
            self.apply(evolve(settings))
        self.assertIs(self.service.default_pool, pool)
        self.assertIs(self.service.default_frontend.factory, factory)
        self.assertIs(pool.checker, checker)
        self.assertEqual(pool.server_set.servers, servers)
        self.assertEqual(pool.server_set.generation, generation)
        self.assertFalse(servers[1].healthy)
        self.assertEqual(self.service.ticker._sweeps, sweeps)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertEqual(servers[0].total_requests, 1)
        statuses = [self.status_of_next(client) for _ in range(2)]
        self.assertEqual(statuses, [b"200", b"429"])

    def status_of_next(self, client: Peer) -> bytes:
        """The status of the next response to `client`."""
        client.send(GET)
        response = client.received()
        if not response:
            self.balancer.peers[-1].send(OK)
            response = client.received()
        return response[9:12]

    def test_many_changes_leave_nothing_behind(self) -> None:
        """After many reloads, no service, sweep, subscriber or timer is left over."""
        other = Settings(
            (
                evolve(WEB, name="other", pool="else", mode="tcp"),
                evolve(WEB, name="third", pool="third"),
            ),
            (
                PoolSettings("else", (server(3),), active=HealthCheckSettings(path=None)),
                PoolSettings("third", (server(4),), algorithm="least-connections"),
            ),
        )
        sweeps = len(self.service.ticker._sweeps)
        services = len(self.service.services)
        listeners = len(self.service.server_set._subscribers)
        for _ in range(100):
            self.apply(other)
            self.apply(SETTINGS)
        self.pass_time(2)
        self.assertEqual(list(self.service.retired), [])
        self.assertEqual(len(self.service.ticker._sweeps), sweeps)
        self.assertEqual(len(self.service.services), services)
        self.assertEqual(len(self.service.server_set._subscribers), listeners)
        self.assertEqual(len(self.balancer.clock.getDelayedCalls()), 1)


class ServerReloadTests(ReloadTestCase):
    """Servers of a pool that are added, removed and changed."""

    def test_removed_server_completes_its_request(self) -> None:
        """
        A removed server completes its request; its connection is closed, and it gets no other.
        """
        client = self.send_request()
        old = self.balancer.accept()
        self.apply(with_pool(servers=(server(2),)))
        old.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.balancer.finish_closing()
        self.assertTrue(old.transport.closed)
        self.send_request()
        self.assertEqual(self.connect_addresses(), ["10.0.0.1", "10.0.0.2"])

    def test_server_removed_while_connecting(self) -> None:
        """A connect attempt to a removed server is completed."""
        client = self.send_request()
        self.apply(with_pool(servers=(server(2),)))
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_retry_uses_an_added_server(self) -> None:
        """When a removed server fails, the request is retried on an added server."""
        client = self.send_request()
        self.apply(with_pool(servers=(server(2),)))
        self.balancer.connectors[0].refuse()
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertEqual(self.connect_addresses(), ["10.0.0.1", "10.0.0.2"])

    def test_order(self) -> None:
        """Servers have the order of the new settings."""
        self.apply(with_pool(servers=(server(2), server(3), server(1))))
        names = [server.name for server in self.balancer.servers]
        self.assertEqual(names, ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"])

    def test_runtime_changes_stay(self) -> None:
        """
        Weights and admin states set at run time, and registered servers, stay, unless the file
        changed that value.
        """
        health = self.service.default_pool.health
        (existing,) = self.balancer.servers
        health.set_weight(existing, 7)
        health.set_admin_state(existing, AdminState.DRAIN)
        registered = self.service.server_set.add(server(9, weight=3), ServerSource.REGISTERED)
        self.apply(with_pool(servers=(server(1, max_in_flight=3), server(2))))
        self.assertEqual((existing.weight, existing.admin_state), (7, AdminState.DRAIN))
        self.assertEqual(existing.max_in_flight, 3)
        self.assertIn(registered, self.balancer.servers)
        self.apply(with_pool(servers=(server(1, weight=4), server(2))))
        self.assertEqual((existing.weight, existing.admin_state), (4, AdminState.DRAIN))

    def test_server_removed_by_an_administrator(self) -> None:
        """A server that an administrator has removed returns only when its settings change."""
        both = with_pool(servers=(server(1), server(2)))
        self.apply(both)
        self.service.server_set.remove(self.balancer.servers[0])
        self.apply(evolve(both))
        self.assertEqual(len(self.balancer.servers), 1)
        self.apply(with_pool(servers=(server(1, weight=2), server(2))))
        self.assertEqual(len(self.balancer.servers), 2)

    def test_higher_max_in_flight_serves_the_queue(self) -> None:
        """A higher `max_in_flight` lets a queued request continue."""
        self.restart(with_pool(servers=(server(1, max_in_flight=1),)))
        first, second = self.send_request(), self.send_request()
        self.balancer.accept()
        self.assertEqual(len(self.balancer.connectors), 1)
        self.apply(with_pool(servers=(server(1, max_in_flight=2),)))
        self.pass_time(2)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", second.received())
        self.assertEqual(first.received(), b"")

    def test_queued_request_uses_an_added_server(self) -> None:
        """A queued request is sent to a server that the reload has added."""
        self.restart(with_pool(servers=(server(1, max_in_flight=1),)))
        self.send_request()
        second = self.send_request()
        self.apply(with_pool(servers=(server(2),)))
        self.pass_time(2)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", second.received())
        self.assertEqual(self.connect_addresses(), ["10.0.0.1", "10.0.0.2"])

    def test_connection_with_proxy_header_is_not_reused(self) -> None:
        """
        A connection whose PROXY header named one client is not reused when the header is
        disabled.
        """
        self.restart(with_pool(servers=(server(1, proxy_protocol=1),)))
        client = self.send_request()
        server_end = self.balancer.accept()
        self.assertTrue(server_end.received().startswith(b"PROXY TCP4 192.0.2.1 "))
        self.apply(SETTINGS)
        server_end.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.send_request("192.0.2.2")
        self.assertEqual(len(self.balancer.connectors), 2)

    def test_connection_without_proxy_header_is_not_reused(self) -> None:
        """A connection without a PROXY header is closed when the header is enabled."""
        client = self.send_request()
        server_end = self.balancer.accept()
        self.apply(with_pool(servers=(server(1, proxy_protocol=2),)))
        server_end.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.balancer.finish_closing()
        self.assertTrue(server_end.transport.closed)


class PoolReloadTests(ReloadTestCase):
    """Load balancing, health, timeouts and the queue of a pool."""

    def test_every_change_of_algorithm(self) -> None:
        """Every algorithm can replace every other with requests in flight."""
        servers = (server(1), server(2), server(3))
        for before in ALGORITHMS:
            for after in ALGORITHMS:
                self.restart(with_pool(servers=servers, algorithm=before))
                old = [self.send_request() for _ in range(4)]
                self.apply(with_pool(servers=servers, algorithm=after))
                new = [self.send_request() for _ in range(4)]
                for number in range(8):
                    self.balancer.accept(number).send(OK)
                for client in (*old, *new):
                    self.assertIn(b"200 OK", client.received(), (before, after))
                self.assertEqual([server.in_flight for server in self.balancer.servers], [0] * 3)

    def test_load_is_known_to_a_new_algorithm(self) -> None:
        """A load-based algorithm counts the requests that started before the reload."""
        servers = (server(1), server(2))
        self.restart(with_pool(servers=servers))
        for _ in range(3):
            self.send_request()
        self.apply(with_pool(servers=servers, algorithm="least-connections"))
        self.send_request()
        self.assertEqual([server.in_flight for server in self.balancer.servers], [2, 2])

    def test_error_of_removed_server(self) -> None:
        """An error of a removed server is relayed."""
        passive = OutlierDetectionSettings(error_ratio=0.5, min_requests=1)
        self.restart(with_pool(passive=passive))
        client = self.send_request()
        server_end = self.balancer.accept()
        self.apply(with_pool(servers=(server(2),)))
        server_end.send(OK.replace(b"200 OK", b"500 Oh"))
        self.assertIn(b"500 Oh", client.received())

    def test_error_rate_window_changes(self) -> None:
        """The error rate is counted over the new window."""
        passive = OutlierDetectionSettings(error_ratio=0.5, window=10.0)
        self.restart(with_pool(passive=passive))
        self.apply(with_pool(passive=evolve(passive, window=20.0)))
        counts = self.balancer.servers[0].error_rate_window
        assert counts is not None
        self.assertEqual(counts.window, 20.0)

    def test_ejection_survives_changed_thresholds(self) -> None:
        """An ejected server stays ejected when the thresholds change."""
        self.restart(with_pool(servers=(server(1), server(2))))
        self.send_request()
        self.balancer.connectors[0].refuse()
        first = self.balancer.servers[0]
        self.assertTrue(first.ejected)
        self.apply(
            with_pool(
                servers=(server(1), server(2)),
                passive=OutlierDetectionSettings(failures=5, cooldown=1.0),
                retries=RetrySettings(1),
            )
        )
        self.assertTrue(first.ejected)
        self.assertEqual(first.ejection.consecutive_failures, 1)

    def test_disabled_health_checks_clear_their_results(self) -> None:
        """Without active health checks, no server is down because of them."""
        self.restart(with_pool(active=HealthCheckSettings(fall=1)))
        pool = self.service.default_pool
        (existing,) = self.balancer.servers
        pool.health.check_finished(existing, False, "status 500")
        self.assertEqual(existing.status, "down")
        self.apply(with_pool(active=HealthCheckSettings(fall=1, interval=5.0)))
        self.assertEqual(existing.status, "down")
        self.apply(SETTINGS)
        self.assertEqual(existing.status, "up")
        self.assertIsNone(pool.checker)

    def test_protocol_of_servers(self) -> None:
        """The protocols of the pool and of its servers apply to new connections."""
        connections = self.service.pools["app"].connections
        (first,) = self.balancer.servers
        self.assertFalse(connections.uses_http2(first))
        self.apply(with_pool(protocol="h2"))
        self.assertTrue(connections.uses_http2(first))
        self.apply(with_pool(protocol="h2", servers=(server(1, protocol="http/1.1"),)))
        self.assertFalse(connections.uses_http2(first))

    def test_timeouts_and_sweep_interval(self) -> None:
        """
        A shorter timeout applies to connect attempts in progress, and shortens the sweep
        interval.
        """
        client = self.send_request()
        self.apply(with_pool(timeouts=PoolTimeouts(connect=1.0)))
        self.assertEqual(self.service.ticker.interval, 0.1)
        # The attempt may be younger than its timestamp, by a step of the old interval.
        self.balancer.advance(1.8)
        self.assertIn(b" 504 ", client.received())

    def test_frequent_reloads_do_not_stop_the_clock(self) -> None:
        """Timeouts expire even if every reload changes the sweep interval."""
        client = self.send_request()
        for number in range(44):
            timeouts = PoolTimeouts(connect=3.0 + number % 2 / 10)
            self.apply(with_pool(timeouts=timeouts))
            self.balancer.advance(0.1)
        self.assertIn(b" 504 ", client.received())

    def test_queue_settings(self) -> None:
        """A new queue limit and timeout apply to queued requests too."""
        servers = (server(1, max_in_flight=1),)
        self.restart(with_pool(servers=servers))
        self.send_request()
        second = self.send_request()
        self.apply(with_pool(servers=servers, queue=QueueSettings(limit=0, timeout=1.0)))
        third = self.send_request()
        self.assertIn(b" 503 ", third.received())
        self.pass_time(2)
        self.assertIn(b" 503 ", second.received())

    def test_disabled_slow_start(self) -> None:
        """Without slow start, the effective weight is the full weight."""
        self.restart(with_pool(slow_start=100.0))
        (existing,) = self.balancer.servers
        health = self.service.default_pool.health
        health.set_admin_state(existing, AdminState.MAINTENANCE)
        health.set_admin_state(existing, AdminState.READY)
        self.pass_time(1)
        self.assertLess(existing.effective_weight, 1.0)
        self.apply(SETTINGS)
        self.pass_time(1)
        self.assertEqual(existing.effective_weight, 1.0)


class RouteReloadTests(ReloadTestCase):
    """Frontends and pools that are added, removed and renamed."""

    RENAMED = Settings((evolve(WEB, name="new", pool="new"),), (evolve(APP, name="new"),))

    def test_everything_in_progress_continues(self) -> None:
        """
        Tunnels, requests, uploads and connect attempts of removed frontends and pools continue.
        """
        tunnel = self.tunnel()
        in_flight, uploading, connecting = self.send_request(), self.balancer.client(), None
        in_flight_server = self.balancer.accept()
        uploading.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        upload_server = self.balancer.accept()
        connecting = self.send_request()
        self.apply(self.RENAMED)
        self.pass_time(4)
        self.assert_relayed(*tunnel)
        uploading.send(b"def")
        self.assertTrue(upload_server.received().endswith(b"abcdef"))
        for server_end in (in_flight_server, upload_server, self.balancer.accept()):
            server_end.send(OK)
        for client in (in_flight, uploading, connecting):
            self.assertIn(b"200 OK", client.received())
        self.pass_time()
        self.assertEqual(len(self.service.retired), 2)
        self.assert_relayed(*tunnel)
        tunnel[0].reset()
        self.balancer.finish_closing()
        self.pass_time()
        self.assertEqual(list(self.service.retired), [])

    def test_request_on_a_retired_frontend(self) -> None:
        """Clients of a removed frontend may send another request."""
        client = self.send_request()
        self.balancer.accept().send(OK)
        client.received()
        fresh = self.balancer.client()
        self.apply(self.RENAMED)
        self.balancer.finish_closing()
        self.balancer.advance(0.5)
        for peer in (client, fresh):
            peer.send(GET)
            self.balancer.accept().send(OK)
            self.assertIn(b"200 OK", peer.received())

    def test_pool_of_a_connected_client_is_kept(self) -> None:
        """A removed pool runs until no client of its retired frontends is connected."""
        slow = self.balancer.client()
        slow.send(GET[:10])
        self.apply(self.RENAMED)
        self.pass_time(4)
        slow.send(GET[10:])
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", slow.received())
        self.pass_time()
        self.assertEqual(list(self.service.retired), [])

    def test_queued_request_of_a_removed_pool(self) -> None:
        """A request in the queue of a removed pool is served."""
        self.restart(with_pool(servers=(server(1, max_in_flight=1),)))
        first, second = self.send_request(), self.send_request()
        server_end = self.balancer.accept()
        self.apply(self.RENAMED)
        server_end.send(OK)
        self.assertIn(b"200 OK", first.received())
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", second.received())

    def test_changed_mode(self) -> None:
        """A changed mode keeps connections, registered servers, weights and admin states."""
        tunnel, in_flight = self.tunnel(), self.send_request()
        health = self.service.default_pool.health
        self.service.server_set.add(server(9), ServerSource.REGISTERED)
        health.set_weight(self.balancer.servers[0], 5)
        health.set_admin_state(self.balancer.servers[1], AdminState.DRAIN)
        self.apply(with_frontend(mode="tcp"))
        configured, registered = self.balancer.servers
        self.assertEqual((configured.weight, registered.admin_state), (5, AdminState.DRAIN))
        self.assertIs(registered.source, ServerSource.REGISTERED)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", in_flight.received())
        connection = self.balancer.client()
        server_end = self.balancer.accept()
        self.apply(SETTINGS)
        self.pass_time()
        self.assert_relayed(*tunnel)
        self.assert_relayed(connection, server_end)
        for client in (tunnel[0], connection):
            client.reset()
            self.balancer.finish_closing()
        self.pass_time()
        self.assertEqual(list(self.service.retired), [])

    def test_routes(self) -> None:
        """Routes apply to requests whose head is not complete yet."""
        api = PoolSettings("api", (server(5),))
        client = self.balancer.client()
        client.send(GET[:12])
        routes = (RouteSettings("api", host="example.org"),)
        settings = evolve(with_frontend(routes=routes), pools=(APP, api))
        self.apply(settings)
        client.send(GET[12:])
        self.assertEqual(self.connect_addresses(), ["10.0.0.5"])
        self.apply(SETTINGS)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        client.send(GET)
        self.assertEqual(self.connect_addresses(), ["10.0.0.5", "10.0.0.1"])

    def test_h2c(self) -> None:
        """A reload enables and disables HTTP/2 with prior knowledge."""
        context: Any = self.service.frontends["web"].factory.context
        self.assertFalse(context.h2c)
        self.apply(with_frontend(h2c=True))
        self.assertTrue(context.h2c)
        self.apply(SETTINGS)
        self.assertFalse(context.h2c)

    def test_trusted_proxies_apply_to_open_connections(self) -> None:
        """Trusted proxies apply to open client connections."""
        client = self.balancer.client()
        request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        seen: list[bool] = []
        for trusted in ((), ("192.0.2.0/24",), ()):
            self.apply(with_frontend(trusted_proxies=trusted, routes=()))
            client.send(request.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Proto: https\r\n\r\n"))
            if not seen:
                server_end = self.balancer.accept()
            seen.append(b"X-Forwarded-Proto: https" in server_end.received())
            server_end.send(OK)
            client.received()
        self.assertEqual(seen, [False, True, False])

    def test_client_timeouts_apply_to_open_connections(self) -> None:
        """A shorter header timeout applies to open client connections."""
        client = self.balancer.client()
        client.send(GET[:10])
        self.apply(with_frontend(timeouts=FrontendTimeouts(header=1.0)))
        self.pass_time(2)
        self.assertIn(b" 408 ", client.received())


class LimitReloadTests(ReloadTestCase):
    """Rate limits, and their counters."""

    LIMIT = LimitSettings(1, 60.0, "fixed-window")

    def request_status(self) -> bytes:
        """The status of the response to a new client."""
        client = self.send_request()
        response = client.received()
        if not response:
            busy = [peer for peer in self.balancer.peers if peer.received()]
            server_end = busy[-1] if busy else self.balancer.accept()
            server_end.send(OK)
            response = client.received()
        return response[9:12]

    def test_unchanged_moved_and_changed_limits(self) -> None:
        """A limit keeps its counters unless its scope or its settings change."""
        other = LimitSettings(100, 60.0)
        self.restart(with_frontend(limits=(self.LIMIT,)))
        self.assertEqual([self.request_status(), self.request_status()], [b"200", b"429"])
        self.apply(with_frontend(limits=(other, self.LIMIT), max_body=5))
        self.assertEqual(self.request_status(), b"429")
        self.apply(with_pool(limits=(self.LIMIT,)))
        self.assertEqual([self.request_status(), self.request_status()], [b"200", b"429"])
        self.apply(with_pool(limits=(evolve(self.LIMIT, requests=2),)))
        self.assertEqual(
            [self.request_status(), self.request_status(), self.request_status()],
            [b"200", b"200", b"429"],
        )

    def test_route_added_before_another(self) -> None:
        """A route keeps its counters when another route is added before it."""
        route = RouteSettings("app", path="/", limits=(self.LIMIT,))
        self.restart(with_frontend(routes=(route,)))
        self.assertEqual([self.request_status(), self.request_status()], [b"200", b"429"])
        first = RouteSettings("app", host="elsewhere.example")
        self.apply(with_frontend(routes=(first, route)))
        self.assertEqual(self.request_status(), b"429")

    def test_permits_are_released(self) -> None:
        """A permit of a concurrency limit is released to that limit after a reload."""
        limit = LimitSettings(1, algorithm="concurrent")
        self.restart(with_frontend(limits=(limit,)))
        client = self.send_request()
        server_end = self.balancer.accept()
        self.apply(with_frontend(limits=(limit, LimitSettings(50))))
        self.assertIn(b" 429 ", self.send_request().received())
        server_end.send(OK)
        client.received()
        self.assertEqual(self.request_status(), b"200")
