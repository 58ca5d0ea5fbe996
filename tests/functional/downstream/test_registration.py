"""S4's `POST /register` on the port where traffic comes in."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import (
    FrontendSettings,
    HealthCheckSettings,
    LimitSettings,
    PoolSettings,
    RouteSettings,
    ServerSettings,
    Settings,
)
from balancebeam.upstream.server_set import Server
from tests.helpers.admin import Response, parse_responses
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer
from tests.helpers.processes import TIMEOUT, read_head, respond_with, run_balancer
from tests.helpers.processes import ScriptedServer as RealServer

JSON = b"Content-Type: application/json\r\n"
BODY = b'{"address": "http://10.9.9.9:80", "weight": 5}'
HERE = "127.0.0.1"
PROXY = "127.0.0.2"
STRANGER = "203.0.113.9"


def pool(name: str, host: str) -> PoolSettings:
    return PoolSettings(name, (ServerSettings(TcpAddress(host, 80)),))


FRONTEND = FrontendSettings(
    bind=(),
    registration=True,
    registration_from=("10.1.0.0/16",),
    trusted_proxies=(PROXY, "192.0.2.1"),
    routes=(RouteSettings("other", host="app.example"), RouteSettings("other", path="/register")),
)


class RegistrationTestCase(SynchronousTestCase):
    """A balancer where servers register, in memory."""

    def setUp(self) -> None:
        self.start(FRONTEND)

    def start(self, frontend: FrontendSettings) -> None:
        settings = Settings((frontend,), (pool("app", "10.0.0.1"), pool("other", "10.0.0.2")))
        self.balancer = balancer = MemoryBalancer.from_settings(settings)
        self.health_checks: list[tuple[Server, HealthCheckSettings, Deferred[str]]] = []
        balancer.service.admin_operations._check = self._check
        self.addCleanup(balancer.stop)

    def _check(self, server: Server, checks: HealthCheckSettings) -> Deferred[str]:
        asking: Deferred[str] = Deferred()
        self.health_checks.append((server, checks, asking))
        return asking

    def send(self, host: str, request: bytes) -> Peer:
        """The client that sent `request`."""
        client = self.balancer.client(host)
        client.send(request)
        return client

    def request(
        self, fields: bytes = JSON, body: bytes = BODY, line: bytes = b"POST /register HTTP/1.1"
    ) -> bytes:
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        return line + b"\r\nHost: app.example\r\n" + fields + length + b"\r\n" + body

    def replies(self, client: Peer) -> list[Response]:
        return parse_responses(client.received())

    def refused(self, host: str, request: bytes) -> Response:
        """The answer to who is told no at once, with nothing done for it."""
        before = len(self.health_checks)
        client = self.send(host, request)
        (reply,) = self.replies(client)
        self.assertEqual(len(self.health_checks), before)
        self.assertEqual(self.balancer.connectors, [])
        self.assertEqual(json.loads(reply.body)["status"] in ("error", "fail"), True)
        return reply

    def accepted(self, host: str, request: bytes) -> None:
        """See that who sent `request` may register."""
        client = self.send(host, request)
        self.assertEqual(len(self.health_checks), 1, client.received())
        self.health_checks.pop()[2].callback("fine")
        (reply,) = self.replies(client)
        self.assertEqual(reply.data, {"server": "http://10.9.9.9:80", "weight": 5})


class RegistrationResponseTests(RegistrationTestCase):
    """What servers are told."""

    def test_one_that_is_alive_gets_traffic(self) -> None:
        client = self.send(HERE, self.request())
        server, checks, asking = self.health_checks[0]
        self.assertEqual((server.name, checks.path), ("10.9.9.9:80", "/health"))
        self.assertEqual(client.received(), b"")
        asking.callback("fine")
        (reply,) = self.replies(client)
        self.assertEqual(reply.status, 200)
        self.assertEqual(
            json.loads(reply.body),
            {"status": "success", "data": {"server": "http://10.9.9.9:80", "weight": 5}},
        )
        names = [one.name for one in self.balancer.service.pools["app"].server_set.servers]
        self.assertEqual(names, ["10.0.0.1:80", "10.9.9.9:80"])
        self.assertEqual(len(self.balancer.service.pools["other"].server_set.servers), 1)

    def test_one_that_is_not(self) -> None:
        client = self.send(HERE, self.request())
        self.health_checks[0][2].errback(ConnectionError())
        (reply,) = self.replies(client)
        self.assertEqual(reply.status, 404)
        self.assertEqual(reply.title, "http://10.9.9.9:80 not alive, registration failed.")

    def test_mistakes(self) -> None:
        for body, status in (
            *(
                (b"{}", 400),
                (b"{", 400),
                (b"\xff", 400),
                (b'{"address": "10.9.9.9:80", "x": 1}', 403),
            ),
            *((b'{"address": "https://10.9.9.9"}', 400), (b"[" * 60000, 400)),
            (b'{"address": "10.9.9.9:80", "weight": true}', 400),
        ):
            reply = self.refused(HERE, self.request(body=body))
            self.assertEqual(reply.status, status, body[:50])
            self.assertTrue(reply.title)
        self.assertEqual(self.refused(HERE, self.request(body=b"")).status, 400)

    def test_other_methods(self) -> None:
        for method in (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"BREW"):
            reply = self.refused(HERE, self.request(b"", b"", method + b" /register HTTP/1.1"))
            self.assertEqual((reply.status, reply.fields[b"allow"]), (405, b"POST"), method)
        client = self.send(HERE, self.request(b"", b"", b"HEAD /register HTTP/1.1"))
        head = client.received()
        self.assertTrue(head.startswith(b"HTTP/1.1 405 ") and head.endswith(b"\r\n\r\n"), head)

    def test_other_content_types(self) -> None:
        for fields in (b"", b"Content-Type: text/plain\r\n", JSON + JSON):
            self.assertEqual(self.refused(HERE, self.request(fields)).status, 415)
        self.accepted(HERE, self.request(b"Content-Type: Application/Json; charset=utf-8\r\n"))

    def test_pages(self) -> None:
        """A page may have made any name its own (DNS rebinding)."""
        for field in (
            *(b"Origin: http://evil.example", b"Origin: http://app.example", b"Origin: null"),
            *(b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-site"),
            b"Sec-Fetch-Site: same-origin",
        ):
            reply = self.refused(HERE, self.request(JSON + field + b"\r\n"))
            self.assertEqual(reply.status, 403, field)
        self.accepted(HERE, self.request(JSON + b"Sec-Fetch-Site: none\r\n"))

    def test_which_paths(self) -> None:
        for target in (b"/register?x", b"//register", b"/%72egister", b"/a/../register"):
            self.accepted(HERE, self.request(line=b"POST " + target + b" HTTP/1.1"))
        server: Peer | None = None
        for target in (b"/register/x", b"/register/", b"/Register", b"/registerx", b"/x/register"):
            line = b"POST " + target + b" HTTP/1.1\r\nConnection: close"
            client = self.send(HERE, self.request(line=line))
            # By the route for that host, or path.
            self.assertEqual(str(self.balancer.connectors[-1].address), "10.0.0.2:80")
            server = server or self.balancer.accept()
            self.assertIn(target, server.received())
            server.send(OK)
            self.assertIn(b"hello", client.received())
        self.assertEqual(self.health_checks, [])

    def test_without_registration_it_is_a_path_like_any_other(self) -> None:
        self.balancer.service.apply(
            evolve(
                self.balancer.service.settings, frontends=(evolve(FRONTEND, registration=False),)
            )
        )
        self.send(HERE, self.request())
        self.assertEqual(len(self.balancer.connectors), 1)
        self.assertEqual(self.health_checks, [])


class RegistrationAccessTests(RegistrationTestCase):
    """Who may register; a stranger causes no probe."""

    def by(self, *values: bytes, name: bytes = b"X-Forwarded-For") -> bytes:
        return self.request(JSON + b"".join(name + b": " + value + b"\r\n" for value in values))

    def test_who_comes_directly(self) -> None:
        for host in (HERE, "127.9.9.9", "::1", "10.1.2.3", PROXY):
            self.accepted(host, self.request())
        for host in (STRANGER, "10.2.0.1", "2001:db8::1", "unknown", "192.0.2.1", "unix:"):
            reply = self.refused(host, self.request())
            self.assertEqual(
                (reply.status, reply.error), (403, "registration from this address is not allowed")
            )

    def test_strangers_learn_nothing(self) -> None:
        """The address comes before everything else."""
        for request in (self.request(b"", b"x"), self.request(b"", b"", b"GET /register HTTP/1.1")):
            self.assertEqual(self.refused(STRANGER, request).status, 403)

    def test_strangers_behind_a_trusted_proxy(self) -> None:
        for values in (
            *((b"203.0.113.9",), (b"127.0.0.1, 203.0.113.9",), (b"127.0.0.1", b"203.0.113.9")),
            *((b"10.1.2.3, 203.0.113.9, 127.0.0.2",), (b"unknown",), (b"203.0.113.9, x",)),
            *((b"_hidden",), (b"127.0.0.1, unknown",), (b",unknown",)),
        ):
            self.assertEqual(self.refused(PROXY, self.by(*values)).status, 403, values)
        for value in (
            b"for=203.0.113.9",
            b"for=127.0.0.1, for=203.0.113.9",
            b"for=unknown",
            b"by=x",
        ):
            request = self.by(value, name=b"Forwarded")
            self.assertEqual(self.refused(PROXY, request).status, 403, value)

    def test_servers_behind_a_trusted_proxy(self) -> None:
        for values in ((b"10.1.2.3",), (b"203.0.113.9, 10.1.2.3",), (b"10.1.2.3, 192.0.2.1",)):
            self.accepted(PROXY, self.by(*values))
            self.accepted("192.0.2.1", self.by(*values))
        self.accepted(PROXY, self.by(b"for=10.1.2.3", name=b"Forwarded"))
        self.accepted(PROXY, self.by(b"127.0.0.2"))

    def test_fields_of_who_is_not_trusted(self) -> None:
        for value in (b"127.0.0.1", b"10.1.2.3", b"127.0.0.2"):
            self.assertEqual(self.refused(STRANGER, self.by(value)).status, 403)
        # A proxy on this machine of which nobody told us speaks for the whole world.
        for value in (b"203.0.113.9", b"10.1.2.3", b"127.0.0.1, 203.0.113.9"):
            self.assertEqual(self.refused(HERE, self.by(value)).status, 403)
        self.accepted(HERE, self.by(b"127.0.0.1"))

    def test_limits_count(self) -> None:
        self.balancer.service.apply(
            evolve(
                self.balancer.service.settings,
                frontends=(evolve(FRONTEND, limits=(LimitSettings(2),)),),
            )
        )
        self.assertEqual(self.refused(HERE, self.request(body=b"{}")).status, 400)
        self.assertEqual(self.refused(HERE, self.request(body=b"{}")).status, 400)
        reply = self.refused(HERE, self.request())
        self.assertEqual(reply.status, 429)
        self.assertIn(b"retry-after", reply.fields)

    def test_access_lists_count(self) -> None:
        frontend = evolve(FRONTEND, deny=("127.0.0.0/8",))
        self.balancer.service.apply(evolve(self.balancer.service.settings, frontends=(frontend,)))
        self.assertEqual(self.refused(HERE, self.request()).status, 403)

    def test_concurrent_ones_are_given_back(self) -> None:
        limit = LimitSettings(1, algorithm="concurrent")
        frontend = evolve(FRONTEND, limits=(limit,))
        self.balancer.service.apply(evolve(self.balancer.service.settings, frontends=(frontend,)))
        for _ in range(3):
            self.accepted(HERE, self.request())
        client = self.send(HERE, self.request())
        self.assertEqual(self.replies(self.send(HERE, self.request()))[0].status, 429)
        client.reset()
        self.accepted_after_one_that_left()

    def accepted_after_one_that_left(self) -> None:
        self.health_checks.clear()
        self.accepted(HERE, self.request())


class RegistrationConnectionTests(RegistrationTestCase):
    """How bodies come in, and what becomes of the connection."""

    def test_kept(self) -> None:
        client = self.send(HERE, self.request() + GET)
        self.health_checks[0][2].callback("fine")
        (reply,) = self.replies(client)
        self.assertEqual(reply.status, 200)
        self.assertNotIn(b"connection", reply.fields)
        self.balancer.accept().send(OK)
        self.assertIn(b"hello", client.received())

    def test_http_1_0(self) -> None:
        client = self.send(HERE, self.request(line=b"POST /register HTTP/1.0"))
        self.health_checks[0][2].callback("fine")
        (reply,) = self.replies(client)
        self.assertEqual((reply.status, reply.fields[b"connection"]), (200, b"close"))

    def test_octet_by_octet(self) -> None:
        client = self.balancer.client(HERE)
        for octet in self.request():
            client.send(bytes([octet]))
        self.health_checks[0][2].callback("fine")
        self.assertEqual(self.replies(client)[0].status, 200)

    def chunked(self, content: bytes, size: int) -> bytes:
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return framed + b"0\r\nTrailer: x\r\n\r\n"

    def test_chunks(self) -> None:
        fields = JSON + b"Transfer-Encoding: chunked\r\n"
        head = self.request(fields, b"")
        for size in (1, 7, 1000):
            client = self.send(HERE, head + self.chunked(BODY, size))
            self.health_checks.pop()[2].callback("fine")
            self.assertEqual(self.replies(client)[0].status, 200)
            client = self.send(HERE, head)
            for octet in self.chunked(BODY, size):
                client.send(bytes([octet]))
            self.health_checks.pop()[2].callback("fine")
            self.assertEqual(self.replies(client)[0].status, 200)
        self.assertEqual(self.refused(HERE, head + b"0\r\n\r\n").status, 400)
        self.assertEqual(self.refused(HERE, head + b"zz\r\n").status, 400)

    def test_who_waits_for_100_continue(self) -> None:
        request = self.request(JSON + b"Expect: 100-continue\r\n")
        head, body = request[: -len(BODY)], BODY
        client = self.send(HERE, head)
        self.assertEqual(client.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(body)
        self.health_checks[0][2].callback("fine")
        self.assertEqual(self.replies(client)[0].status, 200)

    def test_who_may_not_is_not_asked_for_the_body(self) -> None:
        request = self.request(JSON + b"Expect: 100-continue\r\n")[: -len(BODY)]
        client = self.send(STRANGER, request)
        (reply,) = self.replies(client)
        self.assertEqual(reply.status, 403)

    def test_too_large(self) -> None:
        body = b"x" * 70000
        self.assertEqual(self.refused(HERE, self.request(body=body)).status, 413)
        head = self.request(JSON + b"Transfer-Encoding: chunked\r\n", b"")
        self.assertEqual(self.refused(HERE, head + self.chunked(body, 5000)).status, 413)
        client = self.send(HERE, head)
        for _ in range(70):
            if client.transport.reading and not client.transport.closing:
                client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(self.replies(client)[0].status, 413)

    def test_a_slow_body(self) -> None:
        client = self.send(HERE, self.request()[:-5])
        self.balancer.advance(130)
        self.assertEqual(self.replies(client)[0].status, 408)
        self.assertEqual(self.health_checks, [])

    def test_a_cut_body(self) -> None:
        client = self.send(HERE, self.request()[:-5])
        client.reset()
        self.assertEqual(self.health_checks, [])

    def test_who_leaves_while_the_server_is_asked(self) -> None:
        client = self.send(HERE, self.request())
        client.reset()
        self.health_checks[0][2].callback("fine")
        self.assertEqual(len(self.balancer.servers), 2)

    def test_stopping_while_a_server_is_asked(self) -> None:
        client = self.send(HERE, self.request())
        self.balancer.service.stopService()
        self.assertTrue(self.health_checks[0][2].called)
        client.received()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(len(self.balancer.servers), 1)

    def test_draining_while_a_server_is_asked(self) -> None:
        client = self.send(HERE, self.request())
        drained = self.balancer.service.drain()
        self.balancer.advance(2)
        self.assertNoResult(drained)
        self.health_checks[0][2].callback("fine")
        (reply,) = self.replies(client)
        self.assertEqual((reply.status, reply.fields[b"connection"]), (200, b"close"))
        self.balancer.finish_closing()
        self.balancer.advance(2)
        self.successResultOf(drained)

    def test_a_mistake_of_ours(self) -> None:
        def fail(*_: Any) -> Any:
            raise ZeroDivisionError

        self.balancer.service.admin_operations.register = fail  # type: ignore[method-assign, assignment]
        client = self.send(HERE, self.request())
        (reply,) = self.replies(client)
        self.assertEqual((reply.status, reply.error), (500, "internal error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def test_through_the_program(tmp_path: Path) -> None:
    """A server registers itself, is asked for its health, and gets traffic."""
    asked: list[bytes] = []

    def serve(connection: Any, number: int) -> None:
        head, _ = read_head(connection)
        asked.append(head)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")

    with RealServer(respond_with("old")) as old, RealServer(serve) as new:
        with run_balancer(tmp_path, "--upstream", old.address, "--registration") as running:
            body = json.dumps({"address": f"http://{new.address}"}).encode()
            head = b"POST /register HTTP/1.1\r\nHost: a\r\n" + JSON
            with running.connect() as client:
                client.settimeout(TIMEOUT)
                client.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                answer, rest = read_head(client)
                assert answer.startswith(b"HTTP/1.1 200 "), answer
                while not rest.endswith(b"}}"):
                    rest += client.recv(1000)
                assert json.loads(rest)["data"] == {"server": f"http://{new.address}", "weight": 1}
                assert asked[0].startswith(b"GET /health HTTP/1.1\r\n")
                pages = set()
                for _ in range(2):
                    client.sendall(GET)
                    _, page = read_head(client)
                    pages.add(page or client.recv(3))
                assert pages == {b"old", b"new"}
