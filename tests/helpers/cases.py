"""Base class of the functional tests."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.helpers.memory import MemoryBalancer, head_and_body


class BalancerTestCase(SynchronousTestCase):
    """Base class of tests that run a whole balancer in memory."""

    def balancer(self, servers: int = 1, **settings: Any) -> MemoryBalancer:
        """Start a balancer that is stopped after the test, when it must leave nothing behind."""
        balancer = MemoryBalancer(servers, **settings)
        self.addCleanup(balancer.stop)
        return balancer

    def exchange(self, request: bytes, response: bytes, **settings: Any) -> tuple[bytes, bytes]:
        """
        Run one exchange through a balancer with these `settings`.

        Args:
            request: bytes that the client sends.
            response: bytes that the server sends once it is connected.

        Returns:
            The bytes that the server received, and the bytes that the client received.
        """
        balancer = self.balancer(**settings)
        client = balancer.client()
        client.send(request)
        server = balancer.accept()
        forwarded = server.received()
        server.send(response)
        return forwarded, client.received()

    def assert_error(self, response: bytes, status: int) -> list[bytes]:
        """
        Assert that `response` is one complete error response with a JSend body.

        Returns:
            The lines of its head.
        """
        lines, body = head_and_body(response)
        self.assertEqual(lines[0].split(b" ")[1], b"%d" % status, response)
        self.assertEqual(json.loads(body)["status"], "error")
        self.assertIn(b"Content-Length: %d" % len(body), lines)
        self.assertIn(b"Content-Type: application/json", lines)
        self.assertTrue(any(line.startswith(b"Date: ") for line in lines))
        return lines
