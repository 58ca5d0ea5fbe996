"""Consistent hashing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing.hash_ring import HashRing
from balancebeam.balancing.interfaces import Algorithm
from tests.helpers.balancing import CLIENT, WEIGHTS, Server, first, names, servers, updated

CLIENTS = [f"192.168.{number >> 8}.{number & 255}" for number in range(20_000)]


def numbered(*weights: int) -> tuple[Server, ...]:
    """Servers named by addresses, with these weights."""
    return tuple(Server(f"10.1.0.{number}:80", weight) for number, weight in enumerate(weights))


def assignments(ring: Algorithm[Server], clients: Sequence[str] = CLIENTS) -> list[str]:
    """The name of the server that each client is assigned to."""
    return [first(ring, client).name for client in clients]


class HashRingTests(SynchronousTestCase):
    """Each client has a fixed server, and few clients move when servers change."""

    def check_moved_from(self, name: str, before: list[str], after: list[str]) -> list[str]:
        """Only the clients of `name` have moved; return their new servers."""
        moved = [(old, new) for old, new in zip(before, after) if old != new]
        self.assertEqual({old for old, _ in moved}, {name})
        self.assertEqual(len(moved), before.count(name))
        return [new for _, new in moved]

    def test_shares_roughly_follow_the_weights(self) -> None:
        """The number of clients per server is proportional to its weight, within 50 %."""
        for size in (3, 10, 100):
            for kinds in (1, 5):
                pool = numbered(*(number % kinds + 1 for number in range(size)))
                total = sum(server.weight for server in pool)
                counts = Counter(assignments(updated(HashRing(), pool)))
                for server in pool:
                    ideal = len(CLIENTS) * server.weight / total
                    self.assertLess(counts[server.name], 1.5 * ideal, msg=f"{server} of {size}")
                    self.assertGreater(counts[server.name], ideal / 2, msg=f"{server} of {size}")

    def test_only_clients_of_a_removed_server_move(self) -> None:
        """Clients of a removed server spread over the others by weight; no others move."""
        for weights in ((1,) * 10, (3, 1, 4, 1, 5, 9, 2, 6, 5, 3)):
            pool = numbered(*weights)
            ring = updated(HashRing(), pool)
            before = assignments(ring)
            for removed in (pool[0], pool[5]):
                ring.update([server for server in pool if server is not removed])
                moved = self.check_moved_from(removed.name, before, assignments(ring))
                counts, left = Counter(moved), sum(weights) - removed.weight
                for server in pool:
                    if server is not removed:
                        # The others inherit 256 arcs per unit of weight, about a ninth each,
                        # with a standard deviation of less than a quarter.
                        ideal = len(moved) * server.weight / left
                        self.assertLess(counts[server.name], 2 * ideal, msg=f"{server}")
                        self.assertGreater(counts[server.name], 0, msg=f"{server}")
            ring.update(pool)
            self.assertEqual(assignments(ring), before)

    def test_absent_server_is_skipped_as_if_it_never_existed(self) -> None:
        """A ring with an absent server equals a ring without it."""
        pool = numbered(1, 2, 3, 4)
        ring = updated(HashRing(), pool)
        ring.update(pool[1:])
        self.assertEqual(assignments(ring), assignments(updated(HashRing(), pool[1:])))

    def test_most_servers_absent_and_back(self) -> None:
        """If most servers are absent for a while, the assignments return with them."""
        pool = numbered(*[1] * 10)
        ring = updated(HashRing(), pool)
        before = assignments(ring)
        ring.update(pool[:2])
        for old, new in zip(before, assignments(ring)):
            if old in (pool[0].name, pool[1].name):
                self.assertEqual(old, new)
        ring.update(())
        self.assertEqual(list(ring.candidates(CLIENT)), [])
        ring.update(pool)
        self.assertEqual(assignments(ring), before)

    def test_added_server_only_takes_clients(self) -> None:
        """No client moves between old servers when a server is added."""
        pool = numbered(1, 2, 3, 4)
        ring = updated(HashRing(), pool[:3])
        before = assignments(ring)
        ring.update(pool)
        new = {now for old, now in zip(before, assignments(ring)) if old != now}
        self.assertEqual(new, {pool[3].name})

    def test_order_of_servers_does_not_matter(self) -> None:
        """Assignments depend on names and weights, not on the order."""
        pool = numbered(3, 1, 4, 1, 5)
        before = assignments(updated(HashRing(), pool))
        self.assertEqual(assignments(updated(HashRing(), pool[::-1])), before)
        self.assertEqual(assignments(updated(HashRing(), [*pool[2:], *pool[:2]])), before)

    def test_assignments_are_stable_across_releases(self) -> None:
        """The assignments are pinned: a release must not move clients."""
        ring = updated(HashRing(), numbered(1, 1, 1, 2))
        orders = {
            client: names(ring, client).replace("10.1.0.", "").replace(":80", "")
            for client in ("192.0.2.1", "192.0.2.2", "2001:db8::1", "")
        }
        self.assertEqual(orders, PINNED)

    def test_weight_change_moves_only_clients_of_that_server(self) -> None:
        """A weight change moves clients to or from that server only."""
        pool = numbered(2, 2, 2, 2)
        ring = updated(HashRing(), pool)
        before = assignments(ring)
        pool[1].weight = 3
        ring.update(pool)
        heavier = assignments(ring)
        self.assertEqual({n for o, n in zip(before, heavier) if o != n}, {pool[1].name})
        pool[1].weight = 1
        ring.update(pool)
        lighter = assignments(ring)
        self.assertEqual({o for o, n in zip(before, lighter) if o != n}, {pool[1].name})
        pool[1].weight = 2
        ring.update(pool)
        self.assertEqual(assignments(ring), before)

    def test_slow_start_moves_no_clients(self) -> None:
        """The configured weight counts, not the effective one."""
        pool = numbered(2, 2, 2)
        ring = updated(HashRing(), pool)
        before = assignments(ring)
        pool[0].effective_weight = 0.2
        ring.update(pool)
        self.assertEqual(assignments(ring), before)

    def test_failover_order_is_the_order_of_removal(self) -> None:
        """Each candidate is the server that would be first without the ones before it."""
        pool = numbered(1, 2, 3, 1, 2)
        ring = updated(HashRing(), pool)
        for client in CLIENTS[:50]:
            order = [server for server, _ in ring.candidates(client)]
            self.assertCountEqual(order, pool)
            for server, following in zip(order, order[1:]):
                self.assertIs(first(ring, client), server)
                ring.update(order[order.index(following) :])
                self.assertIs(first(ring, client), following)
            ring.update(pool)

    def test_absent_servers_are_dropped_in_the_end(self) -> None:
        """Points of removed servers do not accumulate."""
        pool = numbered(1, 1, 1)
        ring = HashRing[Server]()
        for number in range(300):
            ring.update((*pool, Server(f"10.2.0.{number}:80")))
            self.assertLessEqual(len(ring._weights), 2 * (len(pool) + 1))
        self.assertLessEqual(len(ring._points), 256 * 8)
        ring.update(pool)
        self.assertEqual(assignments(ring), assignments(updated(HashRing(), pool)))

    def test_large_weights_do_not_make_a_large_ring(self) -> None:
        """The ring has at most 2**20 points for 100 servers of weight 256."""
        ring = HashRing[Server]()
        pool = numbered(*[256] * 100)
        ring.update(pool)
        self.assertLessEqual(len(ring._points), 1 << 20)
        before = assignments(ring, CLIENTS[:2000])
        ring.update(pool[1:])
        self.check_moved_from(pool[0].name, before, assignments(ring, CLIENTS[:2000]))

    @settings(max_examples=60, deadline=None)
    @given(WEIGHTS, st.integers(0, 63), st.text(max_size=20))
    def test_present_servers_keep_their_order(
        self, weights: list[int], mask: int, client: str
    ) -> None:
        """Absent servers are left out; the order of the others stays."""
        pool = servers(*weights)
        ring = updated(HashRing(), pool)
        before = names(ring, client)
        present = [server for number, server in enumerate(pool) if mask & 1 << number]
        ring.update(present)
        expected = [name for name in before if name in {server.name for server in present}]
        self.assertEqual(list(names(ring, client)), expected)


# By client: the last digits of the servers, in the order of the candidates.
PINNED = {
    "192.0.2.1": "0312",
    "192.0.2.2": "3102",
    "2001:db8::1": "3210",
    "": "3012",
}
