"""Slow start of readmitted servers."""

from __future__ import annotations

from balancebeam.core.addresses import TcpAddress
from balancebeam.core.settings import ServerSettings
from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET, OK


class SlowStartTests(BalancerTestCase):
    """With slow start, the weight of a readmitted server grows."""

    def test_slow_start_after_an_ejection(self) -> None:
        """The effective weight grows from a tenth to the full weight in `slow_start` seconds."""
        servers = tuple(ServerSettings(TcpAddress(f"10.0.0.{n}", 80), 10) for n in (1, 2))
        balancer = self.balancer(servers=0, slow_start=10.0)
        for settings in servers:
            balancer.service.server_set.add(settings)
        client = balancer.client()
        client.send(GET)
        balancer.connectors[0].refuse()
        balancer.accept().send(OK)
        balancer.advance(11)
        server = balancer.servers[0]
        for _ in range(2):
            another_client = balancer.client()
            another_client.send(GET)
            if balancer.connectors[-1].state == "connecting":
                balancer.accept().send(OK)
            another_client.reset()
        self.assertEqual(server.effective_weight, 1.0)
        before = 0.0
        for second in range(1, 13):
            balancer.advance(1)
            # The sweep may run up to an interval earlier or later.
            self.assertLess(abs(server.effective_weight - min(second, 10)), 1.5)
            self.assertGreaterEqual(server.effective_weight, before)
            before = server.effective_weight
        self.assertEqual(server.effective_weight, 10.0)
