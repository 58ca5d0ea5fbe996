"""Recent requests: bounds, ages and selection."""

from __future__ import annotations

import platform
import sys
from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from balancebeam.net.ticker import Ticker
from balancebeam.observability.recent_requests import (
    MAX_FAILED,
    MAX_RECENT,
    MAX_SLOW,
    MAX_TARGET,
    SLOW_AGE,
    RecentHttpRequests,
    RecentRequests,
)
from balancebeam.proxy.rejected import RejectedRequest


class RecentRequestsTestCase(SynchronousTestCase):
    """A store on a simulated clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(100.0)
        self.store = RecentRequests(Ticker(self.clock, 1.0), self.clock.seconds)
        self.store.enable(True)
        observer = self.store.observer("web", "http", False)
        assert isinstance(observer, RecentHttpRequests)
        self.observer = observer

    def finish(self, number: int = 0, seconds: float = 0.1, **changes: Any) -> None:
        """Finish a request for /`number` that took this long."""
        self.clock.advance(seconds)
        now = self.clock.seconds()
        target = changes.pop("target", b"/%d" % number)
        attributes = {
            "head": SimpleNamespace(method=b"GET", host=b"a", target=target),
            "upstream_head": b"GET %b HTTP/1.1\r\nCookie: secret=1\r\n\r\n" % target,
            "route": None,
            "last_server": None,
            "client": "192.0.2.1",
            "status": 200,
            "body_bytes_sent": 5,
            "truncated": False,
            "client_aborted": False,
            "tries": (),
            "uneventful": False,
            "received_at": now - seconds,
            "attempt_at": now - seconds,
            "finished_at": now,
            "first_byte_at": now,
            "queue_seconds": 0.0,
            "connect_seconds": None,
            "last_try_failed": False,
            "selection_reason": "",
            "outcome": "",
            "failure": None,
            "downstream_response_started": True,
            "dispatcher": SimpleNamespace(pool_name="app"),
            **changes,
        }
        self.observer.exchange_finished(SimpleNamespace(**attributes))

    def targets(self, failed: bool = False, slow: bool = False, limit: int = 5000) -> list[str]:
        """The targets that are shown."""
        rows = self.store.select(None, failed, slow, limit)
        return [row["target"] for row in rows]


class SelectionTests(RecentRequestsTestCase):
    """Which requests are kept, and in which order they are shown."""

    def test_newest_first(self) -> None:
        """Requests are shown newest first, as many as the limit allows."""
        for number in range(5):
            self.finish(number)
        self.assertEqual(self.targets(), ["/4", "/3", "/2", "/1", "/0"])
        self.assertEqual(self.targets(limit=2), ["/4", "/3"])

    def test_bound(self) -> None:
        """Only the newest requests are kept, besides the slowest."""
        for number in range(MAX_RECENT + 500):
            self.finish(number)
        targets = self.targets()
        self.assertEqual(targets[:MAX_RECENT], [f"/{n}" for n in range(1499, 499, -1)])
        self.assertLessEqual(len(targets), MAX_RECENT + MAX_SLOW)

    def test_failures_are_kept_longer(self) -> None:
        """Failures of servers and truncated responses outlast other requests."""
        for _ in range(MAX_SLOW):
            self.finish(9, seconds=9.0)
        for number, status in enumerate((502, 503, 504, 500, 429)):
            self.finish(number, status=status, outcome="server")
        self.finish(5, truncated=True, outcome="server")
        self.finish(6, status=503)
        for number in range(MAX_RECENT):
            self.finish(1000 + number)
        self.assertEqual(self.targets(failed=True), ["/6", "/5", "/2", "/1", "/0"])
        for number in range(MAX_FAILED + 5):
            self.finish(number, status=502, outcome="server")
        for number in range(MAX_RECENT):
            self.finish(1000 + number)
        self.assertEqual(len(self.targets(failed=True)), MAX_FAILED)

    def test_slowest(self) -> None:
        """The slowest requests are kept, and shown slowest first."""
        for number in range(MAX_SLOW + 50):
            self.finish(number, seconds=1.0 + number % 7 + number / 1000)
        for _ in range(MAX_RECENT):
            self.finish(5000, seconds=0.001)
        slow = [row["phases"]["first_byte"] for row in self.store.select(None, False, True, 5000)]
        self.assertEqual(len(slow), MAX_SLOW)
        self.assertEqual(slow, sorted(slow, reverse=True))
        self.assertGreater(slow[-1], 2.9)

    def test_tunnels_are_not_slow(self) -> None:
        """The duration of a tunnel does not make it a slow request."""
        self.finish(1, seconds=500.0, status=101)
        self.assertEqual(self.targets(slow=True), [])
        self.assertEqual(self.targets(), ["/1"])

    def test_slow_requests_age(self) -> None:
        """Slow requests are forgotten after a time, and others take their place."""
        for number in range(MAX_SLOW):
            self.finish(number, seconds=5.0)
        self.clock.advance(SLOW_AGE + 1)
        self.store.sweep(self.clock.seconds())
        self.assertEqual(self.targets(slow=True), [])
        self.finish(7, seconds=0.5)
        self.assertEqual(self.targets(slow=True), ["/7"])

    def test_ids(self) -> None:
        """A request is found by the id that is shown."""
        self.finish(1)
        self.finish(2)
        _, first = self.store.select(None, False, False, 10)
        self.assertEqual(list(self.store.select(first["id"], False, False, 10)), [first])
        self.assertEqual(list(self.store.select("other", False, False, 10)), [])

    def test_disabling_forgets(self) -> None:
        """Without the admin API nothing is kept."""
        self.finish(1)
        self.store.enable(False)
        self.assertIsNone(self.store.observer("web", "http", False))
        self.assertEqual(self.targets(), [])


class ContentTests(RecentRequestsTestCase):
    """What is kept of a request."""

    def test_no_credentials(self) -> None:
        """No field of the request but Host is kept."""
        self.finish(1)
        self.finish(2, status=502, outcome="server")
        self.assertNotIn("secret", repr(vars(self.store)))

    def test_long_values(self) -> None:
        """Long values are cut, so that memory is bounded."""
        if platform.python_implementation() != "CPython":
            raise SkipTest("only CPython reports the size of objects")
        self.finish(target=b"/" + b"x" * 60000)
        (row,) = self.store.select(None, False, False, 10)
        self.assertEqual(len(row["target"]), MAX_TARGET)
        self.assertLess(sys.getsizeof(self.store._recent[0][5]), 2 * MAX_TARGET)

    def test_rejected_requests(self) -> None:
        """An unreadable request is shown with its line and "refused"."""
        self.observer.request_rejected(RejectedRequest("192.0.2.9", b"\xff\x00x", 400, "bad", 7))
        self.observer.request_rejected(RejectedRequest("192.0.2.9", b"GET /a HTTP/9", 505, "v", 7))
        rows = self.store.select(None, False, False, 10)
        shown = {(row["method"], row["target"], row["status"], row["ended"]) for row in rows}
        expected = {("GET", "/a", 505, "refused"), (None, "\\xff\x00x", 400, "refused")}
        self.assertEqual(shown, expected)
