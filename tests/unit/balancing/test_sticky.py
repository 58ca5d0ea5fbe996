"""Sticky round robin."""

from __future__ import annotations

import random
from itertools import islice

from twisted.trial.unittest import SynchronousTestCase

from balancebeam.balancing import sticky
from balancebeam.balancing.sticky import StickyRoundRobin
from tests.helpers.balancing import CLIENT, Server, first, servers, updated


class StickyRoundRobinTests(SynchronousTestCase):
    """Each client keeps the server that it got first."""

    def test_new_clients_get_servers_in_turn(self) -> None:
        """New clients are distributed by round robin."""
        algorithm = updated(StickyRoundRobin(), servers(2, 1))
        self.assertEqual([first(algorithm, client).name for client in "123456"], [*"abaaba"])

    def test_client_keeps_its_server(self) -> None:
        """Added servers and another order move no client."""
        algorithm, pool = StickyRoundRobin[Server](), servers(1, 1, 1)
        algorithm.update(pool)
        before = {client: first(algorithm, client) for client in "12345"}
        algorithm.update((Server("d"), *pool[::-1]))
        for client in "3142567812345":
            kept = before.setdefault(client, first(algorithm, client))
            self.assertIs(first(algorithm, client), kept, msg=client)

    def test_assigned_clients_use_no_turns(self) -> None:
        """Only new clients advance the round robin."""
        algorithm = updated(StickyRoundRobin(), servers(1, 1, 1))
        chosen = [first(algorithm, client).name for client in "1111121113"]
        self.assertEqual("".join(chosen), "aaaaabaaac")

    def test_client_moves_when_its_server_is_removed(self) -> None:
        """A client of a removed server moves, and does not move back."""
        algorithm, pool = StickyRoundRobin[Server](), servers(1, 1, 1)
        algorithm.update(pool)
        lost = first(algorithm)
        algorithm.update([server for server in pool if server is not lost])
        moved = first(algorithm)
        self.assertIsNot(moved, lost)
        algorithm.update(pool)
        for _ in range(5):
            self.assertIs(first(algorithm), moved)

    def test_client_moves_when_its_server_fails(self) -> None:
        """A client moves to the server that its failed request was retried at."""
        for assigned in (False, True):
            algorithm = updated(StickyRoundRobin(), servers(1, 1, 1))
            if assigned:
                first(algorithm)
            order = algorithm.candidates(CLIENT)
            failed = next(order)[0]
            failed.available = False
            replacement = next(order)[0]
            self.assertIsNot(replacement, failed)
            # The server recovers, but the client has moved.
            failed.available = True
            self.assertIs(first(algorithm), replacement)

    def test_client_moves_until_a_server_responds(self) -> None:
        """After several failures the last server tried is the new one."""
        algorithm = updated(StickyRoundRobin(), servers(1, 1, 1))
        order = algorithm.candidates(CLIENT)
        for _ in range(2):
            next(order)[0].available = False
        last = next(order)[0]
        self.assertEqual(list(order), [])
        self.assertIs(first(algorithm), last)

    def test_client_stays_when_its_server_is_saturated(self) -> None:
        """A server without capacity for now keeps its clients."""
        for assigned in (False, True):
            algorithm = updated(StickyRoundRobin(), servers(1, 1, 1))
            kept = first(algorithm) if assigned else None
            order = [server for server, _ in algorithm.candidates(CLIENT)]
            self.assertIs(first(algorithm), kept or order[0])
            self.assertEqual(len(set(order)), 3)

    def test_number_of_clients_is_bounded(self) -> None:
        """Old clients are dropped, but not one that keeps coming."""
        self.patch(sticky, "MAX_CLIENTS", 8)
        algorithm = StickyRoundRobin[Server]()
        algorithm.update(servers(1, 1, 1))
        for number in range(1000):
            first(algorithm, f"client {number}")
            first(algorithm, "returning client")
            self.assertLessEqual(
                len(algorithm._new_generation) + len(algorithm._old_generation), 16
            )
        self.assertEqual(first(algorithm, "returning client").name, "b")

    def test_most_recent_clients_keep_their_servers(self) -> None:
        """At least the `MAX_CLIENTS` most recent clients keep their servers."""
        self.patch(sticky, "MAX_CLIENTS", 8)
        algorithm = updated(StickyRoundRobin(), servers(1, 1, 1, 1, 1))
        recent: dict[str, Server] = {}
        for number in random.Random(4).choices(range(30), k=500):
            client = f"client {number}"
            server = first(algorithm, client)
            if client in islice(reversed(recent), 8):
                self.assertIs(server, recent[client])
            recent.pop(client, None)
            recent[client] = server
