"""What the operator can see and change: each row of the table."""

from __future__ import annotations

import gc
import json
from typing import Any

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.api import ROUTES, match_route
from balancebeam.config.diff import diff_settings
from balancebeam.core.addresses import TcpAddress, UnixAddress
from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import (
    AdminSettings,
    AdminState,
    FrontendSettings,
    HealthCheckSettings,
    PoolSettings,
    SecretSource,
    ServerSettings,
    ServerSource,
    Settings,
)
from tests.helpers.admin import HOST_HEADER, JSON_HEADER, MemoryAdmin, Response, parse_responses
from tests.helpers.memory import GET, OK

NEW = "10.9.9.9:80"


def server(host: str) -> ServerSettings:
    return ServerSettings(TcpAddress(host, 80))


# Two pools over HTTP, of which one has a path to ask for, and one over TCP.
THREE = Settings(
    (
        FrontendSettings(name="web", bind=(), pool="app"),
        FrontendSettings(name="db", bind=(), pool="db", mode="tcp"),
    ),
    (
        PoolSettings(name="app", servers=(server("10.0.0.1"), server("10.0.0.2"))),
        PoolSettings(
            name="api",
            servers=(ServerSettings(UnixAddress("/run/a b.sock")),),
            active=HealthCheckSettings(path="/ok", interval=8.0, timeout=1.0, status=(200, 499)),
        ),
        PoolSettings(name="db", servers=(server("10.0.0.4"),)),
    ),
)


class ApiTestCase(SynchronousTestCase):
    """The admin listener in memory, with three pools."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin(THREE)
        self.service = self.admin.balancer.service
        self.addCleanup(self.admin.stop)
        self.saved = 0
        self.service.save = self._save  # type: ignore[method-assign]

    def _save(self) -> Any:
        self.saved += 1
        return type(self.service).save(self.service)

    def ask(self, method: str, path: str, body: Any = None) -> Response:
        return self.admin.request(method, path, body)

    def one(self, address: str, pool: str = "app") -> Any:
        return self.ask("GET", f"/upstreams/{pool}/{address}").data


class EndpointTests(ApiTestCase):
    """Paths and methods."""

    def test_what_is_not_there(self) -> None:
        for path in (
            *(
                "/nothing",
                "//upstreams",
                "/upstreams/",
                "/./upstreams",
                "/%75pstreams",
                "/upstreams//",
            ),
            *(
                "/Upstreams",
                "/register/",
                "/healthz/x",
                "/" + "a" * 10000,
                "*",
                "x",
                "/upstreams/app/",
            ),
        ):
            self.assertEqual(self.ask("GET", path).error, "there is nothing here", path)

    def test_a_query_is_not_looked_at(self) -> None:
        self.assertEqual(self.ask("GET", "/healthz?x=%zz&y").data, "alive")

    def test_other_methods(self) -> None:
        for pattern, methods in ROUTES.items():
            path = pattern.format(pool="app", address="10.0.0.1:80")
            allowed = {*methods, *(("HEAD",) if "GET" in methods else ())}
            for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
                if method not in allowed:
                    reply = self.ask(method, path)
                    self.assertEqual(reply.status, 405, (method, path))
                    found = {one.strip().decode() for one in reply.fields[b"allow"].split(b",")}
                    self.assertEqual(found, allowed)
                    self.assertTrue(reply.error)
        self.assertEqual(self.ask("A" * 5000, "/").status, 405)

    def test_head(self) -> None:
        for path in ("/", "/upstreams", "/healthz", "/readyz", "/metrics", "/config"):
            got, head = self.ask("GET", path), self.ask("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""), path)
            self.assertEqual(head.fields[b"length-of-get"], b"%d" % len(got.body))
        self.assertEqual(self.ask("HEAD", "/register").status, 405)

    def test_fields_of_all_answers(self) -> None:
        for path in ("/", "/upstreams", "/metrics", "/nothing", "/config", "/openapi.json"):
            reply = self.ask("GET", path)
            self.assertEqual(reply.fields[b"cache-control"], b"no-store")
            self.assertEqual(reply.fields[b"x-content-type-options"], b"nosniff")
            self.assertIn(b"date", reply.fields)
            self.assertNotIn(b"server", reply.fields)

    def test_addresses_in_paths(self) -> None:
        names = match_route("/upstreams/app/unix:/a/b")
        assert names is not None
        self.assertEqual(names[1], {"pool": "app", "address": "unix:/a/b"})
        for path in (
            *("/upstreams/app/10.0.0.1:80", "/upstreams/app/http://10.0.0.1:80"),
            *("/upstreams/app/http:%2F%2F10.0.0.1", "/upstreams/%61pp/10.0.0.1%3A80"),
            *("/upstreams/api/unix:/run/a%20b.sock", "/upstreams/api/unix:%2Frun%2Fa%20b.sock"),
        ):
            self.assertEqual(self.ask("GET", path).status, 200, path)

    def test_addresses_that_are_not_there(self) -> None:
        for address in (
            *("10.0.0.9:80", "10.0.0.1:81", "x", "%00", "%ff", "%ED%A0%80", "../app", "unix:/x"),
            *(
                "unix:x",
                "https://10.0.0.1:80",
                "http://10.0.0.1:80/x",
                "10.0.0.1:80%0aX",
                "[::1]:9",
            ),
        ):
            for method, body in (("GET", None), ("PATCH", {"weight": 1}), ("DELETE", None)):
                reply = self.ask(method, f"/upstreams/app/{address}", body)
                self.assertEqual(reply.status, 404, address)
                self.assertTrue(reply.error)
            self.assertEqual(self.ask("GET", f"/upstreams/{address.split('/')[0]}").status, 404)

    def test_the_page(self) -> None:
        reply = self.ask("GET", "/")
        self.assertEqual(reply.fields[b"content-type"], b"text/html; charset=utf-8")
        policy = reply.fields[b"content-security-policy"]
        for part in (b"default-src 'none'", b"frame-ancestors 'none'", b"form-action 'none'"):
            self.assertIn(part, policy)
        self.assertNotIn(b"innerHTML", reply.body)
        self.assertNotIn(b"http://", reply.body)

    def test_metrics(self) -> None:
        reply = self.ask("GET", "/metrics")
        self.assertEqual(reply.status, 200)
        self.assertTrue(reply.fields[b"content-type"].startswith(b"text/plain; version=0.0.4"))

    def test_pipelined(self) -> None:
        client = self.admin.connect()
        one = b"GET /healthz HTTP/1.1\r\n" + HOST_HEADER + b"\r\n"
        register = (
            b"POST /register HTTP/1.1\r\n"
            + HOST_HEADER
            + JSON_HEADER
            + b"Content-Length: 26\r\n\r\n"
        )
        client.send(one * 300 + register + b'{"address": "10.9.9.9:80"}' + one * 2)
        self.assertEqual(
            [reply.status for reply in parse_responses(client.received())], [200] * 300
        )
        self.admin.pass_check()
        replies = parse_responses(client.received())
        self.assertEqual([reply.status for reply in replies], [200] * 3)
        self.assertEqual(replies[0].data["server"], "10.9.9.9:80")

    def test_a_mistake_of_ours(self) -> None:
        self.service.not_ready_reason = lambda: 1 / 0  # type: ignore[assignment, return-value]
        reply = self.ask("GET", "/readyz")
        self.assertEqual((reply.status, "division" in reply.error), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class QueryTests(ApiTestCase):
    """`GET /upstreams`, `/readyz` and `/config`."""

    def test_all_servers(self) -> None:
        found = self.ask("GET", "/upstreams").data
        self.assertEqual(
            [(one["pool"], one["address"], one["weight"]) for one in found],
            [
                ("app", "10.0.0.1:80", 1),
                ("app", "10.0.0.2:80", 1),
                ("api", "unix:/run/a b.sock", 1),
                ("db", "10.0.0.4:80", 1),
            ],
        )
        self.assertEqual(
            found[0],
            {
                "pool": "app",
                "address": "10.0.0.1:80",
                "weight": 1,
                "state": "up",
                "reason": "",
                "since": None,
                "in_flight": 0,
                "requests": 0,
                "failures": 0,
                "backup": False,
                "source": "configured",
                "last_check": None,
            },
        )
        self.assertEqual(self.ask("GET", "/upstreams/app").data, found[:2])
        self.assertEqual(self.ask("GET", "/upstreams/nope").status, 404)

    def test_totals_and_what_is_in_flight(self) -> None:
        balancer = self.admin.balancer
        balancer.advance(5)
        balancer.client().send(GET)
        one = self.one("10.0.0.1:80")
        self.assertEqual((one["in_flight"], one["requests"], one["failures"]), (1, 1, 0))
        balancer.connectors[0].refuse()
        one = self.one("10.0.0.1:80")
        self.assertEqual((one["in_flight"], one["failures"], one["state"]), (0, 1, "down"))
        self.assertTrue(one["reason"])
        self.assertRegex(one["since"], r"1970-01-01T00:00:0[56]\.\d{3}Z")
        balancer.accept().send(OK)

    def test_the_last_check(self) -> None:
        pool = self.service.pools["api"]
        pool.health.check_finished(pool.server_set.servers[0], False, "it was refused")
        one = self.one("unix:/run/a%20b.sock", "api")
        self.assertEqual(
            one["last_check"],
            {"time": "1970-01-01T00:00:00.000Z", "passed": False, "reason": "it was refused"},
        )

    def test_ready(self) -> None:
        self.assertEqual(self.ask("GET", "/readyz").data, "ready")
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            self.ask("PATCH", f"/upstreams/app/{address}", {"state": "drain"})
        reply = self.ask("GET", "/readyz")
        self.assertEqual((reply.status, reply.error), (503, "pool app has no available server"))
        self.assertEqual(self.ask("GET", "/healthz").data, "alive")

    def test_ready_with_a_pool_of_routes_that_is_empty(self) -> None:
        """Only a frontend's own pool counts."""
        self.ask("DELETE", "/upstreams/api/unix:/run/a%20b.sock")
        self.assertEqual(self.ask("GET", "/readyz").data, "ready")

    def test_not_ready_while_draining(self) -> None:
        self.service.listeners.activate = lambda *_: None  # type: ignore[method-assign]
        self.service.drain()
        reply = self.ask("GET", "/readyz")
        self.assertEqual((reply.status, reply.error), (503, "draining"))
        self.admin.balancer.advance(2)

    def test_config_has_no_secrets(self) -> None:
        self.service.settings = evolve(THREE, admin=AdminSettings(token=SecretSource("sesame")))
        reply = self.ask("GET", "/config")
        self.assertEqual(reply.fields[b"content-type"], b"application/toml; charset=utf-8")
        self.assertNotIn(b"sesame", reply.body)
        self.assertIn(b'token = "********"', reply.body)
        for secret, shown in (
            (SecretSource(file="/etc/token"), b'token_file = "/etc/token"'),
            (SecretSource(variable="TOKEN"), b'token = {env = "TOKEN"}'),
        ):
            self.service.settings = evolve(THREE, admin=AdminSettings(token=secret))
            self.assertIn(shown, self.ask("GET", "/config").body)


class ServerUpdateTests(ApiTestCase):
    """`PATCH` and `DELETE`."""

    PATH = "/upstreams/app/10.0.0.1:80"

    def test_weights(self) -> None:
        for weight in (0, 7, 256):
            reply = self.ask("PATCH", self.PATH, {"weight": weight})
            self.assertEqual(reply.data["weight"], weight)
            self.assertEqual(self.one("10.0.0.1:80"), reply.data)
        self.assertEqual(self.saved, 3)

    def test_states(self) -> None:
        for state, seen in (
            *(("drain", "draining"), ("maintenance", "maintenance"), ("ready", "up")),
            *(("ready", "up"), ("maintenance", "maintenance"), ("drain", "draining")),
        ):
            self.assertEqual(self.ask("PATCH", self.PATH, {"state": state}).data["state"], seen)

    def test_both(self) -> None:
        data = self.ask("PATCH", self.PATH, {"state": "drain", "weight": 3}).data
        self.assertEqual((data["state"], data["weight"]), ("draining", 3))

    def test_wishes_that_are_not_granted_change_nothing(self) -> None:
        before = self.one("10.0.0.1:80")
        body: Any
        for body in (
            *({}, [], None, "ready", 1, b"", b"{", b"\xff", b'{"weight": 1, "weight": 2}'),
            *({"weight": True}, {"weight": 1.0}, {"weight": -1}, {"weight": 257}, {"weight": "1"}),
            *({"weight": None}, {"weight": [1]}, {"weight": 10**4000}, {"state": "up"}),
            *({"state": None}, {"state": 1}, {"state": ["ready"]}, {"state": "READY"}),
            *({"weight": 3, "state": "bad"}, {"weight": 300, "state": "drain"}),
            *(
                {"weight": 3, "other": 1},
                {"address": "x"},
                b'{"weight": NaN}',
                b'{"weight": 1e999}',
            ),
            *(b'{"a":' * 12000, b"[" * 60000, b'{"weight": ' + b"9" * 9000 + b"}", {"\ud800": 1}),
        ):
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            reply = self.ask("PATCH", self.PATH, raw)
            self.assertEqual(reply.status, 400, raw[:50])
            self.assertTrue(0 < len(reply.error) < 400, reply.error)
        self.assertEqual(self.one("10.0.0.1:80"), before)
        self.assertEqual(self.saved, 0)

    def test_delete(self) -> None:
        client = self.admin.balancer.client()
        client.send(GET)
        peer = self.admin.balancer.accept()
        data = self.ask("DELETE", self.PATH).data
        self.assertEqual((data["state"], data["in_flight"]), ("draining", 1))
        # It is seen until what it had to do is done.
        self.assertEqual(len(self.ask("GET", "/upstreams/app").data), 2)
        for method, body in (("DELETE", None), ("PATCH", {"weight": 2}), ("GET", None)):
            self.assertEqual(self.ask(method, self.PATH, body).status, 404)
        peer.send(OK)
        self.assertIn(b"hello", client.received())
        self.assertEqual(len(self.ask("GET", "/upstreams/app").data), 1)

    def test_one_that_comes_back_while_it_leaves(self) -> None:
        self.admin.balancer.client().send(GET)
        self.ask("DELETE", self.PATH)
        self.admin.start_request("POST", "/register", {"address": "10.0.0.1:80"})
        self.admin.pass_check()
        found = [one for one in self.ask("GET", "/upstreams/app").data if one["address"][5] == "0"]
        states = [(one["address"], one["state"], one["source"]) for one in found]
        self.assertIn(("10.0.0.1:80", "up", "registered"), states)
        self.assertIn(("10.0.0.1:80", "draining", "configured"), states)
        self.ask("PATCH", self.PATH, {"weight": 9})
        self.assertEqual(self.one("10.0.0.1:80")["weight"], 9)
        self.admin.balancer.accept().send(OK)

    def test_a_server_of_a_tcp_pool(self) -> None:
        path = "/upstreams/db/10.0.0.4:80"
        self.assertEqual(self.ask("PATCH", path, {"state": "drain"}).data["state"], "draining")
        self.assertEqual(self.ask("DELETE", path).status, 200)
        self.assertEqual(self.ask("GET", "/upstreams/db").data, [])

    def test_the_log(self) -> None:
        with capturedLogs() as events:
            self.ask("PATCH", self.PATH, {"weight": 3})
            self.ask("DELETE", self.PATH)
        texts = "\n".join(formatEvent(event) for event in events)
        self.assertIn("10.0.0.1:80", texts)
        self.assertIn("{'weight': 3}", texts)


class RegistrationTests(ApiTestCase):
    """`POST /register` and `POST /upstreams/POOL`."""

    def register(self, body: Any, path: str = "/register") -> Any:
        """The client that waits, once the server is being asked."""
        asked = len(self.admin.health_checks)
        client = self.admin.start_request("POST", path, body)
        self.assertEqual(len(self.admin.health_checks), asked + 1)
        self.assertEqual(client.received(), b"")
        return client

    def reply(self, client: Any) -> Response:
        (reply,) = parse_responses(client.received())
        return reply

    def test_a_server_that_is_alive(self) -> None:
        client = self.register({"address": "http://10.9.9.9:80", "weight": 5})
        probed, checks, _ = self.admin.health_checks[0]
        self.assertEqual(probed.name, NEW)
        self.assertEqual((checks.path, checks.status), ("/health", (200, 299)))
        self.assertEqual(len(self.ask("GET", "/upstreams/app").data), 2)
        self.admin.pass_check()
        reply = self.reply(client)
        expected = {"status": "success", "data": {"server": "http://10.9.9.9:80", "weight": 5}}
        self.assertEqual((reply.status, reply.json), (200, expected))
        one = self.one(NEW)
        self.assertEqual((one["weight"], one["source"]), (5, "registered"))
        self.assertEqual(self.saved, 1)

    def test_one_that_is_not(self) -> None:
        client = self.register({"address": "http://10.9.9.9:80"})
        self.admin.fail_check()
        reply = self.reply(client)
        self.assertEqual(reply.status, 404)
        self.assertEqual(reply.title, "http://10.9.9.9:80 not alive, registration failed.")
        self.assertEqual((len(self.ask("GET", "/upstreams/app").data), self.saved), (2, 0))

    def test_twice(self) -> None:
        for weight in (None, 3):
            client = self.register({"address": NEW, **({"weight": weight} if weight else {})})
            self.admin.pass_check()
            self.assertEqual(self.reply(client).data, {"server": NEW, "weight": weight or 1})
        self.assertEqual(self.one(NEW)["weight"], 3)
        self.assertEqual(len(self.ask("GET", "/upstreams/app").data), 3)

    def test_twice_at_once(self) -> None:
        clients = [self.register({"address": NEW, "weight": weight}) for weight in (2, 4)]
        self.admin.pass_check(1)
        self.admin.pass_check(0)
        self.assertEqual([self.reply(one).status for one in clients], [200, 200])
        self.assertEqual(self.one(NEW)["weight"], 2)
        self.assertEqual(len(self.ask("GET", "/upstreams/app").data), 3)

    def test_one_that_is_configured(self) -> None:
        self.ask("PATCH", "/upstreams/app/10.0.0.1:80", {"state": "maintenance"})
        client = self.register({"address": "10.0.0.1:80", "weight": 0})
        self.admin.pass_check()
        self.assertEqual(self.reply(client).status, 200)
        one = self.one("10.0.0.1:80")
        # Only its weight: what the operator said of it stays.
        self.assertEqual((one["weight"], one["source"]), (0, "configured"))
        self.assertEqual(one["state"], "maintenance")

    def test_any_pool(self) -> None:
        for pool, path, timeout in (
            ("api", "/ok", 1.0),
            ("db", None, HealthCheckSettings().effective_timeout),
        ):
            client = self.register({"address": NEW}, f"/upstreams/{pool}")
            checks = self.admin.health_checks[-1][1]
            self.assertEqual((checks.path, checks.effective_timeout), (path, timeout))
            self.assertEqual(checks.status, (200, 299))
            self.admin.pass_check()
            self.assertEqual(self.reply(client).status, 200)
            self.assertEqual(self.one(NEW, pool)["source"], "registered")
        self.assertEqual(self.ask("POST", "/upstreams/nope", {"address": NEW}).status, 404)

    def test_unknown_fields(self) -> None:
        for path, status in (("/register", 403), ("/upstreams/app", 400)):
            reply = self.ask("POST", path, {"address": NEW, "other": 1})
            self.assertEqual(reply.status, status)
            self.assertIn("'other' is not known", reply.title)

    def test_other_methods_of_register(self) -> None:
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            reply = self.ask(method, "/register")
            self.assertEqual((reply.status, reply.fields[b"allow"]), (405, b"POST"))

    def test_addresses(self) -> None:
        for address, name in (
            *((NEW, NEW), ("http://10.9.9.9", NEW), ("http://10.9.9.9/", NEW), (f" {NEW} ", NEW)),
            *(
                ("[::1]:8", "[::1]:8"),
                ("unix:/a/b", "unix:/a/b"),
                ("db.example:80", "db.example:80"),
            ),
        ):
            client = self.register({"address": address})
            self.assertEqual(self.admin.health_checks[-1][0].name, name)
            self.admin.fail_check()
            self.assertEqual(self.reply(client).status, 404)

    def test_addresses_that_are_none(self) -> None:
        address: Any
        for address in (
            *("", " ", None, 1, True, [], {}, "x", "10.9.9.9", "10.9.9.9:0", "10.9.9.9:99999"),
            *("https://10.9.9.9:80", "http://10.9.9.9/x", "http://10.9.9.9?x", "ftp://10.9.9.9:8"),
            *(
                "http://u:p@10.9.9.9",
                "10.9.9.9:80\nHost: x",
                "999.1.1.1:1",
                "unix:x",
            ),
            *("unix:/a\nb", "unix:/a\0b", "unix:/" + "a" * 200, "a" * 60000 + ":1", "\ud800:1"),
            *("unix:/\ud800", "[::1", "[x]:1", "http://", "::1:80", "unix:/\x1b[31m"),
        ):
            reply = self.ask("POST", "/register", {"address": address})
            self.assertEqual(reply.status, 400, repr(address)[:60])
            self.assertLess(len(reply.title), 400)
        self.assertEqual(self.admin.health_checks, [])

    def test_bodies(self) -> None:
        for body in (
            *(b"", b"null", b"[]", b"{}", b"{", b"\xff", b'"\xff"', b"{}{}", b"[" * 60000),
            *(b'{"address": "10.9.9.9:80", "address": "10.9.9.9:81"}', b'{"weight": 1}'),
            *(b'{"address": "10.9.9.9:80", "weight": %b}' % weight for weight in WEIGHTS),
        ):
            reply = self.ask("POST", "/register", body)
            self.assertEqual(reply.status, 400, body[:60])
            self.assertTrue(0 < len(reply.title) < 400)
        self.assertEqual(self.admin.health_checks, [])

    def test_who_leaves_meanwhile(self) -> None:
        client = self.register({"address": NEW})
        client.close()
        self.admin.pass_check()
        self.assertEqual(client.received(), b"")
        self.assertEqual(self.one(NEW)["source"], "registered")

    def test_a_pool_that_is_gone_meanwhile(self) -> None:
        client = self.register({"address": NEW}, "/upstreams/api")
        self.service.apply(evolve(THREE, pools=(THREE.pools[0], THREE.pools[2])))
        self.admin.pass_check()
        reply = self.reply(client)
        self.assertEqual((reply.status, reply.title), (404, "the pool api is no more"))
        self.assertEqual(self.saved, 0)

    def test_a_balancer_that_stops_meanwhile(self) -> None:
        client = self.register({"address": NEW})
        self.service.admin_operations.stop()
        self.assertEqual(self.reply(client).status, 404)
        self.assertFalse(self.operator_asks())
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def operator_asks(self) -> bool:
        return bool(self.service.admin_operations._pending_checks)

    def test_a_newcomer_gets_traffic(self) -> None:
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            self.ask("DELETE", f"/upstreams/app/{address}")
        self.register({"address": NEW})
        self.admin.pass_check()
        balancer = self.admin.balancer
        client = balancer.client()
        client.send(GET)
        self.assertEqual(str(balancer.connectors[0].address), NEW)
        balancer.accept().send(OK)
        self.assertIn(b"hello", client.received())

    def test_it_outlives_a_reload(self) -> None:
        self.register({"address": NEW, "weight": 9})
        self.admin.pass_check()
        self.ask("PATCH", f"/upstreams/app/{NEW}", {"state": "drain"})
        self.service.apply(THREE)
        found = self.service.server_set.find(TcpAddress("10.9.9.9", 80))
        assert found is not None
        self.assertEqual((found.weight, found.admin_state), (9, AdminState.DRAIN))
        self.assertEqual(found.source, ServerSource.REGISTERED)


WEIGHTS = (
    *(b"true", b"1.0", b"-1", b"257", b'"1"', b"null", b"[]", b"{}", b"NaN", b"Infinity", b"1e3"),
    *(b"1e999", b"9" * 4000, b"9" * 9000, b"01", b"0x1"),
)


class ReloadTests(ApiTestCase):
    """`POST /reload`."""

    def source(self, *outcomes: Any) -> None:
        given = iter(outcomes)

        def read() -> Settings:
            outcome = next(given)
            if isinstance(outcome, Exception):
                raise outcome
            assert isinstance(outcome, Settings)
            return outcome

        self.service.load_settings = read

    def test_what_has_changed(self) -> None:
        pool = evolve(THREE.pools[0], servers=(*THREE.pools[0].servers, server("10.0.0.3")))
        changed = evolve(THREE, pools=(pool, *THREE.pools[1:]))
        self.source(THREE, changed)
        self.assertEqual(self.ask("POST", "/reload").data, {"changed": []})
        reply = self.ask("POST", "/reload", {})
        self.assertEqual(reply.data, {"changed": ["pool app: server 10.0.0.3:80 added"]})
        self.assertEqual(len(self.ask("GET", "/upstreams/app").data), 3)
        self.assertEqual(self.saved, 2)

    def test_a_mistake_changes_nothing(self) -> None:
        self.source(ConfigError("x.toml:1: a: is wrong", "x.toml:2: b: too"))
        before = self.ask("GET", "/upstreams").data
        reply = self.ask("POST", "/reload")
        self.assertEqual(reply.status, 422)
        self.assertIn("x.toml:1: a: is wrong", reply.error)
        self.assertIn("x.toml:2: b: too", reply.error)
        self.assertEqual(self.ask("GET", "/upstreams").data, before)

    def test_there_is_nothing_to_say(self) -> None:
        body: Any
        for body in ({"x": 1}, [], b"{", b"1"):
            self.assertEqual(self.ask("POST", "/reload", body).status, 400)
        reply = self.admin.request("POST", "/reload", None, HOST_HEADER)
        self.assertEqual(reply.status, 200)
        reply = self.admin.request(
            "POST", "/reload", b"x=y", HOST_HEADER + b"Content-Type: text/plain\r\n"
        )
        self.assertEqual(reply.status, 415)

    def test_a_token_is_not_shown(self) -> None:
        before = evolve(THREE, admin=AdminSettings(token=SecretSource("sesame")))
        after = evolve(THREE, admin=AdminSettings(token=SecretSource("other")))
        self.assertEqual(diff_settings(before, after), ["admin changed"])
