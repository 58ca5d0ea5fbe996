"""Long responses and snapshots, which are made in slices between other events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Callable

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin.slices import SLICE, Slices
from balancebeam.core.settings import AdminState
from tests.helpers.admin import HOST_HEADER, AdminClient, MemoryAdmin, parse_responses
from tests.helpers.memory import GET, OK
from tests.helpers.metrics import parse_metrics, sample_key

OPENMETRICS = HOST_HEADER + b"Accept: application/openmetrics-text\r\n"


class Turn:
    """A call of `TurnClock`."""

    def __init__(self, clock: TurnClock, function: Callable[[], object]) -> None:
        """Record the call."""
        self.function = function
        self._clock = clock

    def cancel(self) -> None:
        """Forget the call."""
        self._clock.calls.remove(self)


class TurnClock:
    """
    An event loop in which every piece of a text takes as long as a slice.

    Attributes:
        calls: The calls of the next turn.
    """

    def __init__(self) -> None:
        """Create it with an empty next turn."""
        self.calls: list[Turn] = []
        self._now = 0.0

    def seconds(self) -> float:
        """Return a later time at each call."""
        self._now += SLICE
        return self._now

    def callLater(self, delay: float, function: Callable[[], object]) -> Turn:
        """Call a function in the next turn."""
        assert delay == 0
        self.calls.append(Turn(self, function))
        return self.calls[-1]

    def turn(self) -> None:
        """Make a turn."""
        calls, self.calls = self.calls, []
        for call in calls:
            call.function()

    def run(self) -> int:
        """Make turns until nothing is left; return their number."""
        turns = 0
        while self.calls:
            self.turn()
            turns += 1
        return turns


class SlicesTests(SynchronousTestCase):
    """The texts of a `Slices`."""

    def setUp(self) -> None:
        self.clock = TurnClock()
        self.slices = Slices(self.clock)
        self.made: list[str] = []

    def joined(self, text: Deferred[list[bytes]]) -> bytes:
        """Return a complete text."""
        parts: list[bytes] = self.successResultOf(text)
        return b"".join(parts)

    def pieces(self, *texts: str) -> Iterator[str]:
        """Make `texts`, and record each."""
        for text in texts:
            self.made.append(text)
            yield text

    def test_turns(self) -> None:
        """The first slice is made at once, and one in each turn."""
        result = self.slices.make(self.pieces("a", "b", "é"))
        for made in ("a", "ab", "abé"):
            self.assertEqual("".join(self.made), made)
            self.assertNoResult(result)
            self.clock.turn()
        self.assertEqual(self.joined(result), "abé".encode())
        self.assertEqual(self.clock.calls, [])

    def test_short_text(self) -> None:
        """A text of less than a slice needs no turn."""
        self.clock.seconds = lambda: 0.0  # type: ignore[method-assign]
        result = self.slices.make(self.pieces("a", "b"))
        self.assertEqual(self.successResultOf(result), [b"ab"])
        self.assertEqual(self.clock.calls, [])

    def test_several_texts(self) -> None:
        """Each turn has one slice, of another text each time."""
        first = self.slices.make(self.pieces(*"abc"))
        second = self.slices.make(self.pieces(*"123"))
        self.assertEqual(self.made, ["a"])
        self.clock.run()
        self.assertEqual("".join(self.made), "ab1c23")
        self.assertEqual(self.joined(first), b"abc")
        self.assertEqual(self.joined(second), b"123")

    def test_cancelled(self) -> None:
        """A cancelled text ends, and others go on; without others no turn is scheduled."""
        first = self.slices.make(self.pieces("a", "b", "c"))
        second = self.slices.make(self.pieces("1", "2"))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.clock.turn()
        self.assertEqual(self.made, ["a", "1"])
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.assertEqual(self.clock.calls, [])

    def test_failed(self) -> None:
        """An exception ends its text only."""

        def fail() -> Iterator[str]:
            yield "a"
            raise ValueError

        first, second = self.slices.make(fail()), self.slices.make(self.pieces("1", "2"))
        self.clock.run()
        self.failureResultOf(first, ValueError)
        self.assertEqual(self.joined(second), b"12")

    def test_stop(self) -> None:
        """A stop completes all texts and leaves no timer."""
        results = [self.slices.make(self.pieces(*"abc")) for _ in range(2)]
        self.slices.stop()
        for result in results:
            self.assertEqual(self.joined(result), b"abc")
        self.assertEqual(self.clock.calls, [])


class SlicedResponseTests(SynchronousTestCase):
    """Responses and events of an admin listener with many servers."""

    SERVERS = 20

    def setUp(self) -> None:
        self.admin = MemoryAdmin(servers=self.SERVERS)
        self.admin.service.startService()
        self.addCleanup(self.admin.stop)
        self.clock = TurnClock()
        self.slices: Slices = self.admin.service._slices
        self.slices._clock = self.clock
        self.pool: Any = self.admin.balancer.service.default_pool
        service: Any = self.admin.balancer.service
        for name in ("reloads", "reloads_failed", "reloaded_at"):
            if not hasattr(service, name):
                setattr(service, name, 0)

    def start(self, path: str, fields: bytes = OPENMETRICS) -> AdminClient:
        """Send a request whose response is not complete yet."""
        client = self.admin.start_request("GET", path, fields=fields)
        self.assertEqual(client.transport.value(), b"")
        return client

    def body(self, client: AdminClient) -> bytes:
        """Return the body of the only response."""
        (response,) = parse_responses(client.received())
        self.assertEqual(response.status, 200)
        return response.body

    def test_lists(self) -> None:
        """Lists of servers are as long as without slices."""
        for path in ("/upstreams", "/upstreams/app"):
            client = self.start(path)
            self.assertGreaterEqual(self.clock.run(), self.SERVERS)
            self.assertEqual(len(json.loads(self.body(client))["data"]), self.SERVERS)

    def test_two_scrapes(self) -> None:
        """Two scrapes at once are both complete."""
        clients = [self.start("/metrics") for _ in range(2)]
        self.clock.run()
        for client in clients:
            text = self.body(client).decode()
            self.assertTrue(text.endswith("\n# EOF\n"))
            self.assertEqual(text.count("\nbalancebeam_server_up{"), self.SERVERS)

    def test_server_removed_during_scrape(self) -> None:
        """A removed server keeps its samples until the end of the scrape, although swept."""
        self.admin.balancer.client().send(GET)
        self.admin.balancer.accept().send(OK)
        server = next(item for item in self.admin.balancer.servers if item.total_requests)
        self.pool.latency.fold()
        client = self.start("/metrics", HOST_HEADER)
        self.clock.turn()
        self.pool.server_set.remove(server)
        self.pool.latency.fold()
        self.clock.run()
        samples = parse_metrics(self.body(client).decode())
        labels = {"pool": "app", "server": server.name}
        for name in ("requests_total", "first_byte_seconds_count"):
            self.assertEqual(samples[sample_key(f"balancebeam_server_{name}", **labels)], 1, name)

    def test_client_gone(self) -> None:
        """The scrape of a client that disconnects ends; nothing is logged."""
        client = self.start("/metrics")
        self.clock.turn()
        client.close()
        self.assertEqual(len(self.slices.texts), 0)
        self.assertEqual(self.clock.calls, [])

    def test_listener_stops(self) -> None:
        """A scrape in progress is completed when the listener stops, and then closed."""
        client = self.start("/metrics")
        self.admin.service.stopService()
        self.assertTrue(self.body(client).endswith(b"\n# EOF\n"))
        self.assertTrue(client.transport.disconnecting)
        self.assertFalse(client.transport.aborted)
        self.assertEqual(self.clock.calls, [])

    def test_failure(self) -> None:
        """A failure in a later slice is a 500 with the reason in the log."""
        client = self.start("/metrics")
        del self.admin.balancer.servers[-1].first_byte_samples
        self.clock.run()
        (response,) = parse_responses(client.received())
        self.assertEqual(response.status, 500)
        self.assertEqual(len(self.flushLoggedErrors(AttributeError)), 1)
        self.admin.balancer.servers[-1].first_byte_samples = []

    def test_snapshot(self) -> None:
        """Viewers that connect while a snapshot is made share it."""
        viewers = [self.admin.start_request("GET", "/events") for _ in range(2)]
        self.clock.turn()
        viewers.append(self.admin.start_request("GET", "/events"))
        self.clock.run()
        self.assertEqual(self.admin.service.events.snapshots, 1)
        for viewer in viewers:
            self.assertEqual(viewer.received().count(b"event: snapshot"), 1)

    def test_change_during_snapshot(self) -> None:
        """A change is sent at once; the snapshot in progress begins again, with the new state."""
        viewer = self.admin.start_request("GET", "/events")
        for _ in range(self.SERVERS):
            self.clock.turn()
        viewer.received()
        self.pool.health.set_admin_state(self.admin.balancer.servers[0], AdminState.DRAIN)
        self.admin.balancer.clock.advance(0)
        self.assertIn(b"event: change", viewer.received())
        self.clock.run()
        received = viewer.received()
        self.assertEqual(received.count(b"event: snapshot"), 1)
        self.assertIn(b'"state":"draining"', received)
        self.assertEqual(self.admin.service.events.snapshots, 1)

    def test_slow_snapshot(self) -> None:
        """A snapshot that takes longer than a second is completed, not begun again."""
        viewer = self.admin.start_request("GET", "/events")
        self.clock.turn()
        self.admin.balancer.clock.advance(1)
        self.assertEqual(len(self.slices.texts), 1)
        self.clock.run()
        self.assertEqual(viewer.received().count(b"event: snapshot"), 1)

    def test_streams_stop_during_snapshot(self) -> None:
        """The end of the streams ends the snapshot."""
        viewer = self.admin.start_request("GET", "/events")
        self.admin.service.events.stop()
        self.assertEqual(len(self.slices.texts), 0)
        self.assertNotIn(b"event: snapshot", viewer.received())
