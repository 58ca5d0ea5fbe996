"""TODO."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.helpers.memory import MemoryBalancer, head_and_body


class BalancerTestCase(SynchronousTestCase):
    """A balancer, a client, and a look at what is left at the end."""

    def balancer(self, servers: int = 1, **settings: Any) -> MemoryBalancer:
        balancer = MemoryBalancer(servers, **settings)
        self.addCleanup(balancer.stop)
        return balancer

    def exchange(self, request: bytes, response: bytes, **settings: Any) -> tuple[bytes, bytes]:
        """What the server gets of `request`, and the client of `response`."""
        balancer = self.balancer(**settings)
        client = balancer.client()
        client.send(request)
        server = balancer.accept()
        forwarded = server.received()
        server.send(response)
        return forwarded, client.received()

    def assert_error(self, response: bytes, status: int) -> list[bytes]:
        """`answer` is one complete error in JSend form; returns its head."""
        lines, body = head_and_body(response)
        self.assertEqual(lines[0].split(b" ")[1], b"%d" % status, response)
        self.assertEqual(json.loads(body)["status"], "error")
        self.assertIn(b"Content-Length: %d" % len(body), lines)
        self.assertIn(b"Content-Type: application/json", lines)
        self.assertTrue(any(line.startswith(b"Date: ") for line in lines))
        return lines
