"""Access lists of frontends."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK

CLIENT = "203.0.113.7"


def request(*lines: str) -> bytes:
    """A request with these additional field lines."""
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode()


class AccessListTests(BalancerTestCase):
    """Requests of denied clients are rejected."""

    def test_rejection(self) -> None:
        """A denied client gets 403 without Retry-After; others are admitted."""
        balancer = self.balancer(deny=("192.0.2.1",))
        client = balancer.client()
        client.send(GET)
        lines = self.assert_error(client.received(), 403)
        self.assertFalse(any(line.startswith(b"Retry-After") for line in lines))
        allowed_client = balancer.client("192.0.2.2")
        allowed_client.send(GET)
        self.assertEqual(len(balancer.connectors), 1)

    def test_client_behind_a_trusted_proxy(self) -> None:
        """The list applies to the client that a trusted proxy reports."""
        balancer = self.balancer(allow=(CLIENT,), trusted_proxies=("192.0.2.1",))
        client = balancer.client()
        client.send(request(f"X-Forwarded-For: {CLIENT}"))
        balancer.accept().send(OK)
        self.assertIn(b"200 OK", client.received())
        client.send(request("X-Forwarded-For: 198.51.100.1"))
        self.assert_error(client.received(), 403)
