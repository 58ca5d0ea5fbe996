"""Server-sent events: snapshots, changes, slow viewers and the end of streams."""

from __future__ import annotations

import json
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from balancebeam.admin import events
from balancebeam.admin.service import build_authorizer
from balancebeam.core.settings import AdminSettings, AdminState, SecretSource
from tests.helpers.admin import HOST_HEADER, AdminClient, MemoryAdmin, decode_chunks
from tests.helpers.memory import GET, OK

AUTH = b"Authorization: Bearer sesame\r\n"


class Stream:
    """A client of `GET /events` that parses what it receives."""

    def __init__(self, client: AdminClient) -> None:
        """Read the head of the response."""
        self.client = client
        self.head, _, self._rest = client.received().partition(b"\r\n\r\n")

    def events(self) -> list[tuple[str, Any]]:
        """Return name and data of the events since the last call."""
        content, _ = decode_chunks(self._rest + self.client.received())
        self._rest = b""
        parsed = []
        for text in content.decode().split("\n\n")[:-1]:
            name, data = text.split("\n")
            assert name.startswith("event: ") and data.startswith("data: "), text
            parsed.append((name[7:], json.loads(data[6:])))
        return parsed

    def names(self) -> list[str]:
        """Return the names of the events since the last call."""
        return [name for name, _ in self.events()]


class EventTestCase(SynchronousTestCase):
    """A balancer in memory with two servers and a running admin service."""

    settings = AdminSettings()

    def setUp(self) -> None:
        self.admin = MemoryAdmin(admin=self.settings, servers=2)
        self.admin.service.startService()
        self.addCleanup(self.admin.stop)
        self.balancer = self.admin.balancer
        self.streams = self.admin.service.events
        self.pool = self.balancer.service.default_pool

    def open(self, fields: bytes = HOST_HEADER) -> Stream:
        """Open a stream."""
        return Stream(self.admin.start_request("GET", "/events", fields=fields))

    def set_state(self, state: AdminState, number: int = 0) -> None:
        """Set the admin state of a server."""
        self.pool.health.set_admin_state(self.balancer.servers[number], state)


class StreamTests(EventTestCase):
    """What a viewer receives."""

    def test_head(self) -> None:
        """The response is an event stream that is neither cached nor of known length."""
        head = self.open().head.lower()
        self.assertTrue(head.startswith(b"http/1.1 200 "))
        self.assertIn(b"\r\ncontent-type: text/event-stream\r\n", head + b"\r\n")
        self.assertIn(b"\r\ncache-control: no-store", head)
        self.assertNotIn(b"content-length", head)

    def test_snapshot_every_second(self) -> None:
        """A viewer gets a snapshot at once, and another every second."""
        stream = self.open()
        self.assertEqual(stream.names(), ["snapshot"])
        self.balancer.clock.advance(0.9)
        self.assertEqual(stream.names(), [])
        for _ in range(3):
            self.balancer.clock.advance(1)
            self.assertEqual(stream.names(), ["snapshot"])

    def test_one_snapshot_for_all(self) -> None:
        """Viewers share a snapshot, and without any viewer none is made."""
        self.balancer.clock.advance(5)
        self.assertEqual(self.streams.snapshots, 0)
        viewers = [self.open() for _ in range(10)]
        self.assertEqual(self.streams.snapshots, 1)
        self.balancer.clock.advance(1)
        self.assertEqual(self.streams.snapshots, 2)
        texts = [json.dumps(stream.events()) for stream in viewers]
        self.assertEqual(len(set(texts)), 1)

    def test_change_immediately(self) -> None:
        """A change of a state is sent in the next turn of the event loop, without a second."""
        stream = self.open()
        stream.events()
        self.balancer.clock.advance(0.1)
        self.set_state(AdminState.DRAIN)
        self.balancer.clock.advance(0)
        ((name, change),) = stream.events()
        self.assertEqual(name, "change")
        self.assertEqual(
            [change[key] for key in ("pool", "address", "previous", "state", "reason")],
            ["app", "10.0.0.1:80", "up", "draining", "set to drain by administrator"],
        )
        self.balancer.clock.advance(1)
        ((name, snapshot),) = stream.events()
        self.assertEqual(snapshot["changes"][0], change)
        self.assertEqual(snapshot["servers"][0]["state"], "draining")

    def test_ejection_is_a_change(self) -> None:
        """A server that is ejected for a failure is sent as a change with the reason."""
        stream = self.open()
        stream.events()
        self.balancer.client().send(GET)
        self.balancer.connectors[0].refuse()
        self.balancer.clock.advance(0)
        ((name, change),) = stream.events()
        self.assertEqual((name, change["previous"], change["state"]), ("change", "up", "down"))
        self.assertIn("could not be reached", change["reason"])

    def test_new_viewer_gets_the_new_state(self) -> None:
        """A stream that is opened after a change within the same second begins with the change."""
        self.open()
        self.set_state(AdminState.MAINTENANCE)
        self.balancer.clock.advance(0)
        ((_, snapshot),) = self.open().events()
        self.assertEqual(snapshot["servers"][0]["state"], "maintenance")

    def test_head_request(self) -> None:
        """HEAD has the head of the stream and no stream."""
        response = self.admin.request("HEAD", "/events")
        self.assertEqual(response.fields[b"content-type"], b"text/event-stream")
        self.assertFalse(self.streams.viewers)

    def test_failing_snapshot(self) -> None:
        """A snapshot that raises is logged; the stream continues with the next one."""
        stream = self.open()
        stream.events()
        service = self.balancer.service
        service.not_ready_reason = lambda: 1 / 0  # type: ignore[assignment, return-value]
        self.balancer.clock.advance(1)
        self.assertEqual(stream.events(), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        del service.not_ready_reason
        self.balancer.clock.advance(1)
        self.assertEqual(stream.names(), ["snapshot"])


class ViewerTests(EventTestCase):
    """Viewers that do not read, disconnect, or are too many."""

    def test_paused_viewer_gets_nothing(self) -> None:
        """While its buffer is full, nothing is written for a viewer; later it gets the latest."""
        stream = self.open()
        stream.events()
        stream.client.channel.pauseProducing()
        self.balancer.clock.advance(1)
        self.set_state(AdminState.DRAIN)
        self.balancer.clock.advance(1)
        self.assertEqual(stream.events(), [])
        stream.client.channel.resumeProducing()
        self.balancer.clock.advance(1)
        ((_, snapshot),) = stream.events()
        self.assertEqual(snapshot["servers"][0]["state"], "draining")

    def test_stalled_viewer_is_dropped(self) -> None:
        """A viewer that does not read for 10 s is disconnected; others are not."""
        stalled, active = self.open(), self.open()
        stalled.client.channel.pauseProducing()
        for _ in range(9):
            self.balancer.clock.advance(1)
        self.assertFalse(stalled.client.transport.aborted)
        self.balancer.clock.advance(1)
        self.balancer.clock.advance(1)
        self.assertTrue(stalled.client.transport.aborted)
        self.assertFalse(active.client.transport.aborted)
        self.assertEqual((self.streams.dropped, len(self.streams.viewers)), (1, 1))

    def test_disconnected_viewer(self) -> None:
        """A viewer that disconnects gets nothing more and occupies no place."""
        stream = self.open()
        stream.client.close()
        self.assertFalse(self.streams.viewers)
        self.balancer.clock.advance(2)
        self.assertEqual(self.streams.snapshots, 1)

    def test_limit_of_viewers(self) -> None:
        """With 64 streams open, another is answered with 503, until one of them ends."""
        streams = [self.open() for _ in range(events.MAX_VIEWERS)]
        response = self.admin.request("GET", "/events")
        self.assertEqual(response.status, 503)
        self.assertIn("at most 64", response.error)
        streams[0].client.close()
        self.assertTrue(self.open().head.startswith(b"HTTP/1.1 200 "))

    def test_no_idle_timeout(self) -> None:
        """A stream stays open for longer than the time limit of a request."""
        stream = self.open()
        for _ in range(120):
            self.balancer.clock.advance(1)
        self.assertEqual(len(stream.events()), 121)


class EndTests(EventTestCase):
    """The end of streams at drain, stop and reload."""

    settings = AdminSettings(token=SecretSource("sesame"))

    def test_drain_ends_streams(self) -> None:
        """A drain ends streams cleanly; a new stream shows that the balancer drains."""
        stream = self.open(HOST_HEADER + AUTH)
        self.balancer.service.draining = True
        self.admin.service.drain(handing_over=False)
        self.assertTrue(stream.client.received().endswith(b"0\r\n\r\n"))
        self.assertTrue(stream.client.transport.disconnecting)
        ((_, snapshot),) = self.open(HOST_HEADER + AUTH).events()
        self.assertIs(snapshot["process"]["draining"], True)

    def test_handover_closes_other_connections(self) -> None:
        """At a hot restart idle connections are closed too; clients reach the new process."""
        idle = self.admin.connect()
        self.admin.service.drain(handing_over=True)
        self.assertTrue(idle.transport.aborted)

    def test_balancer_drains_streams(self) -> None:
        """The drain of the balancer ends the streams of its admin service."""
        self.balancer.service.admin = self.admin.service
        stream = self.open(HOST_HEADER + AUTH)
        self.balancer.service.drain(handing_over=True)
        self.assertTrue(stream.client.transport.disconnecting)
        self.balancer.service.admin = None

    def test_stop(self) -> None:
        """A stop ends all streams and timers; changes are recorded, but not sent."""
        stream = self.open(HOST_HEADER + AUTH)
        stream.client.channel.pauseProducing()
        other = self.open(HOST_HEADER + AUTH)
        self.set_state(AdminState.DRAIN)
        self.admin.service.stopService()
        self.assertTrue(stream.client.transport.aborted)
        self.assertTrue(other.client.transport.disconnecting)
        self.assertFalse(self.streams.viewers)
        self.set_state(AdminState.READY)
        self.balancer.clock.advance(2)
        self.assertEqual(self.balancer.service.state_changes.total, 2)

    def test_new_token_ends_streams(self) -> None:
        """A reload with another token ends the streams; with the same token it does not."""
        stream = self.open(HOST_HEADER + AUTH)
        self.admin.service.apply(self.settings, build_authorizer(self.settings))
        self.assertFalse(stream.client.transport.disconnecting)
        changed = evolve(self.settings, token=SecretSource("open"))
        self.admin.service.apply(changed, build_authorizer(changed))
        self.assertTrue(stream.client.transport.disconnecting)

    def test_authorization(self) -> None:
        """A stream needs the token and an allowed host name, as every other request."""
        for fields, status in ((HOST_HEADER, 401), (b"Host: evil\r\n" + AUTH, 403)):
            self.assertEqual(self.admin.request("GET", "/events", fields=fields).status, status)


class SnapshotTests(EventTestCase):
    """The content of a snapshot."""

    def snapshot(self) -> Any:
        """Return the next snapshot."""
        self.balancer.clock.advance(1)
        stream = self.open()
        ((_, snapshot),) = stream.events()
        stream.client.close()
        return snapshot

    def test_traffic(self) -> None:
        """Rates, shares, failures and the history follow the requests of the last second."""
        self.balancer.client().send(GET)
        self.balancer.accept().send(OK)
        snapshot = self.snapshot()
        first, second = snapshot["servers"]
        self.assertEqual((first["rate"], first["share"], first["error_rate"]), (1.0, 1.0, 0.0))
        self.assertEqual((first["history"], first["idle"]), ([1], 1))
        self.assertEqual((second["rate"], second["share"], second["error_rate"]), (0.0, 0.0, None))
        (pool,) = snapshot["pools"]
        self.assertEqual((pool["name"], pool["rate"], pool["history"]), ("app", 1.0, [1]))
        self.assertEqual((pool["error_rate"], pool["available"]), (0.0, 2))
        first = self.snapshot()["servers"][0]
        self.assertEqual((first["rate"], first["history"]), (0.0, [1, 0]))

    def test_latency(self) -> None:
        """Percentiles are of the last ten seconds, and null without requests."""
        self.assertIsNone(self.snapshot()["servers"][0]["p99"])
        self.balancer.client().send(GET)
        self.balancer.accept().send(OK)
        snapshot = self.snapshot()
        for view in (snapshot["servers"][0], snapshot["pools"][0]):
            self.assertGreater(view["p50"], 0)
            self.assertGreater(view["p99"], view["p50"])
        self.assertIsNone(snapshot["servers"][1]["p50"])
        for _ in range(10):
            snapshot = self.snapshot()
        self.assertIsNone(snapshot["servers"][0]["p50"])

    def test_frontends_and_process(self) -> None:
        """A snapshot has the connections of frontends, and the state of the process."""
        self.balancer.client()
        snapshot = self.snapshot()
        (frontend,) = snapshot["frontends"]
        self.assertEqual((frontend["connections"], frontend["certificates"]), (1, []))
        process = snapshot["process"]
        self.assertEqual((process["draining"], process["not_ready"]), (False, ""))
        self.assertGreater(process["rss"], 1e6)

    def test_draining_server_is_listed(self) -> None:
        """A removed server is listed until its last request has finished."""
        self.balancer.client().send(GET)
        server = self.balancer.accept()
        self.pool.server_set.remove(self.balancer.servers[0])
        views = self.snapshot()["servers"]
        self.assertEqual([view["reason"] for view in views], ["", "removed"])
        server.send(OK)
        self.assertEqual(len(self.snapshot()["servers"]), 1)
