"""Rate limits: responses, keys, concurrency, and the bodies of rejected requests."""

from __future__ import annotations

import re
from typing import Any

from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import LimitSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer, head_and_body

ONE = LimitSettings(1, 10.0, name="one")


def field(answer: bytes, name: str) -> str:
    """The value of a field of a response; empty without it."""
    match = re.search(rb"(?im)^%b:[ ]*(.*?)\r?$" % name.encode(), answer.partition(b"\r\n\r\n")[0])
    return match.group(1).decode() if match else ""


class RateLimitTestCase(BalancerTestCase):
    """A balancer with limits."""

    def limited(self, *limits: LimitSettings, **options: Any) -> MemoryBalancer:
        """A balancer whose frontend has `limits`."""
        return self.balancer(limits=limits, **options)

    def request(self, balancer: MemoryBalancer, client: Peer, request: bytes = GET) -> bytes:
        """Send a request, answer it if it is forwarded, and return the response."""
        client.send(request)
        for connector in balancer.connectors:
            if connector.state == "connecting":
                balancer.accept(balancer.connectors.index(connector))
        for peer in balancer.peers:
            if hasattr(peer.protocol, "server") and peer.protocol.exchange is not None:
                peer.send(OK)
        return client.received()

    def statuses(self, balancer: MemoryBalancer, client: Peer, *requests: bytes) -> list[int]:
        """The statuses of the responses to several requests."""
        return [int(self.request(balancer, client, request)[9:12]) for request in requests]


class RejectionResponseTests(RateLimitTestCase):
    """The response to a rejected request."""

    def test_rejection(self) -> None:
        """A request over the limit gets 429, Retry-After and the RateLimit fields."""
        balancer = self.limited(LimitSettings(2, 60.0, "fixed-window", name="few"))
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, GET, GET), [200, 200])
        response = self.request(balancer, client)
        self.assert_error(response, 429)
        self.assertEqual(field(response, "Retry-After"), "60")
        self.assertEqual(field(response, "RateLimit"), '"few";r=0;t=60')
        self.assertEqual(field(response, "RateLimit-Policy"), '"few";q=2;w=60')
        # The connection stays open.
        self.assertFalse(client.transport.closing)
        self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_retry_after_is_sufficient(self) -> None:
        """A client that waits for Retry-After seconds is admitted."""
        for algorithm in ("fixed-window", "sliding-window", "sliding-log", "token-bucket"):
            balancer = self.limited(LimitSettings(3, 7.0, algorithm))
            client = balancer.client()
            for _ in range(5):
                while (response := self.request(balancer, client))[9:12] == b"200":
                    balancer.clock.advance(0.3)
                balancer.clock.advance(int(field(response, "Retry-After")))
                self.assertEqual(self.statuses(balancer, client, GET), [200], algorithm)

    def test_configured_status_and_message(self) -> None:
        """The status and the message of a rejection are configurable."""
        limit = LimitSettings(1, 5.0, status=503, message="the office is closed")
        balancer = self.limited(limit)
        client = balancer.client()
        self.request(balancer, client)
        response = self.request(balancer, client)
        self.assert_error(response, 503)
        self.assertIn(b"the office is closed", head_and_body(response)[1])
        self.assertEqual(field(response, "RateLimit-Policy"), '"client";q=1;w=5')

    def test_unregistered_status(self) -> None:
        """A status without a registered reason phrase is possible."""
        balancer = self.limited(LimitSettings(1, 5.0, status=420))
        client = balancer.client()
        self.request(balancer, client)
        self.assert_error(self.request(balancer, client), 420)

    def test_longest_wait_decides(self) -> None:
        """The limit with the longest wait decides, and no other limit counts the request."""
        balancer = self.limited(
            LimitSettings(3, 10.0, "sliding-log", name="short"),
            LimitSettings(5, 100.0, "sliding-log", name="long"),
        )
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, *[GET] * 4), [200, 200, 200, 429])
        balancer.clock.advance(10)
        self.assertEqual(self.statuses(balancer, client, *[GET] * 3), [200, 200, 429])
        response = self.request(balancer, client)
        self.assertEqual(field(response, "RateLimit"), '"long";r=0;t=90')
        self.assertEqual(field(response, "RateLimit-Policy"), '"short";q=3;w=10, "long";q=5;w=100')
        # Requests that the long limit rejected were not counted by the short one.
        balancer.clock.advance(90)
        self.assertEqual(self.statuses(balancer, client, *[GET] * 4), [200, 200, 200, 429])

    def test_dry_run(self) -> None:
        """A dry-run limit admits every request, and counts the rejections."""
        balancer = self.limited(LimitSettings(1, 5.0, dry_run=True))
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, *[GET] * 3), [200] * 3)
        self.assertEqual(balancer.service.limiter.scopes["frontend web"][0].rejected, 2)

    def test_without_limits(self) -> None:
        """Without limits every request is admitted."""
        balancer = self.limited()
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, *[GET] * 50), [200] * 50)

    def test_invalid_limits(self) -> None:
        """An invalid limit prevents the start."""
        for limit in (
            LimitSettings(0),
            LimitSettings(1, 0.0),
            LimitSettings(1, algorithm="nonsense"),
            LimitSettings(1, key=()),
            LimitSettings(1, key=("nonsense",)),
            LimitSettings(1, ipv6_prefix=0),
            LimitSettings(1, burst=0, algorithm="token-bucket"),
            LimitSettings(1, status=200),
            LimitSettings(1, name='"'),
            LimitSettings(1, name="a\r\nb"),
            LimitSettings(1, key=("header:Forwarded",)),
            LimitSettings(1, key=("header:X-Forwarded-For",)),
        ):
            self.assertRaises(ConfigError, self.limited, limit)


class LimitKeyTests(RateLimitTestCase):
    """The requests that are counted together."""

    def get(self, target: str = "/", *lines: str) -> bytes:
        """A GET request with additional field lines."""
        return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode()

    def test_clients(self) -> None:
        """Clients are counted by IPv4 address, or by IPv6 network of 64 bits."""
        balancer = self.limited(ONE)
        for address, status in (
            ("192.0.2.1", 200),
            ("192.0.2.1", 429),
            ("192.0.2.2", 200),
            ("2001:db8::1", 200),
            ("2001:db8::2", 429),
            ("2001:db8:0:1::2", 200),
        ):
            client = balancer.client(address)
            self.assertEqual(self.statuses(balancer, client, GET), [status], address)

    def test_address_families_are_separate(self) -> None:
        """An IPv4 client and an IPv6 network with the same bytes are counted separately."""
        balancer = self.limited(LimitSettings(1, 10.0, ipv6_prefix=32))
        for address in ("32.1.13.184", "2001:db8::1"):
            self.assertEqual(self.statuses(balancer, balancer.client(address), GET), [200])

    def test_hosts(self) -> None:
        """All spellings of a host are counted together."""
        balancer = self.limited(LimitSettings(1, 10.0, key=("host",)))
        client = balancer.client()
        for host, status in (
            ("a.b", 200),
            ("A.b:80", 429),
            ("a.b.", 429),
            ("%61.b", 429),
            ("a.c", 200),
        ):
            request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            self.assertEqual(self.statuses(balancer, client, request), [status], host)

    def test_clients_behind_a_trusted_proxy(self) -> None:
        """Clients behind a trusted proxy are counted by the address that it reports."""
        balancer = self.limited(ONE, trusted_proxies=("192.0.2.1",))
        proxy = balancer.client("192.0.2.1")
        for chain, status in (
            ("203.0.113.1", 200),
            ("203.0.113.1", 429),
            ("spoofed, 203.0.113.1", 429),
            ("198.51.100.1, 203.0.113.1", 429),
            ("203.0.113.1:4711", 429),
            ("203.0.113.1, 192.0.2.1", 429),
            ("203.0.113.2", 200),
        ):
            request = self.get("/", f"X-Forwarded-For: {chain}")
            self.assertEqual(self.statuses(balancer, proxy, request), [status], chain)

    def test_untrusted_fields_do_not_change_the_client(self) -> None:
        """A client cannot evade the limit with forwarding fields."""
        balancer = self.limited(ONE, trusted_proxies=("10.0.0.0/8",))
        client = balancer.client()
        self.request(balancer, client)
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X_Forwarded_For", "Via"):
            for value in ("203.0.113.9", "for=203.0.113.9"):
                request = self.get("/", f"{name}: {value}")
                self.assertEqual(self.statuses(balancer, client, request), [429], name)

    def test_fields(self) -> None:
        """Requests are counted by a field's value; requests with several lines share one key."""
        balancer = self.limited(LimitSettings(1, 10.0, key=("header:X-Api-Key",)))
        client = balancer.client()
        for lines, status in (
            (("X-Api-Key: one",), 200),
            (("x-api-key:  one ",), 429),
            (("X-Api-Key: two",), 200),
            ((), 200),
            ((), 429),
            # All requests with several field lines share one key.
            (("X-Api-Key: one", "X-Api-Key: three"), 200),
            (("X-Api-Key: four", "X-Api-Key: one"), 429),
            (("X_Api_Key: five", "X-Api-Key: one"), 429),
            (("X_Api_Key: one",), 429),
        ):
            statuses = self.statuses(balancer, client, self.get("/", *lines))
            self.assertEqual(statuses, [status], lines)

    def test_paths(self) -> None:
        """All spellings of a path below the prefix are counted, and no others."""
        balancer = self.limited(LimitSettings(1, 10.0, key=("client", "path:/v1")))
        client = balancer.client()
        for target, status in (
            ("/", 200),
            ("/v10", 200),
            ("/v1/a", 200),
            ("/v1", 429),
            ("/v1?x", 429),
            ("//v1", 429),
            ("/%76%31/", 429),
            ("/x/../v1/b", 429),
            ("/v1;a=b/x", 429),
            ("/x/..;/v1/x", 429),
            ("/v1/../../x", 429),
            ("/v1/x/%2e%2e/..", 429),
            ("/x/..%5cv1", 429),
            ("/v1%3bx", 429),
            ("/x/../v1/;/../y", 429),
            ("/./v1/;/../y", 429),
            ("/x/../v1//../y", 429),
            ("/x;%5c..%5cv1", 429),
            ("/", 200),
        ):
            statuses = self.statuses(balancer, client, self.get(target))
            self.assertEqual(statuses, [status], target)


class ConcurrencyLimitTests(RateLimitTestCase):
    """Limits on requests in flight."""

    def test_until_the_response_is_complete(self) -> None:
        """A request counts until its response is complete."""
        balancer = self.limited(LimitSettings(2, algorithm="concurrent", name="two"))
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        response = clients[2].received()
        self.assert_error(response, 429)
        self.assertEqual(field(response, "RateLimit-Policy"), '"two";q=2;qu="concurrent-requests"')
        balancer.accept(0).send(OK)
        clients[2].send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        self.assertEqual(balancer.servers[0].in_flight, 2)

    def test_every_end_releases(self) -> None:
        """However a request ends, it is released."""
        balancer = self.limited(LimitSettings(1, algorithm="concurrent"))
        for end in ("disconnect", "refused", "truncated", "complete", "local reply"):
            client = balancer.client()
            client.send(GET)
            connector = balancer.connectors[-1]
            if end == "disconnect":
                client.reset()
            elif end == "refused":
                connector.refuse()
                self.assert_error(client.received(), 502)
            elif end == "local reply":
                client.reset()
                client = balancer.client()
                client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n")
                self.assertIn(b" 200 ", client.received())
            else:
                server = (
                    balancer.accept()
                    if connector.state == "connecting"
                    else next(p for p in balancer.peers if p.protocol is client)
                )
                server.send(OK if end == "complete" else OK[:-1])
                server.reset()
            limit = balancer.service.limiter.scopes["frontend web"][0]
            self.assertEqual(len(limit.limiter), 0, end)


class RejectedBodyTests(RateLimitTestCase):
    """The body of a rejected request is discarded, so that the next request is found."""

    POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

    def exhausted(self) -> tuple[MemoryBalancer, Peer]:
        """A client that is over its limit."""
        balancer = self.limited(LimitSettings(1, 10.0, "fixed-window"))
        client = balancer.client()
        self.request(balancer, client)
        return balancer, client

    def test_body_with_a_length(self) -> None:
        """A body with Content-Length is discarded, and never parsed as a request."""
        balancer, client = self.exhausted()
        client.send(self.POST + b"Content-Length: 30\r\n\r\nGET / HTTP/1.1\r\n")
        self.assert_error(client.received(), 429)
        client.send(b"Host: evil\r\n\r\n")
        self.assertEqual(client.received(), b"")
        self.assertFalse(client.transport.closing)
        balancer.clock.advance(11)
        self.assertEqual(self.statuses(balancer, client, GET), [200])

    def test_chunked_body(self) -> None:
        """A chunked body is discarded; the request behind it is found."""
        balancer, client = self.exhausted()
        client.send(self.POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab")
        self.assert_error(client.received(), 429)
        client.send(b"cde\r\n", b"0\r\n", b"\r\n" + GET)
        self.assert_error(client.received(), 429)
        balancer.clock.advance(11)
        self.assertEqual(self.statuses(balancer, client, GET), [200])

    def test_long_body(self) -> None:
        """The connection is closed instead of discarding a long body."""
        _, client = self.exhausted()
        client.send(self.POST + b"Content-Length: 1000000\r\n\r\n")
        self.assertIn(b"Connection: close", self.assert_error(client.received(), 429))
        self.assertTrue(client.transport.write_closed)

    def test_chunked_body_that_becomes_too_long(self) -> None:
        """The connection is closed when a chunked body becomes too long to discard."""
        _, client = self.exhausted()
        client.send(self.POST + b"Transfer-Encoding: chunked\r\n\r\n")
        self.assert_error(client.received(), 429)
        for _ in range(10):
            if not client.transport.write_closed:
                client.send(b"2710\r\n" + b"x" * 10000 + b"\r\n")
        self.assertTrue(client.transport.write_closed)

    def test_malformed_body(self) -> None:
        """The connection is closed if the body is malformed."""
        _, client = self.exhausted()
        client.send(self.POST + b"Transfer-Encoding: chunked\r\n\r\n", b"nonsense\r\n")
        self.assert_error(client.received(), 429)
        self.assertTrue(client.transport.write_closed)

    def test_missing_body(self) -> None:
        """The connection is closed if the body does not arrive before the idle timeout."""
        balancer, client = self.exhausted()
        client.send(self.POST + b"Content-Length: 10\r\n\r\n")
        self.assert_error(client.received(), 429)
        balancer.advance(62)
        self.assertTrue(client.transport.closing)

    def test_expect_continue(self) -> None:
        """The connection is closed if the client expects a 100: the body may follow or not."""
        _, client = self.exhausted()
        client.send(self.POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        self.assertIn(b"Connection: close", self.assert_error(client.received(), 429))

    def test_client_disconnects_within_the_body(self) -> None:
        """A client may disconnect within a discarded body."""
        for end in (Peer.half_close, Peer.reset):
            _, client = self.exhausted()
            client.send(self.POST + b"Content-Length: 10\r\n\r\n123")
            end(client)
