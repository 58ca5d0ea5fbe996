"""`GET /explain`: routes, limits, servers, answers of the proxy, and invalid queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.base import AlgorithmBase
from balancebeam.balancing.interfaces import Selection
from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    AdminState,
    FrontendSettings,
    FrontendTlsSettings,
    LimitSettings,
    PoolSettings,
    QueueSettings,
    RouteSettings,
    ServerSettings,
    Settings,
)
from balancebeam.observability.metrics import metrics_text
from balancebeam.upstream.server import Server
from tests.helpers.admin import MemoryAdmin
from tests.helpers.memory import GET

CLIENT = "192.0.2.7"


def server(host: str, **changes: Any) -> ServerSettings:
    """Settings of a server on port 80 of `host`."""
    return ServerSettings(TcpAddress(host, 80), **changes)


APP = PoolSettings("app", (server("10.0.0.1"), server("10.0.0.2", max_in_flight=1)))
API = PoolSettings("api", (server("10.0.1.1"),), limits=(LimitSettings(1, name="api"),))
WEB = FrontendSettings(
    "web",
    bind=(),
    pool="app",
    routes=(RouteSettings("api", "*.example.org", "/v1"),),
    limits=(LimitSettings(600, key=("client",)),),
)


class LastFirst(AlgorithmBase[Server]):
    """A custom algorithm without `explain`."""

    def update(self, servers: Sequence[Server]) -> None:
        self._servers = servers

    def candidates(self, key: str) -> Iterator[Selection[Server]]:
        return ((server, "last") for server in reversed(self._servers))


class ExplainTestCase(SynchronousTestCase):
    """A balancer in memory whose admin API explains requests."""

    def start(self, *frontends: FrontendSettings, pools: tuple[PoolSettings, ...]) -> None:
        """Start a balancer."""
        self.admin = MemoryAdmin(Settings(frontends, pools))
        self.balancer = self.admin.balancer

        def stop() -> None:
            for peer in self.balancer.peers:
                peer.reset()
            self.admin.stop()

        self.addCleanup(stop)

    def explain(self, target: str = "/", **parameters: str) -> Any:
        """The explanation of a request."""
        query = urlencode({"target": target, **parameters})
        return self.admin.request("GET", f"/explain?{query}").data

    def send(self, client: str = CLIENT) -> None:
        """Send a request, which stays in flight."""
        self.balancer.client(client).send(GET)

    def reasons(self, **parameters: str) -> list[tuple[str, str]]:
        """The candidates with their reasons."""
        explanation = self.explain(**parameters)
        return [(row["server"], row["reason"]) for row in explanation["candidates"]]


class ExplainTests(ExplainTestCase):
    """Explanations of HTTP requests."""

    def test_default_route(self) -> None:
        """Only the target is required; the response has all fields of the contract."""
        self.start(WEB, pools=(APP, API))
        candidate = {"state": "up", "weight": 1, "in_flight": 0}
        self.assertEqual(
            self.explain(),
            {
                "frontend": "web",
                "route": "",
                "pool": "app",
                "limits": [
                    {
                        "scope": "frontend web",
                        "name": "client",
                        "key": "127.0.0.1",
                        "remaining": 600,
                        "refuses": False,
                        "retry_after": 0,
                    }
                ],
                "candidates": [
                    {"server": "10.0.0.1:80", "reason": "next turn", **candidate},
                    {"server": "10.0.0.2:80", "reason": "following turn", **candidate},
                ],
                "answer": None,
            },
        )

    def test_route_and_limits(self) -> None:
        """The route is found by host and path; limits of all scopes are listed."""
        self.start(WEB, pools=(APP, API))
        self.balancer.client(CLIENT).send(GET.replace(b"/ ", b"/v1 ").replace(b": ", b": a."))
        for target in ("http://A.example.org:80/v1/x?y", "https://a.example.org/v1"):
            explanation = self.explain(target, client=CLIENT)
            self.assertEqual(explanation["route"], "*.example.org /v1")
            self.assertEqual(explanation["pool"], "api")
            self.assertEqual(explanation["answer"], 429)
            frontend, pool = explanation["limits"]
            self.assertEqual((frontend["remaining"], frontend["refuses"]), (599, False))
            self.assertEqual(
                (pool["scope"], pool["name"], pool["key"]), ("pool api", "api", CLIENT)
            )
            self.assertEqual((pool["remaining"], pool["refuses"]), (0, True))
            self.assertEqual(pool["retry_after"], 60)
        other = self.explain("/v1", host="a.example.org", client="2001:db8::7", method="POST")
        self.assertEqual(other["answer"], None)
        self.assertEqual(other["limits"][1]["key"], "2001:db8::/64")

    def test_nothing_changes(self) -> None:
        """Metrics and the order of the servers are the same after many explanations."""
        self.start(WEB, pools=(APP, API))
        self.send()

        def lines() -> list[str]:
            text = metrics_text(self.balancer.service)
            return [line for line in text.splitlines() if line.startswith("balancebeam_")]

        before = lines()
        for _ in range(5):
            self.assertEqual(self.reasons()[0], ("10.0.0.2:80", "next turn"))
        self.assertEqual(lines(), before)

    def test_saturated_pool(self) -> None:
        """Servers without capacity come after the next one; then requests are queued."""
        pool = evolve(
            APP,
            servers=(server("10.0.0.1", max_in_flight=1), server("10.0.0.2", max_in_flight=2)),
            queue=QueueSettings(limit=1),
        )
        self.start(evolve(WEB, routes=()), pools=(pool,))
        self.send()
        self.send()
        self.assertEqual(
            self.reasons(),
            [
                ("10.0.0.2:80", "following turn"),
                ("10.0.0.1:80", "at max_in_flight (1): next turn"),
            ],
        )
        self.send()
        self.assertEqual(self.reasons()[0][1], "request queued: at max_in_flight (2): next turn")
        self.assertEqual(self.explain()["answer"], None)
        self.send()
        self.assertTrue(self.reasons()[0][1].startswith("queue full: at max_in_flight"))
        self.assertEqual(self.explain()["answer"], 503)

    def test_ejected_server_of_a_saturated_pool(self) -> None:
        """A request waits for a saturated server, and is not sent to an ejected one."""
        pool = evolve(APP, servers=(server("10.0.0.1"), server("10.0.0.2", max_in_flight=1)))
        self.start(evolve(WEB, routes=()), pools=(pool,))
        self.send()
        self.balancer.connectors[0].refuse()
        reasons = self.reasons()
        self.assertEqual(
            reasons[0], ("10.0.0.2:80", "request queued: at max_in_flight (1): next turn")
        )
        self.assertTrue(reasons[1][1].startswith("request queued: ejected, tried last"), reasons)
        self.send()
        self.assertEqual(len(self.balancer.service.resource.queue), 1)

    def test_servers_that_are_no_candidates(self) -> None:
        """Ejected servers are tried last; draining and other servers are listed behind them."""
        hosts = [f"10.0.0.{number}" for number in range(1, 7)]
        pool = PoolSettings("app", tuple(server(host) for host in hosts))
        self.start(evolve(WEB, routes=()), pools=(pool,))
        health = self.balancer.service.default_pool.health
        servers = self.balancer.servers
        self.send()
        self.balancer.connectors[0].refuse()
        self.send()
        removed = next(s for s in servers if s.in_flight == 1)
        health.set_admin_state(servers[3], AdminState.DRAIN)
        health.set_admin_state(servers[4], AdminState.MAINTENANCE)
        health.set_weight(servers[5], 0)
        self.balancer.service.server_set.remove(removed)
        reasons = dict(self.reasons())
        self.assertTrue(reasons["10.0.0.1:80"].startswith("ejected, tried last: "), reasons)
        self.assertEqual(reasons["10.0.0.4:80"], "not a candidate: draining")
        self.assertEqual(reasons["10.0.0.5:80"], "not a candidate: in maintenance")
        self.assertEqual(reasons["10.0.0.6:80"], "not a candidate: weight 0")
        self.assertEqual(reasons[removed.name], "not a candidate: removed, draining")
        states = {row["server"]: row["state"] for row in self.explain()["candidates"]}
        self.assertEqual(states[removed.name], "draining")
        self.assertEqual(states["10.0.0.1:80"], "down")

    def test_no_server(self) -> None:
        """Without a server to try the answer is 503, and checked servers are listed as down."""
        self.start(evolve(WEB, routes=()), pools=(evolve(APP, servers=APP.servers[:1]),))
        health = self.balancer.service.default_pool.health
        for _ in range(2):
            health.check_finished(self.balancer.servers[0], False, "status 500")
        explanation = self.explain()
        self.assertEqual(explanation["answer"], 503)
        (candidate,) = explanation["candidates"]
        self.assertTrue(candidate["reason"].startswith("not a candidate: down: "), candidate)

    def test_access_list(self) -> None:
        """A client that the access list denies is answered with 403."""
        self.start(evolve(WEB, deny=("192.0.2.0/24",)), pools=(APP, API))
        self.assertEqual(self.explain(client=CLIENT)["answer"], 403)
        self.assertEqual(self.explain(client="::ffff:192.0.2.9")["answer"], 403)
        self.assertEqual(self.explain()["answer"], None)

    def test_redirect_and_frontends(self) -> None:
        """The first frontend is explained; a URL with https selects one with TLS."""
        redirect = FrontendSettings("plain", bind=(), redirect_https=True)
        secure = evolve(WEB, tls=FrontendTlsSettings(self_signed=True))
        self.start(redirect, secure, pools=(APP, API))
        explanation = self.explain("http://example.org/")
        self.assertEqual((explanation["frontend"], explanation["answer"]), ("plain", 308))
        self.assertEqual((explanation["pool"], explanation["candidates"]), (None, []))
        self.assertEqual(self.explain("/")["answer"], 400)
        self.balancer.service.find_challenge = lambda path: b"key" if path.endswith(b"/t") else None
        self.assertEqual(self.explain("/.well-known/acme-challenge/t")["answer"], 200)
        self.assertEqual(self.explain("https://example.org/")["frontend"], "web")
        self.assertEqual(self.explain("http://example.org/", frontend="web")["frontend"], "web")

    def test_registration(self) -> None:
        """The registration endpoint answers requests without a body itself."""
        self.start(evolve(WEB, registration=True), pools=(APP, API))
        for client, method, status in (
            (CLIENT, "POST", 403),
            ("127.0.0.1", "GET", 405),
            ("127.0.0.1", "POST", 415),
        ):
            explanation = self.explain("/register", client=client, method=method)
            self.assertEqual(explanation["route"], "/register")
            self.assertEqual(explanation["answer"], status)

    def test_tcp_frontend(self) -> None:
        """A TCP connection is routed by the server name and limited by the client."""
        frontend = FrontendSettings(
            "db",
            bind=(),
            mode="tcp",
            pool="app",
            routes=(RouteSettings("api", "db.example.org"),),
            limits=(LimitSettings(3),),
        )
        self.start(frontend, pools=(APP, API))
        self.assertEqual(self.explain("/")["pool"], "app")
        explanation = self.explain("/", host="db.example.org", client=CLIENT)
        self.assertEqual((explanation["pool"], explanation["route"]), ("api", "db.example.org"))
        self.assertEqual(explanation["limits"][0]["key"], CLIENT)

    def test_custom_algorithm(self) -> None:
        """Servers of an algorithm without `explain` are in the order of the configuration."""
        self.start(evolve(WEB, routes=()), pools=(APP,))
        self.balancer.service.default_pool.selector.set_algorithm(LastFirst)
        reason = "not explained by the algorithm"
        self.assertEqual(self.reasons(), [("10.0.0.1:80", reason), ("10.0.0.2:80", reason)])


class InvalidQueryTests(ExplainTestCase):
    """Queries that are rejected with 400."""

    def test_invalid_queries(self) -> None:
        """Each mistake is named, with the expected form."""
        self.start(WEB, pools=(APP, API))
        for query, text in (
            ("", "missing target: expected a path"),
            ("target=", "invalid target '': expected"),
            ("target=v1", "invalid request: invalid request target: the proxy responds with 400"),
            ("target=/a%20b", "invalid target '/a b': expected"),
            ("target=/%0d%0aX:y", "invalid target"),
            ("target=/%20HTTP/1.1%0d%0aX:y%0d%0a", "invalid target"),
            ("target=/%C3%A9", "invalid target"),
            ("target=%FF", "invalid query: expected percent-encoded UTF-8"),
            ("target=ftp://a/", "invalid request: invalid request target"),
            ("target=*", "* requires OPTIONS"),
            ("target=http:///x", "invalid request target"),
            ("target=http://a/&host=b", "Host header contradicts the request target"),
            ("target=/&host=a%0d%0ab", "invalid host 'a\\r\\nb': expected"),
            ("target=/&host=a%2Fb", "invalid host 'a/b': expected a host"),
            ("target=/&method=", "invalid method '': expected a method such as GET"),
            ("target=/&method=G%20T", "invalid method 'G T'"),
            ("target=a:1&method=CONNECT", "the proxy responds with 501"),
            ("target=/&client=example", "invalid client 'example': expected an IP address"),
            ("target=/&client=", "invalid client ''"),
            ("target=/&frontend=x", "unknown frontend 'x': expected one of web"),
            ("target=/&target=/", "repeated parameter target"),
            ("target", "parameter target without a value: expected target=VALUE"),
            ("target=/&path=/", "unknown parameter 'path': expected target or method"),
            (f"target=/{'x' * 9000}", "the proxy responds with 414"),
        ):
            response = self.admin.request("GET", f"/explain?{query}")
            self.assertEqual(response.status, 400, query)
            self.assertIn(text, response.error, query)

    def test_valid_queries(self) -> None:
        """Targets may have a query, a plus sign and an asterisk where HTTP allows them."""
        self.start(WEB, pools=(APP, API))
        for query in (
            "target=/a+b?c=d%26e",
            "target=*&method=OPTIONS",
            "target=http://example.org",
            "target=/&host=",
            "target=/&client=%3A%3A1",
        ):
            response = self.admin.request("GET", f"/explain?{query}")
            self.assertEqual(response.status, 200, query)
        self.assertEqual(self.admin.request("HEAD", "/explain?target=/").status, 200)

    def test_no_frontend(self) -> None:
        """Without a frontend there is nothing to explain."""
        self.start(pools=(APP,))
        response = self.admin.request("GET", "/explain?target=/")
        self.assertEqual((response.status, response.error), (400, "no frontend is configured"))
