"""Frontends with redirect_https: redirects, ACME challenges, and the rest of the balancer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from balancebeam.core.addresses import ListenAddress, ProxyProtocolAddress, TcpAddress, UnixAddress
from balancebeam.core.settings import (
    FrontendSettings,
    FrontendTlsSettings,
    LimitSettings,
    PoolSettings,
    ServerSettings,
    Settings,
)
from balancebeam.observability.metrics import metrics_text
from balancebeam.proxy.rejected import RejectedRequest
from balancebeam.server.balancer import BalancerService
from tests.helpers.admin import MemoryAdmin, Response, parse_responses
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import DATE_HEADER, GET, OK, MemoryBalancer, Peer

PLAIN = FrontendSettings("plain", bind=(), redirect_https=True)
SECURE = FrontendSettings("secure", bind=(), pool="app")
APP = PoolSettings("app", (ServerSettings(TcpAddress("10.0.0.1", 80)),))
BOTH = Settings((PLAIN, SECURE), (APP,))
SELF_SIGNED = FrontendTlsSettings(self_signed=True)

CHALLENGE = b"/.well-known/acme-challenge/token"


def tcp(port: int) -> TcpAddress:
    """A listen address on every interface."""
    return TcpAddress("0.0.0.0", port)


class RecordingObserver:
    """Records finished exchanges and rejected requests."""

    def __init__(self) -> None:
        self.finished: list[Any] = []
        self.rejected: list[RejectedRequest] = []

    def exchange_finished(self, exchange: Any) -> None:
        """Record an exchange."""
        self.finished.append(exchange)

    def request_rejected(self, request: RejectedRequest) -> None:
        """Record a rejected request."""
        self.rejected.append(request)


class RedirectTestCase(BalancerTestCase):
    """A balancer in memory whose first frontend redirects."""

    def start(self, **fields: Any) -> MemoryBalancer:
        """Start a balancer; `fields` are settings of the frontend that redirects."""
        balancer = MemoryBalancer.from_settings(
            evolve(BOTH, frontends=(evolve(PLAIN, **fields), SECURE))
        )
        self.addCleanup(balancer.stop)
        return balancer

    def client(self, balancer: MemoryBalancer, host: str = "192.0.2.1") -> Peer:
        """A client of the frontend that redirects."""
        return balancer.client(host, frontend="plain")

    def respond(self, request: bytes) -> Response:
        """The only response to `request`."""
        client = self.client(self.start())
        client.send(request)
        (response,) = parse_responses(client.received())
        return response

    def location(self, line: bytes, host: bytes) -> bytes | None:
        """The location to which a request is redirected; `None` if it is rejected."""
        response = self.respond(line + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        if response.status == 400:
            self.assertTrue(response.error)
            self.assertNotIn(b"location", response.fields)
            return None
        self.assertEqual((response.status, response.body), (308, b""))
        return response.fields[b"location"]


class RedirectTests(RedirectTestCase):
    """The response to a request."""

    def test_response(self) -> None:
        """The response is 308 with an empty body, and the connection persists."""
        client = self.client(self.start())
        for _ in range(2):
            client.send(GET)
            self.assertEqual(
                client.received(),
                b"HTTP/1.1 308 Permanent Redirect\r\n" + DATE_HEADER + b"Content-Length: 0\r\n"
                b"Location: https://example.org/\r\n\r\n",
            )
        self.assertFalse(client.transport.closing)

    def test_target_is_unchanged(self) -> None:
        """The target is that of the request byte for byte, in origin-form."""
        for target, expected in (
            (b"/a%2Fb//c/../d?e=%20|^`{}&f", b"/a%2Fb//c/../d?e=%20|^`{}&f"),
            (b"//evil.example/x", b"//evil.example/x"),
            (b"/@evil.example", b"/@evil.example"),
            (b"/?https://evil.example", b"/?https://evil.example"),
            (b"http://a/b?c", b"/b?c"),
            (b"http://a", b"/"),
            (b"http://a?b", b"/?b"),
        ):
            self.assertEqual(
                self.location(b"GET " + target, b"a"), b"https://a" + expected, repr(target)
            )

    def test_host_without_port(self) -> None:
        """The host loses its port; an IPv6 address keeps its brackets."""
        for host, expected in (
            (b"a", b"a"),
            (b"A.example:80", b"A.example"),
            (b"a:", b"a"),
            (b"a:65535", b"a"),
            (b"192.0.2.7:8080", b"192.0.2.7"),
            (b"[2001:db8::1]", b"[2001:db8::1]"),
            (b"[2001:db8::1]:80", b"[2001:db8::1]"),
        ):
            location = self.location(b"GET /", host)
            self.assertEqual(location, b"https://" + expected + b"/", repr(host))
        self.assertEqual(self.location(b"GET http://b:8080/x", b"b:8080"), b"https://b/x")

    def test_requests_without_usable_host(self) -> None:
        """A request without a host, with an invalid one or without a path is answered with 400."""
        for line, host in (
            *((b"GET /", b""), (b"OPTIONS *", b"a"), (b"OPTIONS http://a", b"a")),
            *((b"GET /", b"user@a"), (b"GET /", b"a/b"), (b"GET /", b"a b"), (b"GET /", b"a?b")),
            *((b"GET /", b"a:b"), (b"GET /", b"[::1"), (b"GET /", b"a\\b"), (b"GET /", b"a,b")),
            *((b"GET http://user@a/", b"a"), (b"GET http://b/", b"a"), (b"GET https://a/", b"a")),
        ):
            self.assertIsNone(self.location(line, host), msg=repr((line, host)))

    def test_http_1_0(self) -> None:
        """HTTP/1.0 is redirected if there is a host; the connection then closes."""
        response = self.respond(b"GET /a HTTP/1.0\r\nHost: b\r\n\r\n")
        self.assertEqual(response.fields[b"location"], b"https://b/a")
        self.assertEqual(response.fields[b"connection"], b"close")
        response = self.respond(b"GET / HTTP/1.0\r\n\r\n")
        self.assertEqual(response.status, 400)

    def test_no_header_injection(self) -> None:
        """A request whose target or host contains a line end is not redirected."""
        for line, host in (
            *((b"GET /\rSet-Cookie:x", b"a"), (b"GET /\nX: y", b"a")),
            *((b"GET /", b"a\rLocation: b"), (b"GET /", b"a\nLocation: b")),
        ):
            client = self.client(self.start())
            client.send(line + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            self.assert_error(client.received(), 400)
        # A percent-encoded line end stays encoded.
        location = self.location(b"GET /%0d%0aX:y", b"a%0d%0ab")
        self.assertEqual(location, b"https://a%0d%0ab/%0d%0aX:y")

    def test_every_method(self) -> None:
        """Every method is redirected; CONNECT is not supported."""
        for method in (b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"X-NEW"):
            response = self.respond(method + b" /a HTTP/1.1\r\nHost: b\r\nMax-Forwards: 0\r\n\r\n")
            self.assertEqual(response.fields.get(b"location"), b"https://b/a", repr(method))
        self.assertEqual(self.respond(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n").status, 501)

    def test_head(self) -> None:
        """The response to HEAD, an error too, has no body."""
        client = self.client(self.start())
        client.send(b"HEAD /a HTTP/1.1\r\nHost: b\r\n\r\n")
        (response,) = parse_responses(client.received())
        self.assertEqual(response.fields[b"location"], b"https://b/a")
        client.send(b"HEAD / HTTP/1.1\r\nHost:\r\n\r\n")
        self.assertTrue(client.received().endswith(b"\r\n\r\n"))
        self.assertFalse(client.transport.closing)

    def test_pipelined_requests(self) -> None:
        """Pipelined requests are redirected in order."""
        client = self.client(self.start())
        client.send(b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(3)))
        responses = parse_responses(client.received())
        self.assertEqual(
            [response.fields[b"location"] for response in responses],
            [b"https://example.org/%d" % number for number in range(3)],
        )

    def test_request_bodies(self) -> None:
        """A body is discarded up to a limit, and then the connection persists."""
        for fields, body in (
            (b"Content-Length: 5\r\n", b"hello"),
            (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
        ):
            client = self.client(self.start())
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
            self.assertEqual(parse_responses(client.received())[0].status, 308)
            client.send(body[:3], body[3:] + GET)
            (response,) = parse_responses(client.received())
            self.assertEqual(response.fields[b"location"], b"https://example.org/")

    def test_large_or_unread_bodies(self) -> None:
        """The connection closes after a body too large to discard, or one that awaits a 100."""
        for fields in (
            b"Content-Length: 100000\r\n",
            b"Content-Length: 5\r\nExpect: 100-continue\r\n",
        ):
            client = self.client(self.start())
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
            (response,) = parse_responses(client.received())
            self.assertEqual((response.status, response.fields[b"connection"]), (308, b"close"))
            self.assertTrue(client.transport.write_closed)

    def test_upgrade_is_ignored(self) -> None:
        """A request for an upgrade is redirected."""
        fields = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        response = self.respond(b"GET /chat HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n")
        self.assertEqual(response.fields[b"location"], b"https://a/chat")

    @settings(max_examples=200, deadline=None)
    @given(
        st.text("aA1.-_~:[]@/\\?#%&;, \r\n\t", max_size=8), st.text("/@:\\?#%. \r\na", max_size=8)
    )
    def test_location_is_on_the_same_host(self, host: str, target: str) -> None:
        """A redirect leads to the host of the request and to its target, or there is none."""
        balancer = MemoryBalancer.from_settings(BOTH)
        client = self.client(balancer)
        client.send(f"GET /{target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        for line in client.received().split(b"\r\n"):
            if line.startswith(b"Location: "):
                location = line.decode()
                self.assertTrue(location.startswith("Location: https://"), location)
                authority, _, path = location[len("Location: https://") :].partition("/")
                self.assertNotRegex(authority, r"[@\\?#\s]")
                self.assertTrue(host.strip(" \t").partition("\r\n")[0].startswith(authority))
                self.assertTrue(target.startswith(path), location)
        balancer.stop()


class AdmissionTests(RedirectTestCase):
    """Access lists, limits and logs of redirects."""

    def test_access_list(self) -> None:
        """The access list applies to redirects and to challenges."""
        balancer = self.start(deny=("192.0.2.0/24",))
        balancer.service.find_challenge = lambda path: b"key"
        for target in (b"/", CHALLENGE):
            client = self.client(balancer)
            client.send(GET.replace(b"/ ", target + b" "))
            self.assert_error(client.received(), 403)
        client = self.client(balancer, "198.51.100.1")
        client.send(GET)
        self.assertEqual(parse_responses(client.received())[0].status, 308)

    def test_rate_limit(self) -> None:
        """Rate limits of the frontend apply; a rejected request has Retry-After."""
        client = self.client(self.start(limits=(LimitSettings(requests=2),)))
        client.send(GET * 3)
        responses = parse_responses(client.received())
        self.assertEqual([response.status for response in responses], [308, 308, 429])
        self.assertIn(b"retry-after", responses[2].fields)
        self.assertIn(b"ratelimit", responses[2].fields)

    def test_concurrency_limit(self) -> None:
        """A redirect gives its permit back."""
        limit = LimitSettings(algorithm="concurrent", requests=1)
        client = self.client(self.start(limits=(limit,)))
        client.send(GET * 3)
        responses = parse_responses(client.received())
        self.assertEqual([response.status for response in responses], [308] * 3)

    def test_observer(self) -> None:
        """Redirects and rejected requests are logged, with an empty name for the pool."""
        balancer = self.start()
        observer = RecordingObserver()
        balancer.service.frontends["plain"].factory.observer = observer
        client = self.client(balancer)
        client.send(GET)
        client.send(b"GET / HTTP/9.9\r\n\r\n")
        (exchange,) = observer.finished
        self.assertEqual((exchange.status, exchange.dispatcher.pool_name), (308, ""))
        self.assertEqual([request.status for request in observer.rejected], [505])

    def test_max_body(self) -> None:
        """The limit of request bodies applies."""
        client = self.client(self.start(max_body=4))
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        self.assert_error(client.received(), 413)


class ChallengeTests(RedirectTestCase):
    """ACME http-01 challenges (RFC 8555, 8.3)."""

    def setUp(self) -> None:
        self.balancer_ = self.start()
        self.paths: list[bytes] = []
        self.balancer_.service.find_challenge = self.find

    def find(self, path: bytes) -> bytes | None:
        """Stand in for the challenges of the ACME client."""
        self.paths.append(path)
        return b"token.thumbprint" if path == CHALLENGE else None

    def get(self, target: bytes, line: bytes = b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n") -> Response:
        """The response to a request for `target`."""
        client = self.client(self.balancer_)
        client.send(line % target)
        (response,) = parse_responses(client.received())
        return response

    def test_known_token(self) -> None:
        """The key authorization is sent for a known token, also without Host."""
        for line in (b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n", b"GET %b HTTP/1.0\r\n\r\n"):
            response = self.get(CHALLENGE, line)
            self.assertEqual((response.status, response.body), (200, b"token.thumbprint"))
            self.assertEqual(response.fields[b"content-type"], b"application/octet-stream")
            self.assertNotIn(b"location", response.fields)
        self.assertEqual(self.get(CHALLENGE + b"?a=b").status, 200)
        self.assertEqual(self.paths, [CHALLENGE] * 3)

    def test_head(self) -> None:
        """HEAD gets the length without the body."""
        client = self.client(self.balancer_)
        client.send(b"HEAD " + CHALLENGE + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        received = client.received()
        self.assertIn(b"Content-Length: 16\r\n", received)
        self.assertTrue(received.endswith(b"\r\n\r\n"))

    def test_everything_else_is_redirected(self) -> None:
        """Unknown tokens, other paths and other methods are redirected."""
        post = b"POST %b HTTP/1.1\r\nHost: a\r\n\r\n"
        for target in (CHALLENGE + b"x", CHALLENGE + b"/", b"/", b"/.well-known/acme-challenge"):
            self.assertEqual(self.get(target).fields[b"location"], b"https://a" + target)
        self.assertEqual(self.get(CHALLENGE, post).status, 308)
        self.assertEqual(self.paths, [CHALLENGE + b"x", CHALLENGE + b"/"])


class HttpsPortTests(BalancerTestCase):
    """The port in the location."""

    def port(self, *binds: Sequence[ListenAddress], **fields: Any) -> int:
        """The port with one TLS frontend for each of `binds`."""
        frontends = [
            evolve(SECURE, name=f"secure{number}", bind=tuple(addresses), tls=SELF_SIGNED, **fields)
            for number, addresses in enumerate(binds)
        ]
        configuration = evolve(BOTH, frontends=(PLAIN, evolve(SECURE, bind=(tcp(81),)), *frontends))
        return BalancerService(configuration, Clock(), random.Random(1)).https_port

    def test_port_of_the_tls_frontend(self) -> None:
        """The port is that of the first TLS address, but 443 if any address has it."""
        unix, proxied = UnixAddress("/run/s"), ProxyProtocolAddress(tcp(8443))
        for binds, expected in (
            ([], 443),
            ([[tcp(443)]], 443),
            ([[tcp(8443)]], 8443),
            ([[tcp(8443), tcp(443)]], 443),
            ([[tcp(8443), tcp(9443)]], 8443),
            ([[tcp(8443)], [tcp(443)]], 443),
            ([[unix]], 443),
            ([[unix, proxied]], 8443),
        ):
            self.assertEqual(self.port(*binds), expected, binds)
        self.assertEqual(self.port([tcp(8443)], mode="tcp"), 443)

    def test_port_in_location(self) -> None:
        """Another port than 443 is part of the location, also after a reload."""
        binds = (tcp(8443),)
        secure = evolve(SECURE, bind=binds, tls=SELF_SIGNED)
        service = BalancerService(
            evolve(BOTH, frontends=(PLAIN, secure)), Clock(), random.Random(1)
        )
        client = Peer(service.frontends["plain"].factory.build_channel("192.0.2.1"))
        for authority, location in ((b"a:80", b"a:8443"), (b"[::1]:80", b"[::1]:8443")):
            client.send(b"GET /b HTTP/1.1\r\nHost: " + authority + b"\r\n\r\n")
            (response,) = parse_responses(client.received())
            self.assertEqual(response.fields[b"location"], b"https://" + location + b"/b")
        service.apply(evolve(BOTH, frontends=(PLAIN, evolve(secure, bind=(tcp(443),)))))
        client.send(GET)
        (response,) = parse_responses(client.received())
        self.assertEqual(response.fields[b"location"], b"https://example.org/")


class BalancerWithRedirectTests(RedirectTestCase):
    """Everything else in a balancer with a frontend that redirects."""

    def test_default_pool(self) -> None:
        """The first frontend with a pool is the default, although another is before it."""
        balancer = self.start(pool="missing")
        service = balancer.service
        self.assertIs(service.default_pool, service.pools["app"])
        self.assertIs(service.default_frontend, service.frontends["secure"])
        self.assertIs(service.resource, service.pools["app"].dispatcher)
        self.assertIs(service.getServiceNamed("health"), service.pools["app"].health)
        client = balancer.client()
        client.send(GET)
        balancer.accept().send(OK)
        self.assertTrue(client.received().endswith(b"hello"))

    def test_mode_of_the_pool(self) -> None:
        """The name of the pool of a frontend that redirects does not decide a pool's mode."""
        configuration = evolve(BOTH, frontends=(PLAIN, evolve(SECURE, mode="tcp")))
        self.assertEqual(configuration.pool_mode("app"), "tcp")

    def test_readiness(self) -> None:
        """A frontend that redirects does not affect readiness."""
        service = self.start(pool="missing").service
        self.assertEqual(service.not_ready_reason(), "")
        service.apply(evolve(service.settings, pools=(PoolSettings("app"),)))
        self.assertEqual(service.not_ready_reason(), "pool app has no available server")
        service.apply(evolve(service.settings, frontends=(PLAIN,)))
        self.assertEqual(service.not_ready_reason(), "")

    def test_reload(self) -> None:
        """A reload turns redirects on and off for open connections."""
        balancer = self.start()
        client = self.client(balancer)
        for _ in range(2):
            client.send(GET)
            self.assertEqual(parse_responses(client.received())[0].status, 308)
            forwarding = evolve(PLAIN, redirect_https=False, pool="app")
            balancer.service.apply(evolve(BOTH, frontends=(forwarding, SECURE)))
            client.send(GET)
            server = balancer.accept() if len(balancer.peers) == 1 else balancer.peers[1]
            server.send(OK)
            self.assertTrue(client.received().endswith(b"hello"))
            balancer.service.apply(BOTH)

    def test_drain(self) -> None:
        """While draining, a redirect is the last response of its connection."""
        balancer = self.start()
        client = self.client(balancer)
        balancer.service.drain()
        client.send(GET)
        (response,) = parse_responses(client.received())
        self.assertEqual((response.status, response.fields[b"connection"]), (308, b"close"))
        balancer.advance(40)

    def test_metrics(self) -> None:
        """The metrics contain the frontend that redirects."""
        balancer = self.start()
        self.client(balancer)
        text = metrics_text(balancer.service)
        self.assertIn('balancebeam_frontend_connections{frontend="plain"} 1', text)

    def test_no_pool(self) -> None:
        """A balancer may have frontends that redirect and no pool."""
        admin = MemoryAdmin(Settings((PLAIN,), ()))
        self.addCleanup(admin.stop)
        balancer = admin.balancer
        client = balancer.client()
        client.send(GET)
        self.assertEqual(parse_responses(client.received())[0].status, 308)
        service = balancer.service
        self.assertRaises(LookupError, lambda: service.default_pool)
        self.assertRaises(KeyError, service.getServiceNamed, "health")
        self.assertEqual(admin.request("GET", "/readyz").data, "ready")
        self.assertEqual(admin.request("GET", "/upstreams").data, [])
        self.assertEqual(admin.request("GET", "/metrics").status, 200)
        response = admin.request("POST", "/register", {"address": "http://10.9.9.9:80"})
        self.assertEqual((response.status, response.error), (404, "no pool is configured"))
        service.apply(BOTH)
        service.apply(Settings((PLAIN,), ()))
        balancer.advance(1)
        self.assertEqual(service.pools, {})
