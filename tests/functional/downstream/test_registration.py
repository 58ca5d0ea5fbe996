"""The reference registration API, `POST /register`, on a frontend's listeners."""

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
from balancebeam.tls.client_contexts import ServerTls
from balancebeam.upstream.server import Server
from tests.helpers.admin import Response, parse_responses
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer
from tests.helpers.processes import (
    TIMEOUT,
    ScriptedServer,
    read_head,
    respond_with,
    run_balancer,
)

JSON = b"Content-Type: application/json\r\n"
BODY = b'{"address": "http://10.9.9.9:80", "weight": 5}'
LOOPBACK = "127.0.0.1"
PROXY = "127.0.0.2"
OUTSIDE = "203.0.113.9"


def pool(name: str, host: str) -> PoolSettings:
    """A pool with one server."""
    return PoolSettings(name, (ServerSettings(TcpAddress(host, 80)),))


FRONTEND = FrontendSettings(
    bind=(),
    registration=True,
    registration_from=("10.1.0.0/16",),
    trusted_proxies=(PROXY, "192.0.2.1"),
    routes=(RouteSettings("other", host="app.example"), RouteSettings("other", path="/register")),
)


class RegistrationTestCase(SynchronousTestCase):
    """A balancer in memory that accepts registrations."""

    def setUp(self) -> None:
        """Start with `FRONTEND`, where trusted proxies and networks are configured."""
        self.start(FRONTEND)

    def start(self, frontend: FrontendSettings) -> None:
        """Start a balancer whose health checks are recorded and pending."""
        settings = Settings((frontend,), (pool("app", "10.0.0.1"), pool("other", "10.0.0.2")))
        self.balancer = balancer = MemoryBalancer.from_settings(settings)
        self.health_checks: list[tuple[Server, HealthCheckSettings, Deferred[str]]] = []
        balancer.service.admin_operations._check = self._check
        self.addCleanup(balancer.stop)

    def _check(
        self, server: Server, checks: HealthCheckSettings, tls: ServerTls | None
    ) -> Deferred[str]:
        """Stand in for a health check: its result is a pending Deferred."""
        result: Deferred[str] = Deferred()
        self.health_checks.append((server, checks, result))
        return result

    def send(self, host: str, request: bytes) -> Peer:
        """A client of this address that has sent `request`."""
        client = self.balancer.client(host)
        client.send(request)
        return client

    def request(
        self, fields: bytes = JSON, body: bytes = BODY, line: bytes = b"POST /register HTTP/1.1"
    ) -> bytes:
        """A registration request, complete and valid by default."""
        length = b"Content-Length: %d\r\n" % len(body) if body else b""
        return line + b"\r\nHost: app.example\r\n" + fields + length + b"\r\n" + body

    def responses(self, client: Peer) -> list[Response]:
        """The responses that `client` has received."""
        return parse_responses(client.received())

    def assert_rejected(self, host: str, request: bytes) -> Response:
        """`request` is answered immediately with an error, and starts no health check."""
        pending = len(self.health_checks)
        client = self.send(host, request)
        (response,) = self.responses(client)
        self.assertEqual(len(self.health_checks), pending)
        self.assertEqual(self.balancer.connectors, [])
        self.assertEqual(json.loads(response.body)["status"] in ("error", "fail"), True)
        return response

    def assert_accepted(self, host: str, request: bytes) -> None:
        """`request` starts a health check, and after that succeeds."""
        client = self.send(host, request)
        self.assertEqual(len(self.health_checks), 1, client.received())
        self.health_checks.pop()[2].callback("200 OK")
        (response,) = self.responses(client)
        self.assertEqual(response.data, {"server": "http://10.9.9.9:80", "weight": 5})


class RegistrationResponseTests(RegistrationTestCase):
    """Responses to registrations from accepted addresses."""

    def test_healthy_server_is_added(self) -> None:
        """A server that passes its health check is added to the frontend's own pool."""
        client = self.send(LOOPBACK, self.request())
        server, checks, result = self.health_checks[0]
        self.assertEqual((server.name, checks.path), ("10.9.9.9:80", "/health"))
        self.assertEqual(client.received(), b"")
        result.callback("200 OK")
        (response,) = self.responses(client)
        self.assertEqual(response.status, 200)
        self.assertEqual(
            json.loads(response.body),
            {"status": "success", "data": {"server": "http://10.9.9.9:80", "weight": 5}},
        )
        names = [server.name for server in self.balancer.service.pools["app"].server_set.servers]
        self.assertEqual(names, ["10.0.0.1:80", "10.9.9.9:80"])
        self.assertEqual(len(self.balancer.service.pools["other"].server_set.servers), 1)

    def test_unhealthy_server_is_rejected(self) -> None:
        """A server that fails its health check is rejected with 404."""
        client = self.send(LOOPBACK, self.request())
        self.health_checks[0][2].errback(ConnectionError())
        (response,) = self.responses(client)
        self.assertEqual(response.status, 404)
        self.assertEqual(response.title, "http://10.9.9.9:80 not alive, registration failed.")

    def test_invalid_bodies(self) -> None:
        """Invalid JSON, unknown fields and invalid values are rejected."""
        for body, status in (
            *(
                (b"{}", 400),
                (b"{", 400),
                (b"\xff", 400),
                (b'{"address": "10.9.9.9:80", "x": 1}', 403),
            ),
            *((b'{"address": "tls://10.9.9.9:1"}', 400), (b"[" * 60000, 400)),
            (b'{"address": "10.9.9.9:80", "weight": true}', 400),
        ):
            response = self.assert_rejected(LOOPBACK, self.request(body=body))
            self.assertEqual(response.status, status, body[:50])
            self.assertTrue(response.title)
        self.assertEqual(self.assert_rejected(LOOPBACK, self.request(body=b"")).status, 400)

    def test_other_methods(self) -> None:
        """Methods other than POST are rejected with 405 and Allow."""
        for method in (b"GET", b"PUT", b"DELETE", b"OPTIONS", b"BREW"):
            response = self.assert_rejected(
                LOOPBACK, self.request(b"", b"", method + b" /register HTTP/1.1")
            )
            self.assertEqual((response.status, response.fields[b"allow"]), (405, b"POST"), method)
            title = f"Wrong method. Expected POST, got {method.decode()}."
            self.assertEqual(response.title, title)
        long = self.assert_rejected(
            LOOPBACK, self.request(b"", b"", b"X" * 999 + b" /register HTTP/1.1")
        )
        self.assertEqual(long.title, f"Wrong method. Expected POST, got {'X' * 100}.")
        client = self.send(LOOPBACK, self.request(b"", b"", b"HEAD /register HTTP/1.1"))
        head = client.received()
        self.assertTrue(head.startswith(b"HTTP/1.1 405 ") and head.endswith(b"\r\n\r\n"), head)

    def test_other_content_types(self) -> None:
        """A body that is not application/json is rejected with 415."""
        for fields in (b"", b"Content-Type: text/plain\r\n", JSON + JSON):
            self.assertEqual(self.assert_rejected(LOOPBACK, self.request(fields)).status, 415)
        self.assert_accepted(
            LOOPBACK, self.request(b"Content-Type: Application/Json; charset=utf-8\r\n")
        )

    def test_web_pages(self) -> None:
        """Requests of web pages are rejected, of the same origin too (DNS rebinding)."""
        for field in (
            *(b"Origin: http://evil.example", b"Origin: http://app.example", b"Origin: null"),
            *(b"Sec-Fetch-Site: cross-site", b"Sec-Fetch-Site: same-site"),
            b"Sec-Fetch-Site: same-origin",
        ):
            response = self.assert_rejected(LOOPBACK, self.request(JSON + field + b"\r\n"))
            self.assertEqual(response.status, 403, field)
        self.assert_accepted(LOOPBACK, self.request(JSON + b"Sec-Fetch-Site: none\r\n"))

    def test_paths(self) -> None:
        """Equivalent spellings of `/register` reach the endpoint; other paths do not."""
        for target in (b"/register?x", b"//register", b"/%72egister", b"/a/../register"):
            self.assert_accepted(LOOPBACK, self.request(line=b"POST " + target + b" HTTP/1.1"))
        server: Peer | None = None
        for target in (b"/register/x", b"/register/", b"/Register", b"/registerx", b"/x/register"):
            line = b"POST " + target + b" HTTP/1.1\r\nConnection: close"
            client = self.send(LOOPBACK, self.request(line=line))
            # The route of this host, or of this path.
            self.assertEqual(str(self.balancer.connectors[-1].address), "10.0.0.2:80")
            server = server or self.balancer.accept()
            self.assertIn(target, server.received())
            server.send(OK)
            self.assertIn(b"hello", client.received())
        self.assertEqual(self.health_checks, [])

    def test_registration_disabled(self) -> None:
        """Without `registration` the path is routed like any other."""
        self.balancer.service.apply(
            evolve(
                self.balancer.service.settings, frontends=(evolve(FRONTEND, registration=False),)
            )
        )
        self.send(LOOPBACK, self.request())
        self.assertEqual(len(self.balancer.connectors), 1)
        self.assertEqual(self.health_checks, [])


class RegistrationAccessTests(RegistrationTestCase):
    """Addresses from which registration is accepted; others cause no health check."""

    def forwarded_request(self, *values: bytes, name: bytes = b"X-Forwarded-For") -> bytes:
        """A registration request with these values of a forwarding header."""
        return self.request(JSON + b"".join(name + b": " + value + b"\r\n" for value in values))

    def test_direct_clients(self) -> None:
        """Loopback and configured networks are accepted, other addresses rejected with 403."""
        for host in (LOOPBACK, "127.9.9.9", "::1", "10.1.2.3", PROXY):
            self.assert_accepted(host, self.request())
        for host in (OUTSIDE, "10.2.0.1", "2001:db8::1", "unknown", "192.0.2.1", "unix:"):
            response = self.assert_rejected(host, self.request())
            self.assertEqual(
                (response.status, response.error),
                (403, "registration from this address is not allowed"),
            )

    def test_address_is_checked_first(self) -> None:
        """From other addresses, invalid requests are rejected with 403 as well."""
        for request in (self.request(b"", b"x"), self.request(b"", b"", b"GET /register HTTP/1.1")):
            self.assertEqual(self.assert_rejected(OUTSIDE, request).status, 403)

    def test_rejected_clients_of_a_trusted_proxy(self) -> None:
        """A client that a trusted proxy names is checked; unknown and hidden ones are rejected."""
        for values in (
            *((b"203.0.113.9",), (b"127.0.0.1, 203.0.113.9",), (b"127.0.0.1", b"203.0.113.9")),
            *((b"10.1.2.3, 203.0.113.9, 127.0.0.2",), (b"unknown",), (b"203.0.113.9, x",)),
            *((b"_hidden",), (b"127.0.0.1, unknown",), (b",unknown",)),
        ):
            self.assertEqual(
                self.assert_rejected(PROXY, self.forwarded_request(*values)).status, 403, values
            )
        for value in (
            b"for=203.0.113.9",
            b"for=127.0.0.1, for=203.0.113.9",
            b"for=unknown",
            b"by=x",
        ):
            request = self.forwarded_request(value, name=b"Forwarded")
            self.assertEqual(self.assert_rejected(PROXY, request).status, 403, value)

    def test_accepted_clients_of_a_trusted_proxy(self) -> None:
        """A client in a configured network that a trusted proxy names is accepted."""
        for values in ((b"10.1.2.3",), (b"203.0.113.9, 10.1.2.3",), (b"10.1.2.3, 192.0.2.1",)):
            self.assert_accepted(PROXY, self.forwarded_request(*values))
            self.assert_accepted("192.0.2.1", self.forwarded_request(*values))
        self.assert_accepted(PROXY, self.forwarded_request(b"for=10.1.2.3", name=b"Forwarded"))
        self.assert_accepted(PROXY, self.forwarded_request(b"127.0.0.2"))

    def test_forwarding_headers_of_an_untrusted_peer(self) -> None:
        """Forwarding headers of an untrusted peer never help, and prove that it is a proxy."""
        for value in (b"127.0.0.1", b"10.1.2.3", b"127.0.0.2"):
            self.assertEqual(
                self.assert_rejected(OUTSIDE, self.forwarded_request(value)).status, 403
            )
        # A proxy on this host that is not configured may relay requests of any client.
        for value in (b"203.0.113.9", b"10.1.2.3", b"127.0.0.1, 203.0.113.9"):
            self.assertEqual(
                self.assert_rejected(LOOPBACK, self.forwarded_request(value)).status, 403
            )
        self.assert_accepted(LOOPBACK, self.forwarded_request(b"127.0.0.1"))

    def test_rate_limit_applies(self) -> None:
        """Registrations count for the frontend's rate limit."""
        self.balancer.service.apply(
            evolve(
                self.balancer.service.settings,
                frontends=(evolve(FRONTEND, limits=(LimitSettings(2),)),),
            )
        )
        self.assertEqual(self.assert_rejected(LOOPBACK, self.request(body=b"{}")).status, 400)
        self.assertEqual(self.assert_rejected(LOOPBACK, self.request(body=b"{}")).status, 400)
        response = self.assert_rejected(LOOPBACK, self.request())
        self.assertEqual(response.status, 429)
        self.assertIn(b"retry-after", response.fields)

    def test_access_list_applies(self) -> None:
        """The frontend's access list applies to registrations."""
        frontend = evolve(FRONTEND, deny=("127.0.0.0/8",))
        self.balancer.service.apply(evolve(self.balancer.service.settings, frontends=(frontend,)))
        self.assertEqual(self.assert_rejected(LOOPBACK, self.request()).status, 403)

    def test_concurrency_permits_are_released(self) -> None:
        """A registration that has finished or was aborted releases its permit."""
        limit = LimitSettings(1, algorithm="concurrent")
        frontend = evolve(FRONTEND, limits=(limit,))
        self.balancer.service.apply(evolve(self.balancer.service.settings, frontends=(frontend,)))
        for _ in range(3):
            self.assert_accepted(LOOPBACK, self.request())
        client = self.send(LOOPBACK, self.request())
        self.assertEqual(self.responses(self.send(LOOPBACK, self.request()))[0].status, 429)
        client.reset()
        self.health_checks.clear()
        self.assert_accepted(LOOPBACK, self.request())


class RegistrationConnectionTests(RegistrationTestCase):
    """Reading of the body, and the client connection after the response."""

    def test_persistent_connection(self) -> None:
        """The connection persists, and a pipelined request follows."""
        client = self.send(LOOPBACK, self.request() + GET)
        self.health_checks[0][2].callback("200 OK")
        (response,) = self.responses(client)
        self.assertEqual(response.status, 200)
        self.assertNotIn(b"connection", response.fields)
        self.balancer.accept().send(OK)
        self.assertIn(b"hello", client.received())

    def test_http_1_0(self) -> None:
        """The connection of an HTTP/1.0 client closes after the response."""
        client = self.send(LOOPBACK, self.request(line=b"POST /register HTTP/1.0"))
        self.health_checks[0][2].callback("200 OK")
        (response,) = self.responses(client)
        self.assertEqual((response.status, response.fields[b"connection"]), (200, b"close"))

    def test_byte_by_byte(self) -> None:
        """A request that arrives byte by byte is accepted."""
        client = self.balancer.client(LOOPBACK)
        for byte in self.request():
            client.send(bytes([byte]))
        self.health_checks[0][2].callback("200 OK")
        self.assertEqual(self.responses(client)[0].status, 200)

    def encode_chunked(self, content: bytes, size: int) -> bytes:
        """`content` in chunks of `size` bytes, with extensions and a trailer."""
        pieces = [content[at : at + size] for at in range(0, len(content), size)]
        framed = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        return framed + b"0\r\nTrailer: x\r\n\r\n"

    def test_chunked_body(self) -> None:
        """Chunked bodies are decoded; an empty or malformed one is rejected with 400."""
        fields = JSON + b"Transfer-Encoding: chunked\r\n"
        head = self.request(fields, b"")
        for size in (1, 7, 1000):
            client = self.send(LOOPBACK, head + self.encode_chunked(BODY, size))
            self.health_checks.pop()[2].callback("200 OK")
            self.assertEqual(self.responses(client)[0].status, 200)
            client = self.send(LOOPBACK, head)
            for byte in self.encode_chunked(BODY, size):
                client.send(bytes([byte]))
            self.health_checks.pop()[2].callback("200 OK")
            self.assertEqual(self.responses(client)[0].status, 200)
        self.assertEqual(self.assert_rejected(LOOPBACK, head + b"0\r\n\r\n").status, 400)
        self.assertEqual(self.assert_rejected(LOOPBACK, head + b"zz\r\n").status, 400)

    def test_100_continue(self) -> None:
        """A client that awaits 100 (Continue) receives it."""
        request = self.request(JSON + b"Expect: 100-continue\r\n")
        head, body = request[: -len(BODY)], BODY
        client = self.send(LOOPBACK, head)
        self.assertEqual(client.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        client.send(body)
        self.health_checks[0][2].callback("200 OK")
        self.assertEqual(self.responses(client)[0].status, 200)

    def test_no_100_continue_for_rejected_clients(self) -> None:
        """A rejected client receives 403 instead of 100 (Continue)."""
        request = self.request(JSON + b"Expect: 100-continue\r\n")[: -len(BODY)]
        client = self.send(OUTSIDE, request)
        (response,) = self.responses(client)
        self.assertEqual(response.status, 403)

    def test_body_too_large(self) -> None:
        """A body above 64 KiB is rejected with 413, with any framing."""
        body = b"x" * 70000
        self.assertEqual(self.assert_rejected(LOOPBACK, self.request(body=body)).status, 413)
        head = self.request(JSON + b"Transfer-Encoding: chunked\r\n", b"")
        self.assertEqual(
            self.assert_rejected(LOOPBACK, head + self.encode_chunked(body, 5000)).status, 413
        )
        client = self.send(LOOPBACK, head)
        for _ in range(70):
            if client.transport.reading and not client.transport.closing:
                client.send(b"400\r\n" + b"x" * 1024 + b"\r\n")
        self.assertEqual(self.responses(client)[0].status, 413)

    def test_body_timeout(self) -> None:
        """A stalled body is rejected with 408, without a health check."""
        client = self.send(LOOPBACK, self.request()[:-5])
        self.balancer.advance(130)
        self.assertEqual(self.responses(client)[0].status, 408)
        self.assertEqual(self.health_checks, [])

    def test_truncated_body(self) -> None:
        """A reset within the body starts no health check."""
        client = self.send(LOOPBACK, self.request()[:-5])
        client.reset()
        self.assertEqual(self.health_checks, [])

    def test_disconnect_during_the_health_check(self) -> None:
        """A registration counts although its client has disconnected."""
        client = self.send(LOOPBACK, self.request())
        client.reset()
        self.health_checks[0][2].callback("200 OK")
        self.assertEqual(len(self.balancer.servers), 2)

    def test_stop_during_the_health_check(self) -> None:
        """Stopping cancels the health check, and logs no error."""
        client = self.send(LOOPBACK, self.request())
        self.balancer.service.stopService()
        self.assertTrue(self.health_checks[0][2].called)
        client.received()
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual(len(self.balancer.servers), 1)

    def test_drain_during_the_health_check(self) -> None:
        """Draining waits for a registration in progress."""
        client = self.send(LOOPBACK, self.request())
        drained = self.balancer.service.drain()
        self.balancer.advance(2)
        self.assertNoResult(drained)
        self.health_checks[0][2].callback("200 OK")
        (response,) = self.responses(client)
        self.assertEqual((response.status, response.fields[b"connection"]), (200, b"close"))
        self.balancer.finish_closing()
        self.balancer.advance(2)
        self.successResultOf(drained)

    def test_internal_error(self) -> None:
        """An exception in the handler is answered with 500 and logged."""

        def fail(*_: Any) -> Any:
            """Raise an unexpected error."""
            raise ZeroDivisionError

        self.balancer.service.admin_operations.register = fail  # type: ignore[method-assign, assignment]
        client = self.send(LOOPBACK, self.request())
        (response,) = self.responses(client)
        self.assertEqual((response.status, response.error), (500, "internal error"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


def test_registration_in_a_process(tmp_path: Path) -> None:
    """A server registers itself, is health-checked, and receives requests."""
    heads: list[bytes] = []

    def serve(connection: Any, number: int) -> None:
        """Record the request head and respond."""
        head, _ = read_head(connection)
        heads.append(head)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")

    with ScriptedServer(respond_with("old")) as old, ScriptedServer(serve) as new:
        with run_balancer(tmp_path, "--upstream", old.address, "--registration") as running:
            registration = json.dumps({"address": f"http://{new.address}"}).encode()
            head = b"POST /register HTTP/1.1\r\nHost: a\r\n" + JSON
            with running.connect() as client:
                client.settimeout(TIMEOUT)
                client.sendall(
                    head + b"Content-Length: %d\r\n\r\n" % len(registration) + registration
                )
                response, body = read_head(client)
                assert response.startswith(b"HTTP/1.1 200 "), response
                while not body.endswith(b"}}"):
                    body += client.recv(1000)
                assert json.loads(body)["data"] == {"server": f"http://{new.address}", "weight": 1}
                assert heads[0].startswith(b"GET /health HTTP/1.1\r\n")
                bodies = set()
                for _ in range(2):
                    client.sendall(GET)
                    _, body = read_head(client)
                    bodies.add(body or client.recv(3))
                assert bodies == {b"old", b"new"}
