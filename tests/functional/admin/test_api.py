"""The routes of the admin API: queries, changes, registration and reload."""

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
    """Settings of a server on port 80 of `host`."""
    return ServerSettings(TcpAddress(host, 80))


# Two HTTP pools, of which one has health checks, and a TCP pool.
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
    """A balancer in memory with three pools and the admin API."""

    def setUp(self) -> None:
        self.admin = MemoryAdmin(THREE)
        self.service = self.admin.balancer.service
        self.addCleanup(self.admin.stop)
        self.saved = 0
        self.service.save = self._save  # type: ignore[method-assign]

    def _save(self) -> Any:
        """Count the writes of the state, and write it."""
        self.saved += 1
        return type(self.service).save(self.service)

    def request(self, method: str, path: str, body: Any = None) -> Response:
        """Send a request on a connection of its own, and return the response."""
        return self.admin.request(method, path, body)

    def server_view(self, address: str, pool: str = "app") -> Any:
        """The view of the server at `address`."""
        return self.request("GET", f"/upstreams/{pool}/{address}").data


class EndpointTests(ApiTestCase):
    """Routing, methods and headers of responses."""

    def test_unknown_path(self) -> None:
        """A path that is not exactly a route is answered with 404."""
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
            self.assertEqual(self.request("GET", path).error, "not found", path)

    def test_query_is_ignored(self) -> None:
        """A query, even a malformed one, does not affect routing."""
        self.assertEqual(self.request("GET", "/healthz?x=%zz&y").data, "alive")

    def test_method_not_allowed(self) -> None:
        """An unsupported method gets 405, and Allow lists the supported ones."""
        for pattern, methods in ROUTES.items():
            path = pattern.format(pool="app", address="10.0.0.1:80", file="main.js")
            allowed = {*methods, *(("HEAD",) if "GET" in methods else ())}
            for method in ("GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
                if method not in allowed:
                    response = self.request(method, path)
                    self.assertEqual(response.status, 405, (method, path))
                    methods_allowed = response.fields[b"allow"].decode().split(", ")
                    self.assertEqual(set(methods_allowed), allowed)
                    self.assertTrue(response.title if path == "/register" else response.error)
        self.assertEqual(self.request("A" * 5000, "/").status, 405)

    def test_head(self) -> None:
        """HEAD is answered like GET, without the body; only where GET exists."""
        for path in ("/", "/upstreams", "/healthz", "/readyz", "/metrics", "/config"):
            get, head = self.request("GET", path), self.request("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""), path)
            length = int(head.fields[b"length-of-get"])
            # The CPU time among the metrics may get a digit more in between.
            self.assertAlmostEqual(length, len(get.body), delta=20 if path == "/metrics" else 0)
        self.assertEqual(self.request("HEAD", "/register").status, 405)

    def test_headers_of_all_responses(self) -> None:
        """Every response forbids caching and content sniffing, and has a Date."""
        for path in ("/", "/upstreams", "/metrics", "/nothing", "/config", "/openapi.json"):
            response = self.request("GET", path)
            self.assertEqual(response.fields[b"cache-control"], b"no-store")
            self.assertEqual(response.fields[b"x-content-type-options"], b"nosniff")
            self.assertIn(b"date", response.fields)
            self.assertNotIn(b"server", response.fields)

    def test_address_in_path(self) -> None:
        """An address in a path may be encoded or not, with or without scheme."""
        route = match_route("/upstreams/app/unix:/a/b")
        assert route is not None
        self.assertEqual(route[1], {"pool": "app", "address": "unix:/a/b"})
        for path in (
            *("/upstreams/app/10.0.0.1:80", "/upstreams/app/http://10.0.0.1:80"),
            *("/upstreams/app/http:%2F%2F10.0.0.1", "/upstreams/%61pp/10.0.0.1%3A80"),
            *("/upstreams/api/unix:/run/a%20b.sock", "/upstreams/api/unix:%2Frun%2Fa%20b.sock"),
        ):
            self.assertEqual(self.request("GET", path).status, 200, path)

    def test_unknown_address_in_path(self) -> None:
        """An unknown or invalid address, or an unknown pool, gets 404."""
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
                response = self.request(method, f"/upstreams/app/{address}", body)
                self.assertEqual(response.status, 404, address)
                self.assertTrue(response.error)
            self.assertEqual(self.request("GET", f"/upstreams/{address.split('/')[0]}").status, 404)

    def test_metrics(self) -> None:
        """`GET /metrics` has the content type of the Prometheus text format."""
        response = self.request("GET", "/metrics")
        self.assertEqual(response.status, 200)
        self.assertTrue(response.fields[b"content-type"].startswith(b"text/plain; version=0.0.4"))

    def test_openmetrics(self) -> None:
        """`GET /metrics` with OpenMetrics in Accept has that format and its content type."""
        accept = HOST_HEADER + b"Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n"
        response = self.admin.request("GET", "/metrics", fields=accept)
        self.assertEqual(
            response.fields[b"content-type"],
            b"application/openmetrics-text; version=1.0.0; charset=utf-8",
        )
        self.assertTrue(response.body.endswith(b"\n# EOF\n"))

    def test_pipelining(self) -> None:
        """Pipelined requests are answered in order; a slow one delays later ones."""
        client = self.admin.connect()
        healthz = b"GET /healthz HTTP/1.1\r\n" + HOST_HEADER + b"\r\n"
        register = (
            b"POST /register HTTP/1.1\r\n"
            + HOST_HEADER
            + JSON_HEADER
            + b"Content-Length: 26\r\n\r\n"
        )
        client.send(healthz * 300 + register + b'{"address": "10.9.9.9:80"}' + healthz * 2)
        self.assertEqual(
            [response.status for response in parse_responses(client.received())], [200] * 300
        )
        self.admin.pass_check()
        responses = parse_responses(client.received())
        self.assertEqual([response.status for response in responses], [200] * 3)
        self.assertEqual(responses[0].data["server"], "10.9.9.9:80")

    def test_internal_error(self) -> None:
        """An exception is logged and answered with 500, without its text."""
        self.service.not_ready_reason = lambda: 1 / 0  # type: ignore[assignment, return-value]
        response = self.request("GET", "/readyz")
        self.assertEqual((response.status, "division" in response.error), (500, False))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class QueryTests(ApiTestCase):
    """`GET /upstreams`, `/readyz` and `/config`."""

    def test_all_servers(self) -> None:
        """`GET /upstreams` lists all servers with all their fields, pool by pool."""
        servers = self.request("GET", "/upstreams").data
        self.assertEqual(
            [(view["pool"], view["address"], view["weight"]) for view in servers],
            [
                ("app", "10.0.0.1:80", 1),
                ("app", "10.0.0.2:80", 1),
                ("api", "unix:/run/a b.sock", 1),
                ("db", "10.0.0.4:80", 1),
            ],
        )
        self.assertEqual(
            servers[0],
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
                "tls": False,
                "source": "configured",
                "last_check": None,
            },
        )
        self.assertEqual(self.request("GET", "/upstreams/app").data, servers[:2])
        self.assertEqual(self.request("GET", "/upstreams/nope").status, 404)

    def test_counters(self) -> None:
        """Requests in flight, totals, failures and the last state change are shown."""
        balancer = self.admin.balancer
        balancer.advance(5)
        balancer.client().send(GET)
        view = self.server_view("10.0.0.1:80")
        self.assertEqual((view["in_flight"], view["requests"], view["failures"]), (1, 1, 0))
        balancer.connectors[0].refuse()
        view = self.server_view("10.0.0.1:80")
        self.assertEqual((view["in_flight"], view["failures"], view["state"]), (0, 1, "down"))
        self.assertTrue(view["reason"])
        self.assertRegex(view["since"], r"1970-01-01T00:00:0[56]\.\d{3}Z")
        balancer.accept().send(OK)

    def test_last_check(self) -> None:
        """The last health check is shown with its time, result and reason."""
        pool = self.service.pools["api"]
        pool.health.check_finished(pool.server_set.servers[0], False, "connection refused")
        view = self.server_view("unix:/run/a%20b.sock", "api")
        self.assertEqual(
            view["last_check"],
            {"time": "1970-01-01T00:00:00.000Z", "passed": False, "reason": "connection refused"},
        )

    def test_ready(self) -> None:
        """`/readyz` is 503 while a frontend's pool has no server; `/healthz` stays 200."""
        self.assertEqual(self.request("GET", "/readyz").data, "ready")
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            self.request("PATCH", f"/upstreams/app/{address}", {"state": "drain"})
        response = self.request("GET", "/readyz")
        self.assertEqual(
            (response.status, response.error), (503, "pool app has no available server")
        )
        self.assertEqual(self.request("GET", "/healthz").data, "alive")

    def test_ready_with_empty_route_pool(self) -> None:
        """Only a frontend's own pool counts; the pool of a route may be empty."""
        self.request("DELETE", "/upstreams/api/unix:/run/a%20b.sock")
        self.assertEqual(self.request("GET", "/readyz").data, "ready")

    def test_not_ready_while_draining(self) -> None:
        """`/readyz` is 503 with the reason `draining` during a graceful shutdown."""
        self.service.listeners.activate = lambda *_: None  # type: ignore[method-assign]
        self.service.drain()
        response = self.request("GET", "/readyz")
        self.assertEqual((response.status, response.error), (503, "draining"))
        self.admin.balancer.advance(2)

    def test_config_has_no_secrets(self) -> None:
        """`GET /config` masks a token, and shows the file or variable that holds one."""
        self.service.settings = evolve(THREE, admin=AdminSettings(token=SecretSource("sesame")))
        response = self.request("GET", "/config")
        self.assertEqual(response.fields[b"content-type"], b"application/toml; charset=utf-8")
        self.assertNotIn(b"sesame", response.body)
        self.assertIn(b'token = "********"', response.body)
        for secret, shown in (
            (SecretSource(file="/etc/token"), b'token_file = "/etc/token"'),
            (SecretSource(variable="TOKEN"), b'token = {env = "TOKEN"}'),
        ):
            self.service.settings = evolve(THREE, admin=AdminSettings(token=secret))
            self.assertIn(shown, self.request("GET", "/config").body)


class ServerUpdateTests(ApiTestCase):
    """`PATCH` and `DELETE` of a server."""

    PATH = "/upstreams/app/10.0.0.1:80"

    def test_change_weight(self) -> None:
        """A new weight is applied, returned and saved."""
        for weight in (0, 7, 256):
            response = self.request("PATCH", self.PATH, {"weight": weight})
            self.assertEqual(response.data["weight"], weight)
            self.assertEqual(self.server_view("10.0.0.1:80"), response.data)
        self.assertEqual(self.saved, 3)

    def test_change_state(self) -> None:
        """Every admin state can be set from every other one."""
        for state, status in (
            *(("drain", "draining"), ("maintenance", "maintenance"), ("ready", "up")),
            *(("ready", "up"), ("maintenance", "maintenance"), ("drain", "draining")),
        ):
            self.assertEqual(
                self.request("PATCH", self.PATH, {"state": state}).data["state"], status
            )

    def test_change_weight_and_state(self) -> None:
        """Weight and state can be changed in one request."""
        data = self.request("PATCH", self.PATH, {"state": "drain", "weight": 3}).data
        self.assertEqual((data["state"], data["weight"]), ("draining", 3))

    def test_invalid_change(self) -> None:
        """An invalid body gets 400 with a short reason, and changes nothing."""
        before = self.server_view("10.0.0.1:80")
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
            response = self.request("PATCH", self.PATH, raw)
            self.assertEqual(response.status, 400, raw[:50])
            self.assertTrue(0 < len(response.error) < 400, response.error)
        self.assertEqual(self.server_view("10.0.0.1:80"), before)
        self.assertEqual(self.saved, 0)

    def test_remove(self) -> None:
        """A removed server is listed as draining until its last request has finished."""
        client = self.admin.balancer.client()
        client.send(GET)
        peer = self.admin.balancer.accept()
        data = self.request("DELETE", self.PATH).data
        self.assertEqual((data["state"], data["in_flight"]), ("draining", 1))
        # Listed until its last request has finished.
        self.assertEqual(len(self.request("GET", "/upstreams/app").data), 2)
        for method, body in (("DELETE", None), ("PATCH", {"weight": 2}), ("GET", None)):
            self.assertEqual(self.request(method, self.PATH, body).status, 404)
        peer.send(OK)
        self.assertIn(b"hello", client.received())
        self.assertEqual(len(self.request("GET", "/upstreams/app").data), 1)

    def test_register_while_draining(self) -> None:
        """A draining server that registers again is a new server beside the old one."""
        self.admin.balancer.client().send(GET)
        self.request("DELETE", self.PATH)
        self.admin.start_request("POST", "/register", {"address": "10.0.0.1:80"})
        self.admin.pass_check()
        servers = self.request("GET", "/upstreams/app").data
        states = [(view["address"], view["state"], view["source"]) for view in servers]
        self.assertIn(("10.0.0.1:80", "up", "registered"), states)
        self.assertIn(("10.0.0.1:80", "draining", "configured"), states)
        self.request("PATCH", self.PATH, {"weight": 9})
        self.assertEqual(self.server_view("10.0.0.1:80")["weight"], 9)
        self.admin.balancer.accept().send(OK)

    def test_tcp_pool(self) -> None:
        """Servers of TCP pools can be changed and removed too."""
        path = "/upstreams/db/10.0.0.4:80"
        self.assertEqual(self.request("PATCH", path, {"state": "drain"}).data["state"], "draining")
        self.assertEqual(self.request("DELETE", path).status, 200)
        self.assertEqual(self.request("GET", "/upstreams/db").data, [])

    def test_changes_are_logged(self) -> None:
        """Changes and removals are logged with the server's address."""
        with capturedLogs() as events:
            self.request("PATCH", self.PATH, {"weight": 3})
            self.request("DELETE", self.PATH)
        texts = "\n".join(formatEvent(event) for event in events)
        self.assertIn("10.0.0.1:80", texts)
        self.assertIn("{'weight': 3}", texts)


class RegistrationTests(ApiTestCase):
    """`POST /register` and `POST /upstreams/POOL`."""

    def start_registration(self, body: Any, path: str = "/register") -> Any:
        """Start a registration; return the client once the health check has begun."""
        checks = len(self.admin.health_checks)
        client = self.admin.start_request("POST", path, body)
        self.assertEqual(len(self.admin.health_checks), checks + 1)
        self.assertEqual(client.received(), b"")
        return client

    def response(self, client: Any) -> Response:
        """The only response that `client` has received."""
        (response,) = parse_responses(client.received())
        return response

    def test_healthy_server(self) -> None:
        """A server that passes its health check is added, answered with 200, and saved."""
        client = self.start_registration({"address": "http://10.9.9.9:80", "weight": 5})
        probed, checks, _ = self.admin.health_checks[0]
        self.assertEqual(probed.name, NEW)
        self.assertEqual((checks.path, checks.status), ("/health", (200, 299)))
        self.assertEqual(len(self.request("GET", "/upstreams/app").data), 2)
        self.admin.pass_check()
        response = self.response(client)
        expected = {"status": "success", "data": {"server": "http://10.9.9.9:80", "weight": 5}}
        self.assertEqual((response.status, response.json), (200, expected))
        view = self.server_view(NEW)
        self.assertEqual((view["weight"], view["source"]), (5, "registered"))
        self.assertEqual(self.saved, 1)

    def test_unhealthy_server(self) -> None:
        """A server that fails its health check gets 404 and is not added."""
        client = self.start_registration({"address": "http://10.9.9.9:80"})
        self.admin.fail_check()
        response = self.response(client)
        self.assertEqual(response.status, 404)
        self.assertEqual(
            response.title, "refused: http://10.9.9.9:80 not alive, registration failed."
        )
        self.assertEqual((len(self.request("GET", "/upstreams/app").data), self.saved), (2, 0))

    def test_second_registration(self) -> None:
        """A second registration updates the weight, 1 by default."""
        for weight in (None, 3):
            client = self.start_registration(
                {"address": NEW, **({"weight": weight} if weight else {})}
            )
            self.admin.pass_check()
            self.assertEqual(self.response(client).data, {"server": NEW, "weight": weight or 1})
        self.assertEqual(self.server_view(NEW)["weight"], 3)
        self.assertEqual(len(self.request("GET", "/upstreams/app").data), 3)

    def test_concurrent_registrations(self) -> None:
        """Of two registrations in progress, the last to complete sets the weight."""
        clients = [self.start_registration({"address": NEW, "weight": weight}) for weight in (2, 4)]
        self.admin.pass_check(1)
        self.admin.pass_check(0)
        self.assertEqual([self.response(client).status for client in clients], [200, 200])
        self.assertEqual(self.server_view(NEW)["weight"], 2)
        self.assertEqual(len(self.request("GET", "/upstreams/app").data), 3)

    def test_configured_server(self) -> None:
        """Registration of a configured server changes its weight and nothing else."""
        self.request("PATCH", "/upstreams/app/10.0.0.1:80", {"state": "maintenance"})
        client = self.start_registration({"address": "10.0.0.1:80", "weight": 0})
        self.admin.pass_check()
        self.assertEqual(self.response(client).status, 200)
        view = self.server_view("10.0.0.1:80")
        # Only the weight changes: the admin state stays.
        self.assertEqual((view["weight"], view["source"]), (0, "configured"))
        self.assertEqual(view["state"], "maintenance")

    def test_any_pool(self) -> None:
        """A registration uses the path and timeout of its pool's checks; TCP pools connect."""
        for pool, path, timeout in (
            ("api", "/ok", 1.0),
            ("db", None, HealthCheckSettings().effective_timeout),
        ):
            client = self.start_registration({"address": NEW}, f"/upstreams/{pool}")
            checks = self.admin.health_checks[-1][1]
            self.assertEqual((checks.path, checks.effective_timeout), (path, timeout))
            self.assertEqual(checks.status, (200, 299))
            self.admin.pass_check()
            self.assertEqual(self.response(client).status, 200)
            self.assertEqual(self.server_view(NEW, pool)["source"], "registered")
        self.assertEqual(self.request("POST", "/upstreams/nope", {"address": NEW}).status, 404)

    def test_unknown_fields(self) -> None:
        """An unknown field gets 403 from `/register`, and 400 from `/upstreams/POOL`."""
        for path, status in (("/register", 403), ("/upstreams/app", 400)):
            response = self.request("POST", path, {"address": NEW, "other": 1})
            self.assertEqual(response.status, status)
            self.assertIn("unknown field 'other'", response.title)

    def test_register_requires_post(self) -> None:
        """Any other method than POST gets 405."""
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            response = self.request(method, "/register")
            self.assertEqual((response.status, response.fields[b"allow"]), (405, b"POST"))
            if method != "HEAD":
                title = f"Wrong method. Expected POST, got {method}."
                self.assertEqual(response.title, title)

    def test_valid_addresses(self) -> None:
        """Every form of a server address is accepted and normalized."""
        for address, name in (
            *((NEW, NEW), ("http://10.9.9.9", NEW), ("http://10.9.9.9/", NEW), (f" {NEW} ", NEW)),
            *(
                ("[::1]:8", "[::1]:8"),
                ("unix:/a/b", "unix:/a/b"),
                ("db.example:80", "db.example:80"),
            ),
        ):
            client = self.start_registration({"address": address})
            self.assertEqual(self.admin.health_checks[-1][0].name, name)
            self.admin.fail_check()
            self.assertEqual(self.response(client).status, 404)

    def test_tls(self) -> None:
        """A server with TLS is checked with it, and keeps it; the response has its scheme."""
        client = self.start_registration({"address": "https://10.9.9.9", "weight": 2})
        self.assertTrue(self.admin.health_checks[0][0].tls)
        self.admin.pass_check()
        self.assertEqual(self.response(client).data, {"server": "https://10.9.9.9", "weight": 2})
        view = self.server_view("10.9.9.9:443")
        self.assertEqual((view["weight"], view["tls"]), (2, True))
        for path in ("https://10.9.9.9", "10.9.9.9:443", "http://10.9.9.9:443"):
            self.assertEqual(self.request("GET", f"/upstreams/app/{path}").status, 200, path)
        client = self.start_registration({"address": "https://10.9.9.9:443", "weight": 3})
        self.admin.pass_check()
        self.assertEqual(self.response(client).status, 200)
        self.assertEqual(self.server_view("10.9.9.9:443")["weight"], 3)

    def test_same_address_without_tls(self) -> None:
        """An address is in a pool either with or without TLS."""
        response = self.request("POST", "/register", {"address": "https://10.0.0.1:80"})
        self.assertEqual(response.status, 400)
        self.assertIn("pool app has 10.0.0.1:80 without TLS", response.title)
        self.assertEqual(self.admin.health_checks, [])
        clients = [
            self.start_registration({"address": address})
            for address in ("https://10.9.9.9:443", "10.9.9.9:443")
        ]
        self.admin.pass_check(0)
        self.admin.pass_check(1)
        self.assertEqual([self.response(client).status for client in clients], [200, 400])

    def test_scheme_of_the_mode(self) -> None:
        """TLS is `https` in pools of HTTP frontends, and `tls` in pools of TCP frontends."""
        for pool, address, expected in (
            ("app", "tls://10.9.9.9:1", "expected https://10.9.9.9:1"),
            ("db", "https://10.9.9.9:1", "expected tls://10.9.9.9:1"),
        ):
            response = self.request("POST", f"/upstreams/{pool}", {"address": address})
            self.assertEqual(response.status, 400)
            self.assertIn(expected, response.title)
        self.assertEqual(self.admin.health_checks, [])
        client = self.start_registration({"address": "tls://10.9.9.9:1"}, "/upstreams/db")
        self.admin.pass_check()
        self.assertEqual(self.response(client).status, 200)

    def test_invalid_addresses(self) -> None:
        """An invalid address gets 400 with a short reason, and causes no health check."""
        address: Any
        for address in (
            *("", " ", None, 1, True, [], {}, "x", "10.9.9.9", "10.9.9.9:0", "10.9.9.9:99999"),
            *(
                "tls://10.9.9.9:80",
                "tls://10.9.9.9",
                "https://10.9.9.9/x",
                "http://10.9.9.9/x",
                "http://10.9.9.9?x",
                "ftp://10.9.9.9:8",
            ),
            *(
                "http://u:p@10.9.9.9",
                "10.9.9.9:80\nHost: x",
                "999.1.1.1:1",
                "unix:x",
            ),
            *("unix:/a\nb", "unix:/a\0b", "unix:/" + "a" * 200, "a" * 60000 + ":1", "\ud800:1"),
            *("unix:/\ud800", "[::1", "[x]:1", "http://", "::1:80", "unix:/\x1b[31m"),
        ):
            response = self.request("POST", "/register", {"address": address})
            self.assertEqual(response.status, 400, repr(address)[:60])
            self.assertLess(len(response.title), 400)
        self.assertEqual(self.admin.health_checks, [])

    def test_invalid_bodies(self) -> None:
        """An invalid body gets 400 with a short reason, and causes no health check."""
        for body in (
            *(b"", b"null", b"[]", b"{}", b"{", b"\xff", b'"\xff"', b"{}{}", b"[" * 60000),
            *(b'{"address": "10.9.9.9:80", "address": "10.9.9.9:81"}', b'{"weight": 1}'),
            *(b'{"address": "10.9.9.9:80", "weight": %b}' % weight for weight in WEIGHTS),
        ):
            response = self.request("POST", "/register", body)
            self.assertEqual(response.status, 400, body[:60])
            self.assertTrue(0 < len(response.title) < 400)
        self.assertEqual(self.admin.health_checks, [])

    def test_client_disconnects_during_check(self) -> None:
        """A server whose client disconnects during the health check is registered."""
        client = self.start_registration({"address": NEW})
        client.close()
        self.admin.pass_check()
        self.assertEqual(client.received(), b"")
        self.assertEqual(self.server_view(NEW)["source"], "registered")

    def test_pool_removed_during_check(self) -> None:
        """A registration for a pool that a reload removed meanwhile gets 404."""
        client = self.start_registration({"address": NEW}, "/upstreams/api")
        self.service.apply(evolve(THREE, pools=(THREE.pools[0], THREE.pools[2])))
        self.admin.pass_check()
        response = self.response(client)
        self.assertEqual((response.status, response.title), (404, "pool api no longer exists"))
        self.assertEqual(self.saved, 0)

    def test_balancer_stops_during_check(self) -> None:
        """Stopping the balancer cancels the health check; the registration gets 404."""
        client = self.start_registration({"address": NEW})
        self.service.admin_operations.stop()
        self.assertEqual(self.response(client).status, 404)
        self.assertFalse(self.has_pending_checks())
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

    def has_pending_checks(self) -> bool:
        """Whether a health check of a registration is in progress."""
        return bool(self.service.admin_operations._pending_checks)

    def test_registered_server_gets_traffic(self) -> None:
        """A registered server receives requests."""
        for address in ("10.0.0.1:80", "10.0.0.2:80"):
            self.request("DELETE", f"/upstreams/app/{address}")
        self.start_registration({"address": NEW})
        self.admin.pass_check()
        balancer = self.admin.balancer
        client = balancer.client()
        client.send(GET)
        self.assertEqual(str(balancer.connectors[0].address), NEW)
        balancer.accept().send(OK)
        self.assertIn(b"hello", client.received())

    def test_registered_server_survives_reload(self) -> None:
        """A reload keeps registered servers with their weight and admin state."""
        self.start_registration({"address": NEW, "weight": 9})
        self.admin.pass_check()
        self.request("PATCH", f"/upstreams/app/{NEW}", {"state": "drain"})
        self.service.apply(THREE)
        registered = self.service.server_set.find(TcpAddress("10.9.9.9", 80))
        assert registered is not None
        self.assertEqual((registered.weight, registered.admin_state), (9, AdminState.DRAIN))
        self.assertEqual(registered.source, ServerSource.REGISTERED)


WEIGHTS = (
    *(b"true", b"1.0", b"-1", b"257", b'"1"', b"null", b"[]", b"{}", b"NaN", b"Infinity", b"1e3"),
    *(b"1e999", b"9" * 4000, b"9" * 9000, b"01", b"0x1"),
)


class ReloadTests(ApiTestCase):
    """`POST /reload`."""

    def load_settings_from(self, *outcomes: Any) -> None:
        """Have each reload load the next of `outcomes`: settings, or an error."""
        remaining = iter(outcomes)

        def load() -> Settings:
            """Return the next settings, or raise the next error."""
            outcome = next(remaining)
            if isinstance(outcome, Exception):
                raise outcome
            assert isinstance(outcome, Settings)
            return outcome

        self.service.load_settings = load

    def test_changes_are_listed(self) -> None:
        """A reload applies the new settings and lists the changes."""
        pool = evolve(THREE.pools[0], servers=(*THREE.pools[0].servers, server("10.0.0.3")))
        changed = evolve(THREE, pools=(pool, *THREE.pools[1:]))
        self.load_settings_from(THREE, changed)
        self.assertEqual(self.request("POST", "/reload").data, {"changed": []})
        response = self.request("POST", "/reload", {})
        self.assertEqual(response.data, {"changed": ["pool app: server 10.0.0.3:80 added"]})
        self.assertEqual(len(self.request("GET", "/upstreams/app").data), 3)
        self.assertEqual(self.saved, 2)

    def test_invalid_configuration(self) -> None:
        """An invalid configuration gets 422 with every problem, and changes nothing."""
        self.load_settings_from(ConfigError("x.toml:1: a: first", "x.toml:2: b: second"))
        before = self.request("GET", "/upstreams").data
        response = self.request("POST", "/reload")
        self.assertEqual(response.status, 422)
        self.assertIn("x.toml:1: a: first", response.error)
        self.assertIn("x.toml:2: b: second", response.error)
        self.assertEqual(self.request("GET", "/upstreams").data, before)

    def test_body_of_reload(self) -> None:
        """A reload takes no body, or an empty JSON object."""
        body: Any
        for body in ({"x": 1}, [], b"{", b"1"):
            self.assertEqual(self.request("POST", "/reload", body).status, 400)
        response = self.admin.request("POST", "/reload", None, HOST_HEADER)
        self.assertEqual(response.status, 200)
        response = self.admin.request(
            "POST", "/reload", b"x=y", HOST_HEADER + b"Content-Type: text/plain\r\n"
        )
        self.assertEqual(response.status, 415)

    def test_changed_token_is_not_shown(self) -> None:
        """A changed token is reported without its value."""
        before = evolve(THREE, admin=AdminSettings(token=SecretSource("sesame")))
        after = evolve(THREE, admin=AdminSettings(token=SecretSource("other")))
        self.assertEqual(diff_settings(before, after), ["admin changed"])
