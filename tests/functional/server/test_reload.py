"""Settings that change while the balancer runs: what is touched, and what is not."""

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
    return ServerSettings(TcpAddress(f"10.0.0.{number}", 80), **fields)


APP = PoolSettings("app", (server(1),))
WEB = FrontendSettings("web", bind=(), pool="app")
SETTINGS = Settings((WEB,), (APP,))


def with_pool(**fields: Any) -> Settings:
    return evolve(SETTINGS, pools=(evolve(APP, **fields),))


def with_frontend(**fields: Any) -> Settings:
    return evolve(SETTINGS, frontends=(evolve(WEB, **fields),))


class ReloadTestCase(SynchronousTestCase):
    """A balancer in memory whose settings change."""

    def setUp(self) -> None:
        self.use(SETTINGS)
        self.addCleanup(self.stop)

    def stop(self) -> None:
        self.balancer.stop()

    def begin(self, settings: Settings) -> None:
        self.stop()
        self.use(settings)

    def use(self, settings: Settings) -> None:
        self.balancer = MemoryBalancer.from_settings(settings)
        self.service = self.balancer.service

    def apply(self, settings: Settings) -> None:
        self.service.apply(settings)

    def pass_time(self, seconds: float = 3) -> None:
        for _ in range(round(seconds)):
            self.balancer.advance(1)
            self.balancer.finish_closing()

    def asking(self, host: str = "192.0.2.1") -> Peer:
        client = self.balancer.client(host)
        client.send(GET)
        return client

    def tunnel(self) -> tuple[Peer, Peer]:
        client = self.balancer.client()
        client.send(UPGRADE)
        end = self.balancer.accept()
        end.received()
        end.send(SWITCHED)
        client.received()
        return client, end

    def assert_joined(self, client: Peer, end: Peer) -> None:
        client.send(b"ping")
        self.assertEqual(end.received(), b"ping")
        end.send(b"pong")
        self.assertEqual(client.received(), b"pong")

    def addresses(self) -> list[str]:
        return [str(connector.address).partition(":")[0] for connector in self.balancer.connectors]


class UnchangedSettingsTests(ReloadTestCase):
    """The same settings again."""

    def test_is_touched(self) -> None:
        limits = (LimitSettings(2, 60.0, "fixed-window"),)
        settings = evolve(
            with_pool(active=HealthCheckSettings(), servers=(server(1), server(2))),
            frontends=(evolve(WEB, limits=limits),),
        )
        self.begin(settings)
        pool, site = self.service.default_pool, self.service.default_frontend.factory
        checker, servers = pool.checker, list(pool.server_set.servers)
        sweeps = list(self.service.ticker._sweeps)
        client = self.asking()
        servers[1].healthy = False
        pool.server_set.notify(servers[1])
        generation = pool.server_set.generation
        for _ in range(100):
            self.apply(evolve(settings))
        self.assertIs(self.service.default_pool, pool)
        self.assertIs(self.service.default_frontend.factory, site)
        self.assertIs(pool.checker, checker)
        self.assertEqual(pool.server_set.servers, servers)
        self.assertEqual(pool.server_set.generation, generation)
        self.assertFalse(servers[1].healthy)
        self.assertEqual(self.service.ticker._sweeps, sweeps)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertEqual(servers[0].total_requests, 1)
        statuses = [self.ask_again(client) for _ in range(2)]
        self.assertEqual(statuses, [b"200", b"429"])

    def ask_again(self, client: Peer) -> bytes:
        client.send(GET)
        answer = client.received()
        if not answer:
            self.balancer.peers[-1].send(OK)
            answer = client.received()
        return answer[9:12]

    def test_is_left_after_many_changes(self) -> None:
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
    """Those of a pool come, go and change."""

    def test_one_that_left_answers_what_it_was_asked(self) -> None:
        client = self.asking()
        old = self.balancer.accept()
        self.apply(with_pool(servers=(server(2),)))
        old.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.balancer.finish_closing()
        self.assertTrue(old.transport.closed)
        self.asking()
        self.assertEqual(self.addresses(), ["10.0.0.1", "10.0.0.2"])

    def test_one_that_left_while_it_was_connected_to(self) -> None:
        client = self.asking()
        self.apply(with_pool(servers=(server(2),)))
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())

    def test_one_that_came_is_tried_when_one_that_left_fails(self) -> None:
        client = self.asking()
        self.apply(with_pool(servers=(server(2),)))
        self.balancer.connectors[0].refuse()
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        self.assertEqual(self.addresses(), ["10.0.0.1", "10.0.0.2"])

    def test_order(self) -> None:
        self.apply(with_pool(servers=(server(2), server(3), server(1))))
        names = [one.name for one in self.balancer.servers]
        self.assertEqual(names, ["10.0.0.2:80", "10.0.0.3:80", "10.0.0.1:80"])

    def test_what_the_operator_set_stays(self) -> None:
        health = self.service.default_pool.health
        (one,) = self.balancer.servers
        health.set_weight(one, 7)
        health.set_admin_state(one, AdminState.DRAIN)
        registered = self.service.server_set.add(server(9, weight=3), ServerSource.REGISTERED)
        self.apply(with_pool(servers=(server(1, max_in_flight=3), server(2))))
        self.assertEqual((one.weight, one.admin_state), (7, AdminState.DRAIN))
        self.assertEqual(one.max_in_flight, 3)
        self.assertIn(registered, self.balancer.servers)
        self.apply(with_pool(servers=(server(1, weight=4), server(2))))
        self.assertEqual((one.weight, one.admin_state), (4, AdminState.DRAIN))

    def test_who_was_removed_by_the_operator_stays_away(self) -> None:
        both = with_pool(servers=(server(1), server(2)))
        self.apply(both)
        self.service.server_set.remove(self.balancer.servers[0])
        self.apply(evolve(both))
        self.assertEqual(len(self.balancer.servers), 1)
        self.apply(with_pool(servers=(server(1, weight=2), server(2))))
        self.assertEqual(len(self.balancer.servers), 2)

    def test_room_for_one_more_is_used(self) -> None:
        self.begin(with_pool(servers=(server(1, max_in_flight=1),)))
        first, second = self.asking(), self.asking()
        self.balancer.accept()
        self.assertEqual(len(self.balancer.connectors), 1)
        self.apply(with_pool(servers=(server(1, max_in_flight=2),)))
        self.pass_time(2)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", second.received())
        self.assertEqual(first.received(), b"")

    def test_who_waits_gets_the_new_server(self) -> None:
        self.begin(with_pool(servers=(server(1, max_in_flight=1),)))
        self.asking()
        second = self.asking()
        self.apply(with_pool(servers=(server(2),)))
        self.pass_time(2)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", second.received())
        self.assertEqual(self.addresses(), ["10.0.0.1", "10.0.0.2"])

    def test_a_connection_that_named_a_client_is_for_no_other(self) -> None:
        self.begin(with_pool(servers=(server(1, proxy_protocol=1),)))
        client = self.asking()
        end = self.balancer.accept()
        self.assertTrue(end.received().startswith(b"PROXY TCP4 192.0.2.1 "))
        self.apply(SETTINGS)
        end.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.asking("192.0.2.2")
        self.assertEqual(len(self.balancer.connectors), 2)

    def test_those_without_a_name_are_not_used_when_one_is_wanted(self) -> None:
        client = self.asking()
        end = self.balancer.accept()
        self.apply(with_pool(servers=(server(1, proxy_protocol=2),)))
        end.send(OK)
        self.assertIn(b"200 OK", client.received())
        self.balancer.finish_closing()
        self.assertTrue(end.transport.closed)


class PoolReloadTests(ReloadTestCase):
    """How servers are chosen, watched and waited for."""

    def test_any_algorithm_after_any_other_with_requests_in_flight(self) -> None:
        servers = (server(1), server(2), server(3))
        for before in ALGORITHMS:
            for after in ALGORITHMS:
                self.begin(with_pool(servers=servers, algorithm=before))
                old = [self.asking() for _ in range(4)]
                self.apply(with_pool(servers=servers, algorithm=after))
                new = [self.asking() for _ in range(4)]
                for number in range(8):
                    self.balancer.accept(number).send(OK)
                for client in (*old, *new):
                    self.assertIn(b"200 OK", client.received(), (before, after))
                self.assertEqual([one.in_flight for one in self.balancer.servers], [0] * 3)

    def test_load_counts_from_the_first(self) -> None:
        servers = (server(1), server(2))
        self.begin(with_pool(servers=servers))
        for _ in range(3):
            self.asking()
        self.apply(with_pool(servers=servers, algorithm="least-connections"))
        self.asking()
        self.assertEqual([one.in_flight for one in self.balancer.servers], [2, 2])

    def test_errors_are_counted_no_more_by_one_that_left(self) -> None:
        passive = OutlierDetectionSettings(error_ratio=0.5, min_requests=1)
        self.begin(with_pool(passive=passive))
        client = self.asking()
        end = self.balancer.accept()
        self.apply(with_pool(servers=(server(2),)))
        end.send(OK.replace(b"200 OK", b"500 Oh"))
        self.assertIn(b"500 Oh", client.received())

    def test_errors_are_counted_over_the_new_time(self) -> None:
        passive = OutlierDetectionSettings(error_ratio=0.5, window=10.0)
        self.begin(with_pool(passive=passive))
        self.apply(with_pool(passive=evolve(passive, window=20.0)))
        counts = self.balancer.servers[0].error_rate_window
        assert counts is not None
        self.assertEqual(counts.window, 20.0)

    def test_history_outlives_other_checks(self) -> None:
        self.begin(with_pool(servers=(server(1), server(2))))
        self.asking()
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

    def test_without_checks_nobody_is_down_for_them(self) -> None:
        self.begin(with_pool(active=HealthCheckSettings(fall=1)))
        pool = self.service.default_pool
        (one,) = self.balancer.servers
        pool.health.check_finished(one, False, "it is on fire")
        self.assertEqual(one.status, "down")
        self.apply(with_pool(active=HealthCheckSettings(fall=1, interval=5.0)))
        self.assertEqual(one.status, "down")
        self.apply(SETTINGS)
        self.assertEqual(one.status, "up")
        self.assertIsNone(pool.checker)

    def test_time_limits_and_how_often_they_are_looked_at(self) -> None:
        client = self.asking()
        self.apply(with_pool(timeouts=PoolTimeouts(connect=0.4)))
        self.assertEqual(self.service.ticker.interval, 0.1)
        self.balancer.advance(0.7)
        self.assertIn(b" 504 ", client.received())

    def test_time_passes_however_often_limits_change(self) -> None:
        client = self.asking()
        for number in range(40):
            timeouts = PoolTimeouts(connect=3.0 + number % 2 / 10)
            self.apply(with_pool(timeouts=timeouts))
            self.balancer.advance(0.1)
        self.assertIn(b" 504 ", client.received())

    def test_waiting(self) -> None:
        one = (server(1, max_in_flight=1),)
        self.begin(with_pool(servers=one))
        self.asking()
        second = self.asking()
        self.apply(with_pool(servers=one, queue=QueueSettings(limit=0, timeout=1.0)))
        third = self.asking()
        self.assertIn(b" 503 ", third.received())
        self.pass_time(2)
        self.assertIn(b" 503 ", second.received())

    def test_slow_start_that_is_over_at_once(self) -> None:
        self.begin(with_pool(slow_start=100.0))
        (one,) = self.balancer.servers
        health = self.service.default_pool.health
        health.set_admin_state(one, AdminState.MAINTENANCE)
        health.set_admin_state(one, AdminState.READY)
        self.pass_time(1)
        self.assertLess(one.effective_weight, 1.0)
        self.apply(SETTINGS)
        self.pass_time(1)
        self.assertEqual(one.effective_weight, 1.0)


class RouteReloadTests(ReloadTestCase):
    """Frontends and pools come, go, and are called something else."""

    RENAMED = Settings((evolve(WEB, name="new", pool="new"),), (evolve(APP, name="new"),))

    def test_all_that_is_in_progress_goes_on(self) -> None:
        tunnel = self.tunnel()
        flying, uploading, connecting = self.asking(), self.balancer.client(), None
        flying_end = self.balancer.accept()
        uploading.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        upload_end = self.balancer.accept()
        connecting = self.asking()
        self.apply(self.RENAMED)
        self.pass_time(4)
        self.assert_joined(*tunnel)
        uploading.send(b"def")
        self.assertTrue(upload_end.received().endswith(b"abcdef"))
        for end in (flying_end, upload_end, self.balancer.accept()):
            end.send(OK)
        for client in (flying, uploading, connecting):
            self.assertIn(b"200 OK", client.received())
        self.pass_time()
        self.assertEqual(len(self.service.retired), 2)
        self.assert_joined(*tunnel)
        tunnel[0].reset()
        self.balancer.finish_closing()
        self.pass_time()
        self.assertEqual(list(self.service.retired), [])

    def test_who_asks_once_more_where_there_is_nothing_any_more(self) -> None:
        client = self.asking()
        self.balancer.accept().send(OK)
        client.received()
        fresh = self.balancer.client()
        self.apply(self.RENAMED)
        self.balancer.finish_closing()
        self.balancer.advance(0.5)
        for one in (client, fresh):
            one.send(GET)
            self.balancer.accept().send(OK)
            self.assertIn(b"200 OK", one.received())

    def test_a_pool_is_kept_for_those_who_may_still_ask(self) -> None:
        slow = self.balancer.client()
        slow.send(GET[:10])
        self.apply(self.RENAMED)
        self.pass_time(4)
        slow.send(GET[10:])
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", slow.received())
        self.pass_time()
        self.assertEqual(list(self.service.retired), [])

    def test_who_waits_in_a_pool_that_left(self) -> None:
        self.begin(with_pool(servers=(server(1, max_in_flight=1),)))
        first, second = self.asking(), self.asking()
        end = self.balancer.accept()
        self.apply(self.RENAMED)
        end.send(OK)
        self.assertIn(b"200 OK", first.received())
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", second.received())

    def test_another_mode(self) -> None:
        tunnel, flying = self.tunnel(), self.asking()
        health = self.service.default_pool.health
        self.service.server_set.add(server(9), ServerSource.REGISTERED)
        health.set_weight(self.balancer.servers[0], 5)
        health.set_admin_state(self.balancer.servers[1], AdminState.DRAIN)
        self.apply(with_frontend(mode="tcp"))
        one, registered = self.balancer.servers
        self.assertEqual((one.weight, registered.admin_state), (5, AdminState.DRAIN))
        self.assertIs(registered.source, ServerSource.REGISTERED)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", flying.received())
        link = self.balancer.client()
        end = self.balancer.accept()
        self.apply(SETTINGS)
        self.pass_time()
        self.assert_joined(*tunnel)
        self.assert_joined(link, end)
        for client in (tunnel[0], link):
            client.reset()
            self.balancer.finish_closing()
        self.pass_time()
        self.assertEqual(list(self.service.retired), [])

    def test_routes(self) -> None:
        api = PoolSettings("api", (server(5),))
        client = self.balancer.client()
        client.send(GET[:12])
        routes = (RouteSettings("api", host="example.org"),)
        settings = evolve(with_frontend(routes=routes), pools=(APP, api))
        self.apply(settings)
        client.send(GET[12:])
        self.assertEqual(self.addresses(), ["10.0.0.5"])
        self.apply(SETTINGS)
        self.balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        client.send(GET)
        self.assertEqual(self.addresses(), ["10.0.0.5", "10.0.0.1"])

    def test_open_connections_hear_of_proxies(self) -> None:
        client = self.balancer.client()
        request = GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n")
        seen: list[bool] = []
        for trusted in ((), ("192.0.2.0/24",), ()):
            self.apply(with_frontend(trusted_proxies=trusted, routes=()))
            client.send(request.replace(b"\r\n\r\n", b"\r\nX-Forwarded-Proto: https\r\n\r\n"))
            if not seen:
                end = self.balancer.accept()
            seen.append(b"X-Forwarded-Proto: https" in end.received())
            end.send(OK)
            client.received()
        self.assertEqual(seen, [False, True, False])

    def test_clients_time_limits(self) -> None:
        client = self.balancer.client()
        client.send(GET[:10])
        self.apply(with_frontend(timeouts=FrontendTimeouts(header=1.0)))
        self.pass_time(2)
        self.assertIn(b" 408 ", client.received())


class LimitReloadTests(ReloadTestCase):
    """Those that did not change know what they knew."""

    LIMIT = LimitSettings(1, 60.0, "fixed-window")

    def ask(self) -> bytes:
        client = self.asking()
        answer = client.received()
        if not answer:
            busy = [peer for peer in self.balancer.peers if peer.received()]
            end = busy[-1] if busy else self.balancer.accept()
            end.send(OK)
            answer = client.received()
        return answer[9:12]

    def test_unchanged_moved_and_changed(self) -> None:
        other = LimitSettings(100, 60.0)
        self.begin(with_frontend(limits=(self.LIMIT,)))
        self.assertEqual([self.ask(), self.ask()], [b"200", b"429"])
        self.apply(with_frontend(limits=(other, self.LIMIT), max_body=5))
        self.assertEqual(self.ask(), b"429")
        self.apply(with_pool(limits=(self.LIMIT,)))
        self.assertEqual([self.ask(), self.ask()], [b"200", b"429"])
        self.apply(with_pool(limits=(evolve(self.LIMIT, requests=2),)))
        self.assertEqual([self.ask(), self.ask(), self.ask()], [b"200", b"200", b"429"])

    def test_a_route_keeps_its_limits_when_others_come_before_it(self) -> None:
        route = RouteSettings("app", path="/", limits=(self.LIMIT,))
        self.begin(with_frontend(routes=(route,)))
        self.assertEqual([self.ask(), self.ask()], [b"200", b"429"])
        first = RouteSettings("app", host="elsewhere.example")
        self.apply(with_frontend(routes=(first, route)))
        self.assertEqual(self.ask(), b"429")

    def test_places_are_given_back_where_they_were_taken(self) -> None:
        limit = LimitSettings(1, algorithm="concurrent")
        self.begin(with_frontend(limits=(limit,)))
        client = self.asking()
        end = self.balancer.accept()
        self.apply(with_frontend(limits=(limit, LimitSettings(50))))
        self.assertIn(b" 429 ", self.asking().received())
        end.send(OK)
        client.received()
        self.assertEqual(self.ask(), b"200")


class ReloadPropertyTests(SynchronousTestCase):
    """Whatever happens, and however the settings change meanwhile."""

    LIMIT = LimitSettings(12, 1000.0, "fixed-window", name="kept")

    @given(st.data())
    @hypothesis_settings(max_examples=60, deadline=None)
    def test_every_request_is_answered_once(self, data: st.DataObject) -> None:
        ReloadSimulation(data.draw, self.LIMIT).run(self)


POOL = st.builds(
    evolve,
    st.just(APP),
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
NAMES = st.sampled_from(["app", "other"])


class ReloadSimulation:
    """Clients that ask once each, servers that answer or fail, and an operator."""

    def __init__(self, draw: Callable[[Any], Any], kept: LimitSettings) -> None:
        self.draw = draw
        self.kept = kept
        self.balancer = MemoryBalancer.from_settings(self.settings())
        self.clients: list[tuple[Peer, bool]] = []
        self.answers: dict[int, bytes] = {}

    def settings(self) -> Settings:
        pool, route = self.draw(POOL), self.draw(st.booleans())
        name = self.draw(NAMES)
        # Always the same frontend, so that its limit has to stay.
        web = evolve(WEB, pool=name, limits=(self.kept,))
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
        steps: Sequence[Callable[[], None]] = (
            self.ask,
            self.ask,
            self.change,
            self.change,
            self.respond,
            self.respond,
            self.fail,
            self.wait,
            self.leave,
        )
        for step in self.draw(st.lists(st.sampled_from(steps), max_size=40)):
            step()
            self.balancer.finish_closing()
            self.collect()
        for _ in range(12):
            for _ in range(20):
                self.respond()
            self.wait()
        self.collect()
        asked = [number for number, (_, left) in enumerate(self.clients) if not left]
        for number in asked:
            answer = self.answers.get(number, b"")
            case.assertEqual(answer.count(b"HTTP/1.1 "), 1, answer)
            case.assertIn(answer[9:12], (b"200", b"429", b"502", b"503", b"504"))
        (limit,) = self.balancer.service.limiter.scopes["frontend web"]
        case.assertEqual(limit.rejected, max(0, len(self.clients) - self.kept.requests))
        service = self.balancer.service
        case.assertEqual(list(service.retired), [])
        for pool in service.pools.values():
            for one in pool.server_set.servers:
                case.assertEqual(one.in_flight, 0)
        for scope in service.limiter.scopes.values():
            for one_limit in scope:
                if one_limit.concurrent:
                    case.assertEqual(len(one_limit.limiter), 0)
        self.balancer.stop()

    def ask(self) -> None:
        client = self.balancer.client()
        client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        self.clients.append((client, False))

    def change(self) -> None:
        self.balancer.service.apply(self.settings())

    def ends(self) -> list[Peer]:
        """Servers that have been asked."""
        known = [peer for peer, _ in self.clients]
        return [
            peer
            for peer in self.balancer.peers
            if not any(peer is one for one in known)
            and not peer.transport.closing
            and not peer.transport.closed
            and b"GET /" in peer.transport._written
        ]

    def connecting(self) -> list[Any]:
        return [one for one in self.balancer.connectors if one.state == "connecting"]

    def respond(self) -> None:
        for connector in self.connecting()[:1]:
            self.balancer._add_peer(connector.accept())
        for end in self.ends()[:1]:
            end.received()
            end.send(OK)
        self.balancer.finish_closing()

    def fail(self) -> None:
        for connector in self.connecting()[:1]:
            connector.refuse()
        for end in self.ends()[-1:]:
            end.reset()

    def leave(self) -> None:
        for number, (client, left) in enumerate(self.clients):
            if not left and number not in self.answers and not client.transport.closed:
                self.clients[number] = (client, True)
                client.reset()
                return

    def wait(self) -> None:
        self.balancer.advance(0.5)
        self.balancer.finish_closing()

    def collect(self) -> None:
        for number, (client, _) in enumerate(self.clients):
            answer = client.transport.read()
            if answer:
                self.answers[number] = self.answers.get(number, b"") + answer
