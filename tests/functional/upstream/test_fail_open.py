"""A pool whose servers are all ejected."""

from __future__ import annotations

from tests.helpers.cases import BalancerTestCase
from tests.helpers.memory import GET


class FailOpenTests(BalancerTestCase):
    """Load balancing over ejected servers."""

    def test_round_robin_over_ejected_servers(self) -> None:
        """The choice among no available servers advanced round robin too, so turns were skipped."""
        balancer = self.balancer(servers=3)
        client = balancer.client()
        seen = set()
        client.send(GET)
        while balancer.connectors[-1].state == "connecting":
            balancer.connectors[-1].refuse()
        for _ in range(3):
            count = len(balancer.connectors)
            client.send(GET)
            seen.add(str(balancer.connectors[count].address))
            while balancer.connectors[-1].state == "connecting":
                balancer.connectors[-1].refuse()
        self.assertEqual(len(seen), 3)
