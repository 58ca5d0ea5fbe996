"""Limits as clients meet them."""

from __future__ import annotations

import re
from typing import Any

from balancebeam.core.errors import ConfigError
from balancebeam.core.settings import LimitSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK, MemoryBalancer, Peer, head_and_body

ONE = LimitSettings(1, 10.0, name="one")


def field(answer: bytes, name: str) -> str:
    """The value of a field of a response, or nothing."""
    match = re.search(rb"(?im)^%b:[ ]*(.*?)\r?$" % name.encode(), answer.partition(b"\r\n\r\n")[0])
    return match.group(1).decode() if match else ""


class RateLimitTestCase(BalancerTestCase):
    """A balancer with limits."""

    def limited(self, *limits: LimitSettings, **options: Any) -> MemoryBalancer:
        return self.balancer(limits=limits, **options)

    def ask(self, balancer: MemoryBalancer, client: Peer, request: bytes = GET) -> bytes:
        """The answer to one request, which the server answers if it gets it."""
        client.send(request)
        for connector in balancer.connectors:
            if connector.state == "connecting":
                balancer.accept(balancer.connectors.index(connector))
        for peer in balancer.peers:
            if hasattr(peer.protocol, "server") and peer.protocol.exchange is not None:
                peer.send(OK)
        return client.received()

    def statuses(self, balancer: MemoryBalancer, client: Peer, *requests: bytes) -> list[int]:
        return [int(self.ask(balancer, client, request)[9:12]) for request in requests]


class RejectionResponseTests(RateLimitTestCase):
    """What a client is told."""

    def test_the_refusal(self) -> None:
        balancer = self.limited(LimitSettings(2, 60.0, "fixed-window", name="few"))
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, GET, GET), [200, 200])
        answer = self.ask(balancer, client)
        self.assert_error(answer, 429)
        self.assertEqual(field(answer, "Retry-After"), "60")
        self.assertEqual(field(answer, "RateLimit"), '"few";r=0;t=60')
        self.assertEqual(field(answer, "RateLimit-Policy"), '"few";q=2;w=60')
        # The connection goes on.
        self.assertFalse(client.transport.closing)
        self.assertEqual(balancer.servers[0].in_flight, 0)

    def test_who_waits_as_long_as_it_was_told_is_let_in(self) -> None:
        for algorithm in ("fixed-window", "sliding-window", "sliding-log", "token-bucket"):
            balancer = self.limited(LimitSettings(3, 7.0, algorithm))
            client = balancer.client()
            for _ in range(5):
                while (answer := self.ask(balancer, client))[9:12] == b"200":
                    balancer.clock.advance(0.3)
                balancer.clock.advance(int(field(answer, "Retry-After")))
                self.assertEqual(self.statuses(balancer, client, GET), [200], algorithm)

    def test_status_and_message(self) -> None:
        limit = LimitSettings(1, 5.0, status=503, message="the office is closed")
        balancer = self.limited(limit)
        client = balancer.client()
        self.ask(balancer, client)
        answer = self.ask(balancer, client)
        self.assert_error(answer, 503)
        self.assertIn(b"the office is closed", head_and_body(answer)[1])
        self.assertEqual(field(answer, "RateLimit-Policy"), '"client";q=1;w=5')

    def test_a_status_of_ones_own(self) -> None:
        balancer = self.limited(LimitSettings(1, 5.0, status=420))
        client = balancer.client()
        self.ask(balancer, client)
        self.assert_error(self.ask(balancer, client), 420)

    def test_the_strictest_of_several(self) -> None:
        balancer = self.limited(
            LimitSettings(3, 10.0, "sliding-log", name="short"),
            LimitSettings(5, 100.0, "sliding-log", name="long"),
        )
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, *[GET] * 4), [200, 200, 200, 429])
        balancer.clock.advance(10)
        self.assertEqual(self.statuses(balancer, client, *[GET] * 3), [200, 200, 429])
        answer = self.ask(balancer, client)
        self.assertEqual(field(answer, "RateLimit"), '"long";r=0;t=90')
        self.assertEqual(field(answer, "RateLimit-Policy"), '"short";q=3;w=10, "long";q=5;w=100')
        # What the long one refused did not count for the short one.
        balancer.clock.advance(90)
        self.assertEqual(self.statuses(balancer, client, *[GET] * 4), [200, 200, 200, 429])

    def test_one_on_trial_only_counts(self) -> None:
        balancer = self.limited(LimitSettings(1, 5.0, dry_run=True))
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, *[GET] * 3), [200] * 3)
        self.assertEqual(balancer.service.limiter.scopes["frontend web"][0].rejected, 2)

    def test_without_limits_all_is_let_in(self) -> None:
        balancer = self.limited()
        client = balancer.client()
        self.assertEqual(self.statuses(balancer, client, *[GET] * 50), [200] * 50)

    def test_limits_that_make_no_sense(self) -> None:
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
    """What is counted together."""

    def get(self, target: str = "/", *lines: str) -> bytes:
        return "\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode()

    def test_clients(self) -> None:
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

    def test_families_do_not_share(self) -> None:
        balancer = self.limited(LimitSettings(1, 10.0, ipv6_prefix=32))
        for address in ("32.1.13.184", "2001:db8::1"):
            self.assertEqual(self.statuses(balancer, balancer.client(address), GET), [200])

    def test_hosts(self) -> None:
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

    def test_nobody_else_is_believed(self) -> None:
        balancer = self.limited(ONE, trusted_proxies=("10.0.0.0/8",))
        client = balancer.client()
        self.ask(balancer, client)
        for name in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X_Forwarded_For", "Via"):
            for value in ("203.0.113.9", "for=203.0.113.9"):
                request = self.get("/", f"{name}: {value}")
                self.assertEqual(self.statuses(balancer, client, request), [429], name)

    def test_fields(self) -> None:
        balancer = self.limited(LimitSettings(1, 10.0, key=("header:X-Api-Key",)))
        client = balancer.client()
        for lines, status in (
            (("X-Api-Key: one",), 200),
            (("x-api-key:  one ",), 429),
            (("X-Api-Key: two",), 200),
            ((), 200),
            ((), 429),
            # Who sends several is counted with all others who do.
            (("X-Api-Key: one", "X-Api-Key: three"), 200),
            (("X-Api-Key: four", "X-Api-Key: one"), 429),
            (("X_Api_Key: five", "X-Api-Key: one"), 429),
            (("X_Api_Key: one",), 429),
        ):
            found = self.statuses(balancer, client, self.get("/", *lines))
            self.assertEqual(found, [status], lines)

    def test_paths(self) -> None:
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
            found = self.statuses(balancer, client, self.get(target))
            self.assertEqual(found, [status], target)


class ConcurrencyLimitTests(RateLimitTestCase):
    """Limits on what goes on at the same time."""

    def test_until_the_answer_has_been_given(self) -> None:
        balancer = self.limited(LimitSettings(2, algorithm="concurrent", name="two"))
        clients = [balancer.client() for _ in range(3)]
        for client in clients:
            client.send(GET)
        answer = clients[2].received()
        self.assert_error(answer, 429)
        self.assertEqual(field(answer, "RateLimit-Policy"), '"two";q=2;qu="concurrent-requests"')
        balancer.accept(0).send(OK)
        clients[2].send(GET)
        self.assertEqual(len(balancer.connectors), 2)
        self.assertEqual(balancer.servers[0].in_flight, 2)

    def test_whatever_the_end(self) -> None:
        balancer = self.limited(LimitSettings(1, algorithm="concurrent"))
        for end in ("left", "refused", "cut", "answered", "own answer"):
            client = balancer.client()
            client.send(GET)
            connector = balancer.connectors[-1]
            if end == "left":
                client.reset()
            elif end == "refused":
                connector.refuse()
                self.assert_error(client.received(), 502)
            elif end == "own answer":
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
                server.send(OK if end == "answered" else OK[:-1])
                server.reset()
            limit = balancer.service.limiter.scopes["frontend web"][0]
            self.assertEqual(len(limit.limiter), 0, end)


class RejectedBodyTests(RateLimitTestCase):
    """The body of a refused request is read, so that the next one is found."""

    POST = b"POST / HTTP/1.1\r\nHost: a\r\n"

    def refused(self) -> tuple[MemoryBalancer, Peer]:
        """A client that may make no more requests."""
        balancer = self.limited(LimitSettings(1, 10.0, "fixed-window"))
        client = balancer.client()
        self.ask(balancer, client)
        return balancer, client

    def test_with_a_length(self) -> None:
        balancer, client = self.refused()
        client.send(self.POST + b"Content-Length: 30\r\n\r\nGET / HTTP/1.1\r\n")
        self.assert_error(client.received(), 429)
        client.send(b"Host: evil\r\n\r\n")
        self.assertEqual(client.received(), b"")
        self.assertFalse(client.transport.closing)
        balancer.clock.advance(11)
        self.assertEqual(self.statuses(balancer, client, GET), [200])

    def test_in_chunks(self) -> None:
        balancer, client = self.refused()
        client.send(self.POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab")
        self.assert_error(client.received(), 429)
        client.send(b"cde\r\n", b"0\r\n", b"\r\n" + GET)
        self.assert_error(client.received(), 429)
        balancer.clock.advance(11)
        self.assertEqual(self.statuses(balancer, client, GET), [200])

    def test_one_that_is_too_long_to_be_read_for_nothing(self) -> None:
        _, client = self.refused()
        client.send(self.POST + b"Content-Length: 1000000\r\n\r\n")
        self.assertIn(b"Connection: close", self.assert_error(client.received(), 429))
        self.assertTrue(client.transport.write_closed)

    def test_one_that_becomes_too_long(self) -> None:
        _, client = self.refused()
        client.send(self.POST + b"Transfer-Encoding: chunked\r\n\r\n")
        self.assert_error(client.received(), 429)
        for _ in range(10):
            if not client.transport.write_closed:
                client.send(b"2710\r\n" + b"x" * 10000 + b"\r\n")
        self.assertTrue(client.transport.write_closed)

    def test_one_that_is_broken(self) -> None:
        _, client = self.refused()
        client.send(self.POST + b"Transfer-Encoding: chunked\r\n\r\n", b"nonsense\r\n")
        self.assert_error(client.received(), 429)
        self.assertTrue(client.transport.write_closed)

    def test_one_that_never_comes(self) -> None:
        balancer, client = self.refused()
        client.send(self.POST + b"Content-Length: 10\r\n\r\n")
        self.assert_error(client.received(), 429)
        balancer.advance(62)
        self.assertTrue(client.transport.closing)

    def test_one_that_waits_to_be_asked_for(self) -> None:
        _, client = self.refused()
        client.send(self.POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
        self.assertIn(b"Connection: close", self.assert_error(client.received(), 429))

    def test_a_client_that_leaves_in_the_middle(self) -> None:
        for end in (Peer.half_close, Peer.reset):
            _, client = self.refused()
            client.send(self.POST + b"Content-Length: 10\r\n\r\n123")
            end(client)
